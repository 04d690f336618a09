#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Fetch Prometheus and logrotate for the tests, without installing them.
#
#   sh contrib/fetch-prometheus.sh DIRECTORY
#
# Downloads Debian's packages and unpacks their programs into DIRECTORY. Nothing is installed or started, and no file
# outside DIRECTORY is written. Needs no root. A second run finds everything there.
set -eu
me=fetch-prometheus
top=$(cd "$(dirname "$0")/.." && pwd)
. "$top/contrib/lib.sh"

[ $# -eq 1 ] || die "usage: sh contrib/fetch-prometheus.sh DIRECTORY"
for tool in apt-get dpkg-deb flock; do
    command -v "$tool" >/dev/null 2>&1 || die "$tool not found: Prometheus is fetched from Debian's packages only"
done
mkdir -p "$1"
directory=$(cd "$1" && pwd)

fetch() {
    rm -rf "$directory/unpacking"
    mkdir -p "$directory/unpacking"
    cd "$directory/unpacking"
    # shellcheck disable=SC2086
    apt-get ${apt_options-} -qq download prometheus logrotate libpopt0 || return 1
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

if [ -f "$directory/promtool" ] && [ -f "$directory/logrotate" ]; then
    say "Prometheus is already in $directory"
    exit 0
fi
say "fetching Prometheus into $directory (it is unpacked there, not installed)"
fetch 2>/dev/null || { own_lists && fetch; } || die "could not download the packages"
for program in bin/prometheus bin/promtool sbin/logrotate; do
    mv "$directory/unpacking/usr/$program" "$directory/${program#*/}"
done
mv "$directory"/unpacking/*/*/libpopt.so.0* "$directory/" 2>/dev/null ||
    mv "$directory"/unpacking/usr/*/*/libpopt.so.0* "$directory/"
rm -rf "$directory/unpacking" "$directory/apt"
say "ready"
