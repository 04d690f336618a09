#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# See assay at work in a minute, without an MTA, without the network and without configuring anything.
#
#   sh contrib/try.sh
#
# Installs what is missing, starts the daemon in a temporary directory with its own zone file, and sends it four
# messages through the milter socket, as an MTA would: genuine, forwarded, changed and forged. Stops the daemon and
# says where to read on.
set -eu
me=try
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
. contrib/lib.sh

need_environment ""
assay=$top/.venv/bin/assay

folder=$(mktemp -d "${TMPDIR:-/tmp}/assay-try-XXXXXX")
daemon=
finish() {
    trap - EXIT INT TERM
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 1' INT TERM

.venv/bin/python contrib/try/sample.py "$folder"
say "starting the daemon: assay serve -c $folder/assay.toml"
"$assay" serve -c "$folder/assay.toml" 2>"$folder/log" &
daemon=$!
patience=100 # tenths of a second
until [ -S "$folder/assay.sock" ]; do
    kill -0 "$daemon" 2>/dev/null || die "the daemon exited: $(cat "$folder/log")"
    patience=$((patience - 1))
    [ "$patience" -gt 0 ] || die "the daemon did not create its socket: $(cat "$folder/log")"
    sleep 0.1
done

# $1: a description; $2: the message; $3: the client's address; $4: the exit code that the probe must have.
judge() {
    printf '\n=== %s\n    assay probe unix:.../assay.sock %s --ip %s --helo mail.example.com %s\n\n' "$1" "$2" "$3" \
        "--mail-from alice@example.com --rcpt bob@example.org"
    "$assay" probe "unix:$folder/assay.sock" "$folder/$2" --ip "$3" --helo mail.example.com \
        --mail-from alice@example.com --rcpt bob@example.org --mta-name mx.example.org && status=0 || status=$?
    [ "$status" -eq "$4" ] || die "expected exit code $4, not $status; the daemon's log: $(cat "$folder/log")"
}

judge "From Alice's own server, signed: everything passes" true.eml 192.0.2.25 0
judge "Forwarded with a forged result on top: SPF fails, DKIM passes, the forged result is removed" forwarded.eml 198.51.100.7 0
judge "Changed on the way, from another server: nothing passes, and example.com publishes p=reject" \
    changed.eml 198.51.100.7 1
judge "Forged: not signed, from an unknown server" forged.eml 198.51.100.7 1

printf '\n=== What the daemon logged, one line per message\n\n'
cat "$folder/log"
cat <<'END'

=== For real use

This was a demonstration: nothing outside .venv was configured. Without a configuration, assay listens on
unix:/run/assay/assay.sock, asks the system's resolvers, writes Authentication-Results, and refuses nothing until you
tell it to. docs/start.md has the steps for systemd, Postfix and Sendmail.

To see every key, with its default and the reason for it: .venv/bin/assay config sample
END
