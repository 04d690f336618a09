#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Fetch OpenDKIM and Mail::DKIM for the tests of our signatures, without installing them.
#
#   sh contrib/fetch-verifiers.sh DIRECTORY
#
# Downloads Debian's packages, with the libraries that this machine lacks, and unpacks them into DIRECTORY. Nothing is
# installed or started, and no file outside DIRECTORY is written. Needs no root. A second run finds everything there.
set -eu
me=fetch-verifiers
top=$(cd "$(dirname "$0")/.." && pwd)
. "$top/contrib/lib.sh"

[ $# -eq 1 ] || die "usage: sh contrib/fetch-verifiers.sh DIRECTORY"
for tool in apt-get dpkg-deb flock; do
    command -v "$tool" >/dev/null 2>&1 || die "$tool not found: the verifiers are fetched from Debian's packages only"
done
mkdir -p "$1"
directory=$(cd "$1" && pwd)
# libcryptx-perl: Mail::DKIM needs it for Ed25519.
programs="opendkim libmail-dkim-perl libcryptx-perl"

fetch() {
    rm -rf "$directory/unpacking"
    mkdir -p "$directory/unpacking/debs"
    cd "$directory/unpacking/debs"
    # shellcheck disable=SC2086
    missing=$(apt-get ${apt_options-} install --simulate --no-install-recommends $programs | sed -n 's/^Inst \([^ ]*\).*/\1/p')
    # shellcheck disable=SC2086
    apt-get ${apt_options-} -qq download $programs $missing || return 1
    for package in *.deb; do
        dpkg-deb -x "$package" "$directory/unpacking"
    done
}

# Private package lists, for when the machine's lists lack the packages.
own_lists() {
    say "reading Debian's package lists into $directory/apt"
    mkdir -p "$directory/apt/lists/partial" "$directory/apt/cache/archives/partial"
    apt_options="-o Dir::State::Lists=$directory/apt/lists -o Dir::Cache=$directory/apt/cache"
    apt_options="$apt_options -o APT::Sandbox::User=$(id -un)"
    # shellcheck disable=SC2086
    apt-get $apt_options -qq update || say "apt-get update reported errors; continuing"
}

exec 9>"$directory/.lock"
flock 9 # two test runs at once: the second waits, then finds everything there

if [ -f "$directory/usr/sbin/opendkim" ] && [ -f "$directory/usr/share/perl5/Mail/DKIM/Verifier.pm" ]; then
    say "OpenDKIM and Mail::DKIM are already in $directory"
    exit 0
fi
say "fetching OpenDKIM and Mail::DKIM into $directory (they are unpacked there, not installed)"
fetch 2>/dev/null || { own_lists && fetch; } || die "could not download the packages"
for part in usr etc lib; do
    [ -d "$directory/unpacking/$part" ] || continue
    rm -rf "${directory:?}/$part"
    mv "$directory/unpacking/$part" "$directory/$part"
done
rm -rf "$directory/unpacking" "$directory/apt"
say "ready"
