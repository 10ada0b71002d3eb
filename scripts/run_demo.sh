#!/bin/sh
# Protects a small real tree with a vault beside it: what `make run` starts.
#
#   scripts/run_demo.sh [DIR]      DIR: another tree to protect
#
# Everything lies in .run/ of the checkout, or in $STREAMD_DEMO; remove it to begin anew. $PYTHON is
# the interpreter that has streamd, by default the checkout's own environment.
set -eu
tree=

checkout=$(cd "$(dirname "$0")/.." && pwd)
demo=${STREAMD_DEMO:-$checkout/.run}
python=${PYTHON:-$checkout/.venv/bin/python}
[ -x "$python" ] || { echo "run_demo: no $python; run: make setup" >&2; exit 1; }

umask 077
if [ $# -gt 0 ] && [ -n "$1" ]; then
    [ -e "$1" ] || { echo "run_demo: $1 does not exist" >&2; exit 2; }
    tree=$(realpath -- "$1")
    # every tree has a vault of its own
    demo=$demo/$(printf %s "$tree" | cksum | cut -d" " -f1)
fi
mkdir -p "$demo"
demo=$(cd "$demo" && pwd)
config=$demo/streamd.toml
if [ -z "$tree" ]; then
    tree=$demo/tree
    if [ ! -d "$tree" ]; then
        mkdir -p "$tree"
        cp -a "$checkout/streamd" "$checkout/docs" "$tree/"
        find "$tree" -name __pycache__ -prune -exec rm -rf {} +
    fi
fi

# a socket's path may have 107 bytes only, wherever the checkout is
socket=$demo/control.sock
[ ${#socket} -lt 100 ] || socket=/tmp/streamd-demo-$(id -u)/control.sock
mkdir -p "$(dirname "$socket")"

# the usual port if nobody has it, else any free one
port=$("$python" - <<'PYTHON'
import socket
for port in (9464, 0):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        print(probe.getsockname()[1])
        break
PYTHON
)

STREAMD_DEMO_TREE=$tree STREAMD_DEMO_DIR=$demo STREAMD_DEMO_SOCKET=$socket \
    STREAMD_DEMO_PORT=$port "$python" - >"$config.new" <<'PYTHON'
import json
import os

tree, demo, socket, port = (
    os.environ[f"STREAMD_DEMO_{name}"] for name in ("TREE", "DIR", "SOCKET", "PORT")
)
from urllib.parse import quote

print(f"""\
# Written by scripts/run_demo.sh each time it runs.
[vault]
url = {json.dumps("file://" + quote(demo + "/vault"))}
key_file = {json.dumps(demo + "/vault.key")}

[sources.demo]
paths = [{json.dumps(tree)}]
policy = "demo"
rpo = "2s"

[policies.demo]
continuous = "48h"
hourly = 168
daily = 30
weekly = 12

[daemon]
state = {json.dumps(demo + "/state")}
socket = {json.dumps(socket)}

[metrics]
listen = "127.0.0.1:{port}"
""", end="")
PYTHON
mv "$config.new" "$config"

if [ ! -e "$demo/vault.key" ]; then
    "$python" -m streamd init -c "$config" --kit "$demo/recovery-kit.txt" </dev/null
fi
exec "$python" -m streamd run -c "$config"
