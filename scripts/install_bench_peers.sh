#!/bin/sh
# Install the tools that `make bench` compares with into .tools/peers: restic, borg and rclone, each in the
# newest version that Debian's archive or PyPI offers to this machine. Safe to repeat, and it never
# touches the system's own packages, except that as root it installs the headers borg is built with.
# What cannot be had is left out: the benchmark runs against whatever is there.
set -eu
cd "$(dirname "$0")/.."

peers=$PWD/.tools/peers
borg_version=1.4.5
restic_suites="trixie sid"
mkdir -p "$peers/bin"

archive() { # the address this machine takes Debian from
    {
        sed -n 's/^URIs:[[:space:]]*//p' /etc/apt/sources.list.d/*.sources
        sed -n 's/^deb[[:space:]]\(\[[^]]*\][[:space:]]*\)\{0,1\}\([^[:space:]]*\).*/\2/p' \
            /etc/apt/sources.list /etc/apt/sources.list.d/*.list
    } 2>/dev/null | tr ' ' '\n' | grep -E '/debian/?$' | head -n 1
}

restic_of() ( # restic_of SUITE: unpack that suite's restic, by an apt that knows nothing else
    uri=$(archive)
    [ -n "$uri" ] && command -v apt-get >/dev/null || exit 1
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    mkdir -p "$root/state/lists/partial" "$root/cache/archives/partial" "$root/parts"
    : >"$root/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $1 main" \
        >"$root/sources.list"
    cat >"$root/apt.conf" <<CONF
Dir::State "$root/state";
Dir::State::status "$root/status";
Dir::Cache "$root/cache";
Dir::Etc::sourcelist "$root/sources.list";
Dir::Etc::sourceparts "$root/parts";
Dir::Etc::preferencesparts "$root/parts";
Acquire::Languages "none";
APT::Sandbox::User "root";
CONF
    cd "$root"
    APT_CONFIG="$root/apt.conf" apt-get update -qq >/dev/null 2>&1
    APT_CONFIG="$root/apt.conf" apt-get download -qq restic >/dev/null 2>&1
    dpkg-deb -x restic_*.deb unpacked
    ./unpacked/usr/bin/restic version >/dev/null
    cp unpacked/usr/bin/restic "$peers/bin/restic"
)

if [ ! -x "$peers/bin/restic" ]; then
    for suite in $restic_suites; do
        if restic_of "$suite"; then break; fi
    done
    if [ ! -x "$peers/bin/restic" ]; then
        echo "bench: no newer restic to be had; using the system's, if there is one" >&2
        if ! command -v restic >/dev/null && [ "$(id -u)" = 0 ]; then
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq restic >/dev/null || true
        fi
    fi
fi

if [ ! -x "$peers/borg/bin/borg" ]; then
    headers="libacl1-dev libssl-dev liblz4-dev libzstd-dev libxxhash-dev pkg-config gcc"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        # shellcheck disable=SC2086 # a list of packages
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $headers >/dev/null ||
            { apt-get update -qq &&
                DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $headers >/dev/null; } ||
            true
    fi
    "${PYTHON:-python3.11}" -m venv "$peers/borg"
    if "$peers/borg/bin/python" -m pip install --quiet --disable-pip-version-check \
        "borgbackup==$borg_version"; then
        ln -sf ../borg/bin/borg "$peers/bin/borg"
    else
        rm -rf "$peers/borg"
        echo "bench: borg $borg_version could not be built; using the system's, if there is one" >&2
        if ! command -v borg >/dev/null && [ "$(id -u)" = 0 ]; then
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq borgbackup >/dev/null || true
        fi
    fi
fi

if ! PATH="$peers/bin:$PATH" command -v rclone >/dev/null && command -v apt-get >/dev/null; then
    root=$(mktemp -d) # how restic reaches a container: Debian builds it without that
    (
        cd "$root"
        apt-get download -qq rclone >/dev/null 2>&1 ||
            { apt-get update -qq >/dev/null && apt-get download -qq rclone >/dev/null 2>&1; }
        dpkg-deb -x rclone_*.deb unpacked
        cp unpacked/usr/bin/rclone "$peers/bin/rclone"
    ) || echo "bench: no rclone to be had; restic is not measured against a container" >&2
    rm -rf "$root"
fi

if command -v npm >/dev/null; then
    sh scripts/install_azurite.sh || echo "bench: no Azurite; its row is left out" >&2
fi

for tool in restic borg rclone; do
    found=$(PATH="$peers/bin:$PATH" command -v "$tool" || true)
    [ -n "$found" ] && { "$found" version 2>/dev/null || "$found" --version; } | head -n 1
done
