#!/bin/sh
# Make the virtual environment in $VENV and install streamd with its pinned dependencies into it.
# Called by `make setup`; may be run again at any time.
set -eu

PYTHON=${PYTHON:-python3.11}
VENV=${VENV:-.venv}

if ! command -v "$PYTHON" >/dev/null; then
    echo "setup: $PYTHON is missing; on Debian 12: apt-get install python3" >&2
    exit 1
fi

if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing python3-venv"
        apt-get install -y -qq python3-venv >/dev/null ||
            { apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null; }
    else
        echo "setup: the module venv is missing; as root: apt-get install python3-venv" >&2
        exit 1
    fi
fi

# A part of streamd is compiled where that is possible; without it, it does the same more slowly.
if ! command -v gcc >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get install -y -qq --no-install-recommends gcc libc6-dev python3-dev >/dev/null ||
        echo "setup: no compiler; the Python code does what bulk.c would do faster" >&2
fi

[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements.lock
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -e .
# an environment that forbids writing bytecode would have every command compile streamd anew
"$VENV/bin/python" -m compileall -q streamd
"$VENV/bin/streamd" --version
