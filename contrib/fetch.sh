#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Fetch other people's programs for the tests, without installing them.
#
#   sh contrib/fetch.sh NAME ...
#
# Downloads Debian's packages, with the libraries that this machine lacks, and unpacks them below .cache/NAME. No package
# is installed, no maintainer script runs, and no file outside .cache is written, so an installed server is not affected.
# Needs no root. What is complete already is not fetched again. The names are those in `describe`.
set -eu
me=fetch
top=$(cd "$(dirname "$0")/.." && pwd)
. "$top/contrib/lib.sh"

# What there is: a title for messages, Debian's packages, and the files (patterns) that show that it is complete.
describe() {
    case $1 in
    mta)
        title="Postfix and Sendmail"
        # With m4 and sendmail-cf a .mc file becomes a sendmail.cf; libsasl2-modules lets Sendmail do SMTP AUTH.
        packages="postfix sendmail-bin sendmail-cf m4 libsasl2-modules"
        files="postfix/usr/lib/postfix/sbin/smtpd postfix/usr/lib/postfix/sbin/master postfix/usr/sbin/postconf
            sendmail/usr/libexec/sendmail/sendmail sendmail/usr/share/sendmail/cf/m4/cf.m4
            lib/usr/bin/m4 lib/usr/lib/*/sasl2/libplain.so"
        ;;
    chromium)
        title="Chromium"
        # Without a font and its configuration it draws no text.
        packages="chromium chromium-common chromium-driver fontconfig-config fonts-dejavu-core"
        files="usr/lib/chromium/chromium usr/bin/chromedriver usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"
        ;;
    deb)
        # Packed, with all that they need: tests install them in a private machine (tests/mta/machine.py).
        title="the packages of Postfix and Sendmail"
        packages="postfix sendmail"
        files="postfix/postfix_*.deb sendmail/sendmail_*.deb"
        ;;
    fail2ban)
        title="fail2ban"
        packages="fail2ban"
        files="usr/bin/fail2ban-regex etc/fail2ban/fail2ban.conf"
        ;;
    knot)
        title="Knot DNS"
        packages="knot"
        files="usr/sbin/knotd"
        ;;
    podman)
        title="podman"
        packages="podman crun conmon uidmap golang-github-containers-common"
        files="usr/bin/podman usr/bin/crun usr/bin/conmon usr/bin/newuidmap usr/bin/newgidmap
            usr/share/containers/seccomp.json"
        ;;
    postgresql)
        title="PostgreSQL"
        version=$(postgresql_version)
        packages="postgresql-$version postgresql-client-$version"
        files="usr/lib/postgresql/*/bin/postgres usr/lib/postgresql/*/bin/initdb usr/lib/postgresql/*/bin/psql
            usr/lib/postgresql/*/bin/pg_dump usr/share/postgresql/*/postgres.bki"
        ;;
    prometheus)
        title="Prometheus and logrotate"
        packages="prometheus logrotate libpopt0"
        files="usr/bin/prometheus usr/bin/promtool usr/sbin/logrotate"
        ;;
    proxies)
        title="nginx and Apache"
        packages="nginx apache2-bin"
        files="usr/sbin/nginx usr/sbin/apache2 usr/lib/apache2/modules/mod_proxy_http.so"
        ;;
    rabbitmq)
        title="RabbitMQ"
        packages="rabbitmq-server erlang-base erlang-asn1 erlang-crypto erlang-eldap erlang-inets erlang-mnesia
            erlang-os-mon erlang-parsetools erlang-public-key erlang-runtime-tools erlang-ssl erlang-syntax-tools
            erlang-tools erlang-xmerl"
        files="usr/lib/erlang/erts-*/bin/beam.smp usr/lib/rabbitmq/lib/*/sbin/rabbitmq-server"
        ;;
    unbound)
        title="unbound"
        packages="unbound"
        files="usr/sbin/unbound"
        ;;
    verifiers)
        title="OpenDKIM and Mail::DKIM"
        # Mail::DKIM needs libcryptx-perl for Ed25519.
        packages="opendkim libmail-dkim-perl libcryptx-perl"
        files="usr/sbin/opendkim usr/share/perl5/Mail/DKIM/Verifier.pm usr/lib/*/perl5/*/CryptX.pm"
        ;;
    *)
        die "unknown name: $1. Known are chromium, deb, mta, fail2ban, knot, podman, postgresql, prometheus, proxies," \
            "rabbitmq, unbound and verifiers"
        ;;
    esac
}

