#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Check everything, on a bare Debian 12 that has Python 3.11, git and a shell, or on any machine of a developer.
#
#   sh contrib/test.sh [PYTEST ARGUMENT ...]
#
# Installs the Debian packages that are missing (as root or by sudo), makes or reuses .venv, fetches Postfix and
# Sendmail into .cache/mta (unpacked, not installed: a mail server that is here is not touched), then runs every check
# and stops at the first that fails. May be run as often as you like.
set -eu
me="test"
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
. contrib/lib.sh

check() {
    say "$*"
    "$@" || die "FAILED: $*"
}

need_environment "[test]"
if command -v apt-get >/dev/null 2>&1; then
    sh contrib/fetch-mtas.sh .cache/mta
else
    say "no apt-get here: the tests with a real Postfix and Sendmail are skipped"
fi

PATH=$top/.venv/bin:$PATH
check ruff format --check
check ruff check
check mypy
check lint-imports
check pytest "$@"
say "all checks passed"
