#!/bin/sh
# Install what the whole test suite needs besides Python: the Azure storage emulator, Prometheus,
# file systems and their tools. Called by `make test`; may be run again at any time, and does
# nothing when everything is there. Without root it says what is missing and goes on: in CI the
# tests that need it then fail instead of being skipped.
set -eu
cd "$(dirname "$0")/.."

missing=""
need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || missing="$missing $2"
}

need node nodejs
need npm npm
need promtool prometheus
need mkfs.xfs xfsprogs
need mkfs.btrfs btrfs-progs
need setfattr attr
need setfacl acl
need strace strace
[ -d /usr/lib/postgresql ] || need pg_ctl postgresql

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing$missing"
        # a service that the package would start is of no use here
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        if [ -e /usr/sbin/policy-rc.d ]; then
            trap - EXIT
        else
            printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
            chmod +x /usr/sbin/policy-rc.d
        fi
        export DEBIAN_FRONTEND=noninteractive
        # shellcheck disable=SC2086 # a list of packages
        apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
            { apt-get update -qq &&
                apt-get install -y -qq --no-install-recommends $missing >/dev/null; }
    else
        echo "setup: for all tests, install as root:$missing" >&2
    fi
fi

sh scripts/install_fuzzer.sh

if command -v npm >/dev/null; then
    sh scripts/install_azurite.sh
fi
