# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh disable=SC2154
# Functions shared by the scripts in this directory: print messages, become root, find or create a Python environment.
# Read with ".", not run. POSIX sh. The reader sets `me` (its own name, for messages) and `top` (the project's root).
#
# Nothing here installs, replaces, restarts or changes a mail server.

say() { printf '%s: %s\n' "$me" "$*"; }

die() {
    printf '%s: %s\n' "$me" "$*" >&2
    exit 1
}

# Run a command as root: directly, or through sudo. If neither is possible, say what to do and exit.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        die "this needs root, and sudo is not installed. As root, run: $*"
    fi
}

# Install those of the named Debian packages that are missing, without recommended packages.
need_packages() {
    missing=
    for package in "$@"; do
        state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=absent
        [ "$state" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null 2>&1 ||
        die "apt-get not found. Install the equivalents of Debian's$missing, then run this again"
    [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null 2>&1 ||
        die "you are not root, and sudo is not installed. As root, run: apt-get update && apt-get install$missing"
    say "installing$missing"
    # The lists are refreshed once, and only when something has to be fetched. A third party's broken source must
    # not stop us: the next command shows whether the packages are available.
    [ -n "${lists_fresh-}" ] || as_root apt-get -qq update || say "apt-get update reported errors; continuing"
    lists_fresh=yes
    # shellcheck disable=SC2086  # a list of names, split on purpose
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends $missing >/dev/null ||
        die "apt-get could not install$missing"
}

# The first Python of at least 3.11, in $python. PYTHON in the environment goes first.
find_python() {
    for python in ${PYTHON-} python3 python3.13 python3.12 python3.11; do
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return 0
    done
    return 1
}

# Make or reuse the environment $top/.venv with assay in it, editable. The argument names the extras: "" or "[test]".
need_environment() {
    venv=$top/.venv
    made=yes
    python=$venv/bin/python
    if ! "$python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        made=
        find_python || { need_packages python3 && find_python; } || die "assay needs Python 3.11 or later"
    fi
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    # All missing packages are requested at once: a user without root may have to ask an administrator.
    packages=
    # pymilter has no wheels: it is C, built here against libmilter.
    [ -e /usr/include/libmilter/mfapi.h ] || packages="libmilter-dev"
    command -v gcc >/dev/null 2>&1 || packages="$packages gcc libc6-dev"
    # Debian packages ensurepip, which venv needs, separately, under a name derived from the interpreter's.
    [ -n "$made" ] || "$python" -c 'import ensurepip, venv' 2>/dev/null || packages="$packages python$version-venv"
    "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
        packages="$packages python$version-dev"
    # shellcheck disable=SC2086  # a list of names, split on purpose
    need_packages $packages
    if [ -z "$made" ]; then
        say "creating $venv with $("$python" -V)"
        "$python" -m venv --clear "$venv" || die "could not create $venv"
    fi
    # pip takes seconds even when there is nothing to do: skip it while the files that say what is needed are the same.
    wanted=$(cat "$top/setup.cfg" "$top/pyproject.toml" | cksum)
    for extras in "$1" "[test]"; do
        [ "$(cat "$venv/installed$extras" 2>/dev/null)" = "$wanted" ] && return 0
    done
    say "installing assay$1 and its requirements into $venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --use-pep517 --editable "$top$1" ||
        die "pip could not install assay$1"
    printf '%s\n' "$wanted" >"$venv/installed$1"
}

# For contrib/fetch.sh, which unpacks Debian packages without installing them and sets $directory, where it works.

# apt-get and apt-cache, with private lists after `own_lists`.
apt() {
    command=$1
    shift
    case $command in depends) tool=apt-cache ;; *) tool=apt-get ;; esac
    # shellcheck disable=SC2086
    "$tool" ${apt_options-} "$command" "$@"
}

# Private package lists, for when the machine's lists lack the packages.
own_lists() {
    say "reading Debian's package lists into $directory/apt"
    mkdir -p "$directory/apt/lists/partial" "$directory/apt/cache/archives/partial"
    apt_options="-o Dir::State::Lists=$directory/apt/lists -o Dir::Cache=$directory/apt/cache"
    apt_options="$apt_options -o APT::Sandbox::User=$(id -un)"
    apt -qq update || say "apt-get update reported errors; continuing"
}

# A candidate's dependencies that are libraries: of the packages named, or (with --recurse) of theirs too. Not virtual
# ones (<NAME>), nor those of JavaScript, which only web pages need. Fails if apt does not know the packages.
libraries_of() {
    found=$(apt depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$@") ||
        return 1
    printf '%s\n' "$found" | sed -nE '/</d; s/^(.* )?(lib[a-z0-9.+-]+).*/\2/p' | sed '/^libjs-/d' | sort -u
}

# The libraries that the named packages need and this machine lacks, on one line.
lacking_libraries() {
    direct=$(libraries_of "$@") || return 1
    [ -n "$direct" ] || return 0
    # shellcheck disable=SC2086
    for library in $(libraries_of --recurse $direct); do
        state=$(dpkg-query -W -f '${db:Status-Status} ' "$library" 2>/dev/null) || state=
        case " $state $* " in
        *" installed "* | *" $library "*) ;;
        *) printf '%s ' "$library" ;;
        esac
    done
}

# The directories of the libraries that are unpacked below $1. Debian's libpulse keeps one of its own apart.
library_path() {
    multiarch=$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || gcc -print-multiarch 2>/dev/null || uname -m)
    for below in "$1" "$1/usr"; do
        for libraries in "$below/lib/$multiarch" "$below/lib/$multiarch-linux-gnu"; do
            printf '%s:' "$libraries" "$libraries/pulseaudio"
        done
        printf '%s:' "$below/lib"
    done
}
