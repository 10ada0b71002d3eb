#!/bin/sh
# The pure core (model, format, policy) is covered completely, branches included, by its own tests.
# Usage: scripts/check_core_coverage.sh [pytest arguments]
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-.venv/bin/python}
data=$(mktemp)
trap 'rm -f "$data"' EXIT

"$python" -m coverage run --data-file="$data" --branch \
    --source=streamd/model,streamd/format,streamd/policy \
    -m pytest -q \
    tests/unit/model tests/unit/format tests/unit/policy \
    tests/property/test_format_*.py tests/property/test_cadence_*.py \
    tests/property/test_retention_*.py tests/golden/test_vectors.py \
    "$@"
"$python" -m coverage report --data-file="$data" --show-missing --skip-covered --fail-under=100
