#!/bin/sh
# Fail when the staged change touches what users see and adds no file to changelog/unreleased.
# "NO_CHANGELOG=1 git commit" when there is nothing that an operator could notice.
set -eu
[ -z "${NO_CHANGELOG:-}" ] || exit 0
staged=$(git diff --cached --name-only)
echo "$staged" | grep -q '^streamd/\|^systemd/\|^grafana/' || exit 0
echo "$staged" | grep -q '^changelog/unreleased/\|^CHANGELOG.md' && exit 0
echo "no file in changelog/unreleased; see changelog/TEMPLATE" >&2
exit 1
