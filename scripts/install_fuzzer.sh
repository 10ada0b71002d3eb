#!/bin/sh
# Install the coverage-guided fuzzer into $VENV. Not among the pinned dependencies of everybody,
# because its wheels are for few systems; without it `make fuzz` and one test of CI cannot run.
set -eu
cd "$(dirname "$0")/.."

VENV=${VENV:-.venv}
VERSION=3.0.0

"$VENV/bin/python" -c 'import atheris' 2>/dev/null ||
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "atheris==$VERSION"
