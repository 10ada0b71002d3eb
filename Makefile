# One name per intention. Everything runs in .venv, which `make setup` makes and keeps.

PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
SEEDS  ?= 200
CASES  ?= 20000
SOAK_SECONDS ?= 1800
REGRESS := --quick --rounds 3 --only SMALL
# sets of bytes in one order, so that a simulated schedule is the same each time
export PYTHONHASHSEED ?= 0
SEEDED := STREAMD_SIM_SEEDS=$(SEEDS)
# long tests stand side by side: whoever has nothing left takes some of them
BOTH   := -n 2 --dist worksteal
# tests that mostly wait: three files of them at a time, each on a disk of its own, but for those that
# change the kernel's settings or are about time itself
WAITING := -n 3 --dist loadfile --no-loadscope-reorder
ALONE  := $(addprefix tests/system/test_,source_faults.py events.py continuous.py growing_log.py sink.py)
CORE   := 'streamd/model/*,streamd/format/*,streamd/policy/*'
# tests whose outcome does not depend on how fast the machine is: both cores at once
TIMELESS := tests/unit tests/property tests/contract tests/crash tests/sim tests/fuzz tests/golden tests/tidy
# types are checked by one process: the other core begins with the tests
ABREAST := $(MAKE) --no-print-directory -j3
QUICK  := not slow and not azurite and not root and not systemd and not prometheus

.PHONY: setup fmt static style types layers check quick cover test run bench bench-regress bench-baseline docs sim integration system soak fuzz sanitize clean

setup: $(STAMP)                    ## everything that streamd and its checks need

$(STAMP): requirements.lock pyproject.toml setup.py scripts/setup.sh streamd/sources/filesystem/bulk.c streamd/format/batch.c streamd/format/cutting.c
	PYTHON=$(PYTHON) VENV=$(VENV) sh scripts/setup.sh
	touch $@

fmt: setup                         ## format, and mend what can be mended safely
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format --quiet .

static: style types layers         ## style, types, layers

style: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .

types: setup
	$(BIN)/mypy

layers: setup
	$(BIN)/lint-imports

check: setup                       ## static checks and quick tests: under a minute, no network
	$(ABREAST) static quick

quick: setup
	$(BIN)/pytest -q $(BOTH) -m "$(QUICK)" tests/unit tests/property tests/contract tests/crash tests/tidy tests/golden

cover: setup                       ## every branch of the pure core is run by a quick test
	$(BIN)/coverage erase
	STREAMD_PROFILE=dev $(BIN)/coverage run --source=streamd.model,streamd.format,streamd.policy -m pytest -q $(BOTH) -m "$(QUICK)" tests/unit tests/property
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --include=$(CORE) --skip-covered --show-missing --fail-under=100

test: setup                        ## everything, with the services that it needs
	sh scripts/setup_tests.sh
	$(ABREAST) static cover
	STREAMD_COVERED=1 STREAMD_SIM_SEEDS=1000 $(BIN)/pytest $(BOTH) $(TIMELESS)
	$(BIN)/pytest $(WAITING) tests/integration tests/system $(ALONE:%=--ignore=%)
	$(BIN)/pytest $(ALONE)

run: setup                         ## a protected tree on the terminal; DIR=/some/tree for yours
	sh scripts/run_demo.sh $(DIR)

bench: setup                       ## how fast, beside other tools; ARGS=--quick for 3 minutes
	sh scripts/install_bench_peers.sh
	$(BIN)/python -m compileall -q streamd
	$(BIN)/python -m bench $(ARGS)

bench-regress: setup               ## fails when a ratio is more than 15 % worse than the baseline
	sh scripts/install_bench_peers.sh
	$(BIN)/python -m compileall -q streamd
	$(BIN)/python -m bench $(REGRESS) --against bench/baseline.json

bench-baseline: setup              ## takes what bench-regress compares with, on a quiet machine
	sh scripts/install_bench_peers.sh
	$(BIN)/python -m compileall -q streamd
	$(BIN)/python -m bench $(REGRESS) --json bench/baseline.json
	rm -f bench/baseline.svg

docs: setup                        ## regenerate the generated pages; CI fails if they differ
	$(BIN)/python scripts/generate_docs.py
	$(BIN)/python -m streamd.observe.metrics_page > docs/metrics.md
	$(BIN)/pytest -q tests/golden --update-golden

sim: setup                         ## simulated schedules under virtual time; SEEDS=1000 for more
	$(SEEDED) $(BIN)/pytest -q tests/sim

integration: setup                 ## against real services and file systems
	sh scripts/setup_tests.sh
	$(BIN)/pytest -q tests/integration tests/contract

system: setup                      ## against a real systemd, with kill -9
	sh scripts/setup_tests.sh
	$(BIN)/pytest -q tests/system

fuzz: setup                        ## every parser, coverage-guided; CASES=1000000 for the long run
	sh scripts/install_fuzzer.sh
	$(BIN)/python tests/fuzz/run_atheris.py .run/fuzz -runs=$(CASES)

sanitize: setup                    ## the compiled module, watched by the compiler's sanitizers
	VENV=$(VENV) sh scripts/sanitize.sh

soak: setup                        ## half an hour of trouble on the way to Azure; SOAK_SECONDS=n
	STREAMD_SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/pytest -q -s tests/system/test_soak.py

clean:                             ## remove what was made here
	rm -rf $(VENV) .run .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis
