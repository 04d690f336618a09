#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Fetch unbound for the tests of encrypted DNS, without installing it.
#
#   sh contrib/fetch-unbound.sh DIRECTORY
#
# Downloads Debian's package and the libraries that this machine lacks, and unpacks them into DIRECTORY. Nothing is
# installed or started, and no file outside DIRECTORY is written. Needs no root. A second run finds everything there.
set -eu
me=fetch-unbound
top=$(cd "$(dirname "$0")/.." && pwd)
. "$top/contrib/lib.sh"

[ $# -eq 1 ] || die "usage: sh contrib/fetch-unbound.sh DIRECTORY"
for tool in apt-get dpkg-deb ldd flock; do
    command -v "$tool" >/dev/null 2>&1 || die "$tool not found: unbound is fetched from Debian's package only"
done
mkdir -p "$1"
directory=$(cd "$1" && pwd)

# Name the libraries that unbound below $1 still lacks; nothing when it is ready to run.
lacking() {
    if [ -f "$1/usr/sbin/unbound" ]; then
        LD_LIBRARY_PATH=$(library_path "$1") ldd "$1/usr/sbin/unbound" | sed -n 's/ => not found//p'
    else
        echo unbound
    fi
}

fetch() {
    rm -rf "$directory/unpacking"
    mkdir -p "$directory/unpacking"
    cd "$directory/unpacking"
    needed=$(lacking_libraries unbound) || return 1
    # shellcheck disable=SC2086
    apt -qq download unbound $needed || return 1
    for package in *.deb; do
        dpkg-deb -x "$package" .
    done
}

exec 9>"$directory/.lock"
flock 9 # two test runs at once: the second waits, then finds everything there

if [ -z "$(lacking "$directory")" ]; then
    say "unbound is already in $directory"
    exit 0
fi
say "fetching unbound into $directory (it is unpacked there, not installed)"
fetch 2>/dev/null || { own_lists && fetch; } || die "could not download the packages"
still=$(lacking "$directory/unpacking")
[ -z "$still" ] || die "unpacked, but these are missing:" "$still"
rm -rf "$directory/usr" "$directory/lib"
for part in usr lib; do
    [ ! -e "$directory/unpacking/$part" ] || mv "$directory/unpacking/$part" "$directory/$part"
done
rm -rf "$directory/unpacking" "$directory/apt"
say "ready"
