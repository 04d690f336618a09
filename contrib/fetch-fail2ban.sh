#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Fetch fail2ban for the tests, without installing it.
#
#   sh contrib/fetch-fail2ban.sh DIRECTORY
#
# Downloads Debian's package and unpacks it into DIRECTORY. Nothing is installed or started, and no file outside
# DIRECTORY is written. Needs no root. A second run finds everything there.
set -eu
me=fetch-fail2ban
top=$(cd "$(dirname "$0")/.." && pwd)
. "$top/contrib/lib.sh"

[ $# -eq 1 ] || die "usage: sh contrib/fetch-fail2ban.sh DIRECTORY"
for tool in apt-get dpkg-deb flock; do
    command -v "$tool" >/dev/null 2>&1 || die "$tool not found: fail2ban is fetched from Debian's package only"
done
mkdir -p "$1"
directory=$(cd "$1" && pwd)

fetch() {
    rm -rf "$directory/unpacking"
    mkdir -p "$directory/unpacking"
    cd "$directory/unpacking"
    apt -qq download fail2ban || return 1
    dpkg-deb -x fail2ban_*.deb "$directory/unpacking"
}

exec 9>"$directory/.lock"
flock 9 # two test runs at once: the second waits, then finds everything there

if [ -f "$directory/usr/bin/fail2ban-regex" ]; then
    say "fail2ban is already in $directory"
    exit 0
fi
say "fetching fail2ban into $directory (it is unpacked there, not installed)"
fetch 2>/dev/null || { own_lists && fetch; } || die "could not download the package"
for part in usr etc; do
    rm -rf "${directory:?}/$part"
    mv "$directory/unpacking/$part" "$directory/$part"
done
rm -rf "$directory/unpacking" "$directory/apt"
say "ready"
