#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Fetch Knot DNS, an authoritative nameserver, for the tests, without installing it.
#
#   sh contrib/fetch-knot.sh DIRECTORY
#
# Downloads Debian's packages and unpacks them into DIRECTORY: knotd, and below usr/lib those of its libraries that this
# machine lacks. Nothing is installed or started, and no file outside DIRECTORY is written. Needs no root. A second run
# finds everything there.
set -eu
me=fetch-knot
top=$(cd "$(dirname "$0")/.." && pwd)
. "$top/contrib/lib.sh"

[ $# -eq 1 ] || die "usage: sh contrib/fetch-knot.sh DIRECTORY"
for tool in apt-get dpkg-deb ldd flock; do
    command -v "$tool" >/dev/null 2>&1 || die "$tool not found: Knot DNS is fetched from Debian's packages only"
done
mkdir -p "$1"
directory=$(cd "$1" && pwd)

# Name the libraries that knotd below $1 still lacks; nothing when it is ready to run.
lacking() {
    program=$1/usr/sbin/knotd
    [ -f "$program" ] || { echo "${program##*/}" && return; }
    libraries=$(find "$1/usr/lib" -name '*.so.*' -printf '%h\n' 2>/dev/null | sort -u | tr '\n' ':')
    LD_LIBRARY_PATH=$libraries ldd "$program" | sed -n 's/ => not found//p'
}

fetch() {
    rm -rf "$directory/unpacking"
    mkdir -p "$directory/unpacking/debs"
    cd "$directory/unpacking/debs"
    needed=$(lacking_libraries knot) || return 1
    # shellcheck disable=SC2086
    apt -qq download knot $needed || return 1
    for package in *.deb; do
        dpkg-deb -x "$package" "$directory/unpacking" || return 1
    done
}

exec 9>"$directory/.lock"
flock 9 # two test runs at once: the second waits, then finds everything there

if [ -z "$(lacking "$directory")" ]; then
    say "Knot DNS is already in $directory"
    exit 0
fi
say "fetching Knot DNS into $directory (it is unpacked there, not installed)"
fetch 2>/dev/null || { own_lists && fetch; } || die "could not download the packages"
still=$(lacking "$directory/unpacking")
[ -z "$still" ] || die "unpacked, but these are missing:" "$still"
rm -rf "${directory:?}/usr"
mv "$directory/unpacking/usr" "$directory/usr"
rm -rf "$directory/unpacking" "$directory/apt"
say "ready"
