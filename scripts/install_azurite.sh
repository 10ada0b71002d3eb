#!/bin/sh
# Install Azurite, the emulator of Azure Blob Storage, into .tools for the tests. Safe to repeat;
# does nothing when the right version is there. As root on Debian or Ubuntu it also installs Node.
set -eu

version=3.35.0
node_major_min=18
cd "$(dirname "$0")/.."
package=.tools/node_modules/azurite/package.json

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "install_azurite: Node.js $node_major_min or later with npm is needed" >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends nodejs npm
fi

major=$(node -p 'process.versions.node.split(".")[0]')
if [ "$major" -lt "$node_major_min" ]; then
    echo "install_azurite: Node.js $major is too old, $node_major_min or later is needed" >&2
    exit 1
fi

if [ -f "$package" ] && grep -q "\"version\": \"$version\"" "$package"; then
    echo "Azurite $version is installed"
    exit 0
fi
npm install --prefix .tools --no-audit --no-fund --no-save --loglevel=error "azurite@$version"
