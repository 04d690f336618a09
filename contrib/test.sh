#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Check everything, on a bare Debian 12 that has Python 3.11, git and a shell, or on any developer's machine.
#
#   sh contrib/test.sh [PYTEST ARGUMENT ...]
#
# Installs the Debian packages that are missing (as root or by sudo), makes or reuses .venv, fetches the mail
# servers, nameservers and other programs of contrib/fetch.sh into .cache (unpacked, not installed: existing installations
# are not changed), then runs every check and stops at the first that fails. May be run as often as you like. PYTHON names
# another interpreter for .venv.
set -eu
me="test"
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
. contrib/lib.sh

check() {
    say "$*"
    "$@" || die "FAILED: $*"
}

mkdir -p .cache
need_environment "[test]"
if command -v apt-get >/dev/null 2>&1; then
    sh contrib/fetch.sh mta deb fail2ban prometheus knot verifiers unbound rabbitmq chromium postgresql proxies podman
else
    say "apt-get not found: the tests with real mail servers, nameservers, verifiers, fail2ban, Prometheus, podman and a browser are skipped"
fi

PATH=$top/.venv/bin:$PATH
check ruff format --check
check ruff check
check mypy
check lint-imports
# The demonstration itself checks the result of each of its messages.
say "sh contrib/try.sh"
sh contrib/try.sh >.cache/try.log 2>&1 || {
    cat .cache/try.log
    die "FAILED: sh contrib/try.sh"
}
check pytest "$@"
say "all checks passed"