# The version of PostgreSQL that this release of Debian has.
postgresql_version() {
    apt depends postgresql 2>/dev/null | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1
}

# Where the package file $2 of $1 is unpacked, below its directory. A mail server has its own: Sendmail's files and
# Postfix's have the same names.
place() {
    case $1/$2 in
    mta/postfix_*) echo postfix ;;
    mta/sendmail-*) echo sendmail ;;
    mta/*) echo lib ;;
    *) echo . ;;
    esac
}

# Name the files that are not below $1, and the libraries that those there lack; nothing when all is ready to run.
lacking() (
    cd "$1" 2>/dev/null || { echo "$1" && return; }
    # shellcheck disable=SC2086  # patterns, expanded on purpose
    for file in $files; do
        if [ -f "$file" ]; then
            # ldd complains about a script, which needs no library.
            LD_LIBRARY_PATH=$(library_path "$1")$(library_path "$1/lib")$1/postfix/usr/lib/postfix \
                ldd "./$file" 2>/dev/null | sed -n 's/ => not found//p'
        else
            echo "$file"
        fi
    done | sort -u
)

# Download $packages and what this machine lacks for them, each into a directory of its own.
download() {
    for package in $packages; do
        archives=$unpacking/all/$package
        mkdir -p "$archives/partial"
        apt -qq install --yes --reinstall --download-only --no-install-recommends \
            -o Dir::Cache::archives="$archives" -o Debug::NoLocking=true "$package" || return 1
        rm -rf "$archives/partial" "$archives/lock"
    done
}

# Download and unpack $1. In a subshell, for it changes the directory. `set -e` has no effect in a condition.
unpack() (
    describe "$1" # again: names may depend on the package lists
    rm -rf "$unpacking"
    mkdir -p "$unpacking/debs" "$unpacking/all"
    cd "$unpacking/debs" || return 1
    if [ "$1" = deb ]; then
        download
        return
    fi
    # shellcheck disable=SC2086  # lists of names, split on purpose
    needed=$(lacking_libraries $packages) && apt -qq download $packages $needed || return 1
    for package in *.deb; do
        root=$unpacking/all/$(place "$1" "$package")
        mkdir -p "$root" && dpkg-deb -x "$package" "$root" || return 1
    done
    # The dynamic loader ignores LD_LIBRARY_PATH for set-group-id programs, and the tests do not need the group.
    find "$unpacking/all" -type f -perm /6000 -exec chmod ug-s {} +
)

[ $# -gt 0 ] || die "usage: sh contrib/fetch.sh NAME ..."
for tool in apt-get dpkg-deb ldd flock; do
    command -v "$tool" >/dev/null 2>&1 || die "$tool not found: the programs are fetched from Debian's packages only"
done
for name in "$@"; do
    describe "$name"
done

directory=$top/.cache
unpacking=$directory/unpacking
mkdir -p "$directory"
exec 9>"$directory/.lock"
flock 9 # two test runs at once: the second waits, then finds everything there

for name in "$@"; do
    describe "$name"
    target=$directory/$name
    if [ -z "$(lacking "$target")" ]; then
        say "$title: already in .cache/$name"
        continue
    fi
    say "fetching $title into .cache/$name (unpacked there, not installed)"
    unpack "$name" 2>/dev/null || { own_lists && unpack "$name"; } || die "could not download the packages of $title"
    still=$(lacking "$unpacking/all")
    [ -z "$still" ] || die "unpacked, but these are missing:" "$still"
    mkdir -p "$target"
    for part in "$unpacking"/all/*; do
        rm -rf "${target:?}/${part##*/}"
        mv "$part" "$target/"
    done
done
rm -rf "$unpacking" "$directory/apt"
say "ready"
