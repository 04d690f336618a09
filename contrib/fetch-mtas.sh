#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Fetch Postfix and Sendmail for the tests, without installing them.
#
#   sh contrib/fetch-mtas.sh DIRECTORY
#
# Downloads Debian's packages and unpacks them below DIRECTORY: postfix/, sendmail/, and lib/ with the shared libraries
# that this machine lacks. No package is installed, no maintainer script runs, and no file outside DIRECTORY is written,
# so an installed mail server is not affected. Needs no root. A second run finds everything there.
set -eu
me=fetch-mtas
top=$(cd "$(dirname "$0")/.." && pwd)
. "$top/contrib/lib.sh"

[ $# -eq 1 ] || die "usage: sh contrib/fetch-mtas.sh DIRECTORY"
for tool in apt-get dpkg-deb ldd flock; do
    command -v "$tool" >/dev/null 2>&1 || die "$tool not found: the MTAs are fetched from Debian's packages only"
done
mkdir -p "$1"
directory=$(cd "$1" && pwd)

# With m4 and sendmail-cf a .mc file becomes a sendmail.cf; libsasl2-modules lets Sendmail do SMTP AUTH. m4 and the
# modules are not part of a mail server, so they are unpacked in lib/.
servers="postfix sendmail-bin sendmail-cf m4 libsasl2-modules"

# Name the libraries that the programs below $1 still lack; nothing when they are ready to run.
lacking() {
    for program in "$1"/postfix/usr/lib/postfix/sbin/smtpd "$1"/postfix/usr/lib/postfix/sbin/master \
        "$1"/postfix/usr/sbin/postconf "$1"/sendmail/usr/libexec/sendmail/sendmail "$1"/lib/usr/bin/m4 \
        "$(find "$1/lib" -name libplain.so 2>/dev/null | head -n 1)"; do
        if [ -f "$program" ]; then
            LD_LIBRARY_PATH=$(library_path "$1/lib")$1/postfix/usr/lib/postfix ldd "$program" | sed -n 's/ => not found//p'
        else
            echo "${program:-libplain.so}"
        fi
    done | sort -u
}

fetch() {
    unpacked=$directory/unpacking
    rm -rf "$unpacked"
    mkdir -p "$unpacked/debs" "$unpacked/postfix" "$unpacked/sendmail" "$unpacked/lib"
    cd "$unpacked/debs"
    # shellcheck disable=SC2086
    needed=$(lacking_libraries $servers) || return 1
    # shellcheck disable=SC2086
    say "downloading" $servers $needed
    # shellcheck disable=SC2086
    apt -qq download $servers $needed || return 1
    for package in *.deb; do
        case $package in
        postfix_*) dpkg-deb -x "$package" "$unpacked/postfix" ;;
        sendmail-*) dpkg-deb -x "$package" "$unpacked/sendmail" ;;
        *) dpkg-deb -x "$package" "$unpacked/lib" ;;
        esac
    done
    # The dynamic loader ignores LD_LIBRARY_PATH for set-group-id programs, and the tests do not need the group.
    find "$unpacked" -type f -perm /6000 -exec chmod ug-s {} +
}

exec 9>"$directory/.lock"
flock 9 # two test runs at once: the second waits, then finds everything there

if [ -z "$(lacking "$directory")" ]; then
    say "Postfix and Sendmail are already in $directory"
    exit 0
fi
say "fetching Postfix and Sendmail into $directory (they are unpacked there, not installed)"
fetch 2>/dev/null || { own_lists && fetch; } || die "could not download the packages"
still=$(lacking "$directory/unpacking")
[ -z "$still" ] || die "unpacked, but these are missing:" "$still"
for part in postfix sendmail lib; do
    rm -rf "${directory:?}/$part"
    mv "$directory/unpacking/$part" "$directory/$part"
done
# shellcheck disable=SC2035
(cd "$directory/unpacking/debs" && ls *.deb) >"$directory/packages"
rm -rf "$directory/unpacking" "$directory/apt"
say "ready: $(tr '\n' ' ' <"$directory/packages")"
