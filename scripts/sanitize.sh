#!/bin/sh
# Run the tests of the compiled module under the address and undefined-behaviour sanitizers: what is
# read or written out of bounds, or after it was given back, ends the run with the place where.
# Leaks are not looked for, since the interpreter itself leaves thousands of things to the kernel.
set -eu
cd "$(dirname "$0")/.."

VENV=$PWD/${VENV:-.venv}
TREE=$PWD/.run/sanitized
TESTS=${*:-tests/unit/format/test_batch.py tests/unit/format/test_cut_and_named.py tests/unit/format/test_level_one.py
    tests/unit/sources/test_bulk.py tests/unit/sources/test_look.py tests/unit/sources/test_many_directories.py
    tests/unit/sources/test_read_files.py tests/unit/sources/test_read_large.py}

rm -rf "$TREE"
mkdir -p "$TREE"
cp -r streamd setup.py pyproject.toml README.md LICENSE "$TREE"
find "$TREE" -name '*.so' -delete
cd "$TREE"
FLAGS='-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -O1 -g'
CFLAGS=$FLAGS LDFLAGS=$FLAGS "$VENV/bin/python" setup.py --quiet build_ext --inplace
cd ../..

export LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
# into a file, for pytest keeps what is written to its standard error until a test ends
export UBSAN_OPTIONS=print_stacktrace=1:log_path="$TREE/report"
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:log_path="$TREE/report"
export PYTHONMALLOC=malloc PYTHONPATH="$TREE"
"$VENV/bin/python" -P -c "
import streamd.format._batch as batch, streamd.sources.filesystem._bulk as bulk
assert all(module.__file__.startswith('$TREE') for module in (batch, bulk))"
# shellcheck disable=SC2086
"$VENV/bin/python" -P -m pytest -q -p no:cacheprovider -o "pythonpath=$TREE tests" $TESTS && exit
status=$?
cat "$TREE"/report.* >&2 || true
exit "$status"
