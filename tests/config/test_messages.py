# SPDX-License-Identifier: GPL-3.0-or-later
"""Each configuration error is one sentence that names file, key and value, and each message has a row here."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest

import assay
from assay import packages
from assay.cli.serve import read_for_serving
from assay.config import ConfigError
from signing import pem, rsa_key

PACKAGE = Path(assay.__file__).parent
#: The modules that read an operator's input. Each ``raise`` in them is reached by a row, except `NOT_FROM_A_FILE`.
READERS = (
    *("config/build.py", "config/endpoint.py", "config/load.py", "config/methods.py", "config/responses.py"),
    *(
        "config/section.py",
        "config/site.py",
        "config/sockets.py",
        "config/store.py",
        "config/watching.py",
        "config/web.py",
        "log/__init__.py",
        "model/network.py",
        "policy/addresses.py",
        "policy/replies.py",
    ),
    *("policy/rule_names.py", "policy/rules.py", "resolver/nameservers.py", "resolver/zone.py"),
)
#: Functions whose errors cannot be caused by a configuration, with the reason.
NOT_FROM_A_FILE = {
    "matches": "a rule fails on a message; see test_rules.py",
    "_cel": "the library is not installed",
    "public_suffix": "the library is not installed; see test_a_missing_package",
    "require": "likewise",
}

SOCKET = "is not a socket address; write inet:PORT@HOST, inet6:PORT@HOST or unix:PATH"
NAMESERVER = "is not a nameserver address; write an IP address such as 192.0.2.53 or [2001:db8::53]:5353"
SIGNING = "[[sign.domain]]\ndomain = 'example.org'\nselectors = ['s']\nkey_files = ['DIR/key']\n"
SEALING = "[[arc.seal]]\ndomain = 'example.org'\nselector = 's'\nkey_file = '/nowhere'\n"
WORDS = "accept, tag, quarantine, tempfail, discard, reject"

#: The error, the file, and the message after the file's name. DIR is the directory of the file.
ROWS = {
    # TOML
    "TOML syntax": ("\n\n[milter\n", "not valid TOML: Expected ']' at the end of a table declaration (at line 3,"),
    "a key twice": (
        "[milter]\nworkers = 1\nworkers = 2\n",
        "(at line 3, column 12); write each section and each key once",
    ),
    "a section twice": (
        "[milter]\nworkers = 1\n[milter]\ndry_run = true\n",
        "(at line 3, column 8); write each section and each key once",
    ),
    "a bare word": ("[milter]\ndry_run = yes\n", 'write text in "quotes", a switch as true or false'),
    "YAML": ("milter: 1\n", 'write key = "value"'),
    "too many digits": ("[milter]\nworkers = " + "9" * 5000, "not valid TOML: an integer with too many digits"),
    "a NUL in a string": (
        '[milter]\nuser = "a\\u0000b"\n',
        r"milter.user: 'a\x00b' has a NUL; leave it out",
    ),
    "a NUL in a table of an array": (
        '[[sign.domain]]\ndomain = "example.com"\nkey_files = ["/a", "/b\\u0000"]\n',
        r"sign.domain 1.key_files 2: '/b\x00' has a NUL; leave it out",
    ),
    "brackets nested too deeply": ("a = " + "[" * 5000, "not valid TOML: nested too deeply"),
    # sections and keys
    "unknown section": ("[mitler]\n", "unknown section [mitler]; did you mean milter?"),
    "a key above the first section": (
        "dry_run = true\n",
        "dry_run is outside any section; write it below [milter], [iprev], [dkim], [arc], [senderid], [dmarc] or "
        "[reports]",
    ),
    "a key of one section above the first": (
        "authserv_id = 'a.example'\n",
        "authserv_id is outside any section; write it below [identity]",
    ),
    "an unknown key above the first section": ("qqqq = 1\n", "unknown section [qqqq]; known are addresses, arc, "),
    "unknown section unlike any other": ("[qqqq]\n", "unknown section [qqqq]; known are addresses, arc, "),
    "unknown key": ("[milter]\nsokcet = 'x'\n", "unknown key milter.sokcet; did you mean socket?"),
    "unknown key unlike any other": ("[iprev]\nqqqq = 1\n", "unknown key iprev.qqqq; known are dry_run, enabled, fail"),
    "section as a key": (
        "milter = 1\n",
        "milter is a section; write [milter] on a line of its own, not milter = 1",
    ),
    "section as an array": ("[[milter]]\n", "milter is a section; write [milter] on a line of its own"),
    "inner section as a key": (
        "[spf]\nhelo = 'reject'\n",
        "spf.helo is a section; write [spf.helo] on a line of its own, not spf.helo = 'reject'",
    ),
    "rule as a section": ("[rule]\nname = 'a'\n", "rule is an array of tables; write [[rule]] on a line of its own"),
    "rules as numbers": ("rule = [1]\n", "rule is an array of tables; write [[rule]]"),
    # types and bounds
    "key as a section": ("[milter.socket]\nx = 1\n", "milter.socket: expected a string, not {x = 1}"),
    "number for a string": ("[milter]\nsocket = 1\n", "milter.socket: expected a string, not 1"),
    "string for a number": ("[milter]\nworkers = '2'\n", "milter.workers: expected an integer, not '2'"),
    "fraction for an integer": ("[milter]\nworkers = 2.5\n", "milter.workers: expected an integer, not 2.5"),
    "number for a switch": ("[milter]\ndry_run = 1\n", "milter.dry_run: expected true or false, not 1"),
    "switch for a number": ("[milter]\nworkers = true\n", "milter.workers: expected an integer, not true"),
    "string for an array": (
        "[clients]\ninternal = '::1'\n",
        "clients.internal: expected an array, not '::1'; write [ and ] around it",
    ),
    "wrong item in an array": ("[clients]\ninternal = [1]\n", "clients.internal: expected a string, not 1"),
    "string or array": ("[dns]\nnameservers = 1\n", "dns.nameservers: expected a string or an array, not 1"),
    "wrong value in a table": ("[lists]\nb = 'x'\na = 1\n", "lists.a: expected a string, not 1"),
    "table in a table": ("[lists]\n'a b' = { c = true }\n", 'lists."a b": expected a string, not {c = true}'),
    "date": ("[milter]\nsocket = 2026-01-31\n", "milter.socket: expected a string, not 2026-01-31"),
    "time": ("[milter]\nsocket = 07:32:00\n", "milter.socket: expected a string, not 07:32:00"),
    "date and time": ("milter = 2026-01-31 07:32:00Z\n", "not milter = 2026-01-31T07:32:00+00:00"),
    "dates in an array": ("rule = [2026-01-31, true, -inf]\n", "not rule = [2026-01-31, true, -inf]"),
    "date in a table": (
        "[dns]\nnameservers = { a = 2026-01-31 }\n",
        "expected a string or an array, not {a = 2026-01-31}",
    ),
    "huge hexadecimal number": (
        f"[milter]\nworkers = 0x{'f' * 5000}\n",
        f"expected an integer <= 256, not 0x{'f' * 78}...",
    ),
    "tables nested too deeply": ("[lists]\n" + "a." * 5000 + "a = 1\n", "assay.toml: nested too deeply"),
    "key that is not printable": ('[milter]\n"\\u001b" = 1\n', 'unknown key milter."\\U0000001b"; known are'),
    "too small": ("[milter]\nworkers = -1\n", "milter.workers: expected an integer >= 0, not -1"),
    "too large": ("[milter]\nworkers = 1000\n", "milter.workers: expected an integer <= 256, not 1000"),
    "no time": ("[dns]\nbudget_seconds = 0\n", "dns.budget_seconds: expected a number > 0.0, not 0"),
    "a time that is not a number": ("[dns]\nbudget_seconds = nan\n", "dns.budget_seconds: expected a number > 0.0"),
    "endless time": ("[dns]\nbudget_seconds = inf\n", "dns.budget_seconds: expected a number <= 280.0, not inf"),
    "a long value": ("[milter]\nworkers = '" + "x" * 500 + "'\n", "not '" + "x" * 79 + "..."),
    "unknown word": ("[dmarc]\nreject = 'bounce'\n", f"dmarc.reject: 'bounce' is not one of {WORDS}"),
    "unsafe word": ("[milter]\non_error = 'reject'\n", "milter.on_error: 'reject' is not one of accept, tempfail"),
    # [milter]
    "unknown socket family": ("[milter]\nsocket = 'tcp:1'\n", f"milter.socket: 'tcp:1' {SOCKET}"),
    "port 0": ("[milter]\nsocket = 'inet:0@h'\n", f"milter.socket: 'inet:0@h' {SOCKET}, with a port from 1 to 65535"),
    "port too high": ("[milter]\nsocket = 'inet:99999'\n", f"'inet:99999' {SOCKET}, with a port from 1 to 65535"),
    "port of six digits": ("[web]\nlisten = 'inet:808000@::'\n", f"{SOCKET}, with a port from 1 to 65535"),
    "unix socket without path": ("[milter]\nsocket = 'unix:'\n", f"milter.socket: 'unix:' {SOCKET}"),
    "a bare path": ("[milter]\nsocket = '/run/s'\n", f"milter.socket: '/run/s' {SOCKET}, here unix:/run/s"),
    "Postfix's notation": ("[milter]\nsocket = 'inet:h:25'\n", f"'inet:h:25' {SOCKET}, here inet:25@h"),
    "Postfix's notation, IPv6": ("[milter]\nsocket = 'inet:[::1]:25'\n", f"{SOCKET}, here inet6:25@::1"),
    "a path that is not absolute": (
        "[milter]\nsocket = 'unix:assay/assay.sock'\n",
        "milter.socket: 'unix:assay/assay.sock' is not an absolute path; write one such as unix:/run/assay/assay.sock",
    ),
    "an IPv6 address as IPv4": (
        "[milter]\nsocket = 'inet:25@::1'\n",
        "milter.socket: 'inet:25@::1' has an IPv6 address; write inet6:25@::1",
    ),
    "a space in a host": ("[milter]\nsocket = 'inet:25@a b'\n", f"'inet:25@a b' {SOCKET}"),
    "a port in non-ASCII digits": ("[milter]\nsocket = 'inet:\u0662@h'\n", SOCKET),
    "mode that is not octal": ("[milter]\nsocket_mode = '888'\n", "milter.socket_mode: '888' is not a mode; write "),
    "mode with special bits": ("[milter]\nsocket_mode = '7777'\n", "milter.socket_mode: '7777' is not a mode; write "),
    # [identity]
    "authserv-id with a space": (
        "[identity]\nauthserv_id = 'a b'\n",
        "identity.authserv_id: 'a b' is not a host name; write a name such as mx.example.org",
    ),
    "authserv-id of two lines": ('[identity]\nauthserv_id = "a\\nX: y"\n', r"identity.authserv_id: 'a\nX: y' is not"),
    "an empty name to strip": ("[identity]\nstrip = ['']\n", "identity.strip: '' is not a host name"),
    # [clients]
    **{
        f"clients.{key}: {value}": (f"[clients]\n{key} = ['{value}']\n", f"clients.{key}: '{value}' is ")
        for key in ("internal", "trusted_results", "trusted_forwarders", "relays")
        for value in ("10.0.0.0/33", "localhost")
    },
    "a network with host bits": (
        "[clients]\ninternal = ['10.0.0.1/8']\n",
        "clients.internal: '10.0.0.1/8' is an address inside a network; write 10.0.0.0/8, or 10.0.0.1 for that host",
    ),
    **{
        f"clients.relay_names: {value}": (
            f"[clients]\nrelay_names = ['{value}']\n",
            f"clients.relay_names: '{value}' is not a host's whole name, such as mx2.example.org",
        )
        for value in ("*.example.org", "localhost", "192.0.2.99")
    },
    **{
        f"clients.{key}: {value}": (f"[clients]\n{key} = ['{value}']\n", f"clients.{key}: '{value}' is {message}")
        for key in ("exempt_senders", "exempt_recipients")
        for value, message in (
            ("a b@example.org", "not an address, a domain or an IP address: local part with white space"),
            ("192.0.2.0/24", "not an address, a domain or an IP address: "),
            ("192.0.2.1", "an IP address; write a mail address or a domain"),
        )
    },
    # [dns]
    "a name as a nameserver": (
        "[dns]\nnameservers = ['dns.example']\n",
        f"dns.nameservers: 'dns.example' {NAMESERVER}",
    ),
    "an unclosed bracket": ("[dns]\nnameservers = ['[::1']\n", f"dns.nameservers: '[::1' {NAMESERVER}"),
    "a nameserver's port": ("[dns]\nnameservers = ['192.0.2.1:0']\n", "dns.nameservers: '192.0.2.1:0': the port must"),
    **{
        f"an encrypted nameserver: {url}": (f"[dns]\nnameservers = ['{url}']\n", f"dns.nameservers: {url!r}{message}")
        for url, message in (
            ("http://192.0.2.1/q", " is not a nameserver; write an IP address, tls://ADDRESS#NAME or https://"),
            ("tls://[::1", " is not a URL; write tls://ADDRESS#NAME"),
            ("tls://192.0.2.1:0", ": the port must"),
            ("https://192.0.2.1", " has no path; write the whole URL, mostly https://192.0.2.1/dns-query"),
            ("tls://192.0.2.1/q", " has a path; write tls://ADDRESS#NAME"),
            ("https://192.0.2.1/\u00e9", ": a path must be of printable ASCII characters; write others as %XX"),
            ("tls://192.0.2.1#a..b", ": 'a..b' is not a host name: "),
            ("tls://dns.google#dns.google", ": 'dns.google' is not an IP address; write tls://ADDRESS#NAME"),
            ("tls://a.example", ": the address of a.example cannot be looked up without a nameserver; write it too, "),
        )
    },
    "a word that is not a nameserver": ("[dns]\nnameservers = ['quad9']\n", ", or one of google_tls, cloudflare_tls,"),
    "no certificates": (
        "[dns]\nnameservers = 'tls://192.0.2.1'\nca_file = 'DIR/none'\n",
        "dns.ca_file: DIR/none: cannot be read: No such file or directory",
    ),
    "certificates that are none": (
        "[dns]\nnameservers = 'tls://192.0.2.1'\nca_file = 'DIR/list'\n",
        "dns.ca_file: DIR/list: no certificates in PEM",
    ),
    "no nameserver": ("[dns]\nnameservers = []\n", "dns.nameservers: no nameserver"),
    "a word in a list": ("[dns]\nnameservers = ['system', '::1']\n", "dns.nameservers: 'system' must stand alone"),
    "an unknown word for nameservers": ("[dns]\nnameservers = 'nowhere'\n", "dns.nameservers: 'nowhere' is "),
    **{
        f"zone: {name}": (f"[dns]\nnameservers = 'none'\nzone = 'DIR/{name}'\n", f"dns.zone: DIR/{name}{message}")
        for name, message in (
            ("missing", ": "),
            ("wrong record", ":2: "),
            ("Latin-1", ":1: not UTF-8"),
            ("loop", ": CNAME loop"),
        )
    },
    # methods
    "an unknown word in names_in_mail_from": (
        "[iprev]\nnames_in_mail_from = 'all'\n",
        "iprev.names_in_mail_from: 'all' is not one of first, any, ''",
    ),
    "a guess that is not a record": (
        "[spf]\nbest_guess = 'a mx -all'\n",
        "spf.best_guess: 'a mx -all' is not a valid SPF record: ",
    ),
    "a guess of another version": (
        "[spf]\nbest_guess = 'spf2.0/pra a -all'\n",
        "spf.best_guess: 'spf2.0/pra a -all' is not a valid SPF record: ",
    ),
    "a stage before the result": (
        "[spf.mailfrom]\nstage = 'helo'\nfail = 'reject'\n",
        "spf.mailfrom.stage: 'helo' is too early; write mail or a later stage",
    ),
    "an IP address as a strict domain": (
        "[spf]\nstrict_domains = ['192.0.2.1']\n",
        "spf.strict_domains: '192.0.2.1' is not a domain; write one such as example.org",
    ),
    "a stricter domain": ("[dmarc]\nstricter_domains = ['a..b']\n", "dmarc.stricter_domains: 'a..b' is not an address"),
    "a sealer": ("[arc]\ntrusted_sealers = ['a b']\n", "arc.trusted_sealers: 'a b' is not a domain: "),
    "a colon in a field name": (
        "[dkim]\nsingle_fields = ['To:']\n",
        "dkim.single_fields: 'To:' is not a header field name; write a name such as Subject",
    ),
    "an empty field name": ("[dkim]\nrequired_fields = ['']\n", "dkim.required_fields: '' is not a header field name"),
    **{
        f"dkim.{key} deferred": (
            f"[dkim]\n{key} = 'tempfail'\n",
            f"dkim.{key}: 'tempfail' is allowed for temperror only; write reject, discard, quarantine, tag or accept",
        )
        for key in ("none", "fail", "policy", "neutral", "permerror", "unsigned_fields", "unaligned")
    },
    "an action for mailing lists": (
        "[dmarc]\nlist_traffic = 'tag'\n",
        "dmarc.list_traffic: 'tag' is not one of reject, quarantine, accept",
    ),
    # [headers], [replies]
    "a tag that is not a field": (
        "[headers]\ntag_field = 'X Y'\n",
        "headers.tag_field: 'X Y' is not a header field; write \"Name: value\" in printable ASCII",
    ),
    "a tag with an umlaut": ("[headers]\ntag_subject = 'ä'\n", "headers.tag_subject: 'ä' is not plain text; write "),
    "a reply for no method": (
        "[replies.texts]\ndnarc = 'x'\n",
        "replies.texts.\"dnarc\": 'dnarc' is not one of the methods: iprev, ",
    ),
    "a reply for no outcome": (
        "[replies.texts]\n'dmarc.fail' = 'x'\n",
        "replies.texts.\"dmarc.fail\": 'dmarc.fail' is not one of the outcomes of dmarc: none, quarantine, ",
    ),
    "a reply with an unknown field": (
        "[replies.texts]\ndmarc = '{ip}'\n",
        "replies.texts.\"dmarc\": '{ip}': {ip} is not one of the fields {address}, ",
    ),
    "a reply with half a brace": (
        "[replies.texts]\ndmarc = '{reason'\n",
        "replies.texts.\"dmarc\": '{reason' has an unbalanced brace; write {{ or }} for a brace itself",
    ),
    # lists
    "a list that is missing": ("[lists]\na = 'DIR/missing'\n", "lists.a: DIR/missing: cannot be read: No such file"),
    "a list in Latin-1": ("[lists]\na = 'DIR/Latin-1'\n", "lists.a: DIR/Latin-1: line 1 is not UTF-8 text"),
    "an invalid entry in a list": (
        "[lists]\na = 'DIR/list'\n",
        "lists.a: DIR/list:3: 'a b' is not an address, a domain or ",
    ),
    # rules
    "half a rule": ("[[rule]]\nname = 'a'\n", "rule 1.when: required, but missing"),
    "a rule without a name": ("[[rule]]\nname = ''\nwhen = 'true'\n", "rule 1.name: expected a string of length >= 1"),
    "an unknown key of a rule": ("[[rule]]\nwhem = 'x'\n", "unknown key rule 1.whem; did you mean when?"),
    "which rule": (
        "[[rule]]\nname = 'a'\nwhen = 'true'\nstage = 'eom'\n[[rule]]\nname = 'b'\nwhen = 'true'\nstage = 'data'\n",
        "rule 2.stage: 'data' is not one of connect, helo, mail, rcpt, eom",
    ),
    **{
        name: (f"[[rule]]\nname = 'r'\n{text}\n", message)
        for name, text, message in (
            ("a rule's action", "when = 'true'\naction = 'bounce'", f"rule 1.action: 'bounce' is not one of {WORDS}"),
            ("a rule's reason", "when = 'true'\nreason = 'ä'", "rule 1.reason: 'ä' is not plain text; write printable"),
            (
                "an invalid field to add",
                "when = 'true'\nadd_fields = ['x']",
                "rule 1.add_fields: 'x' is not a header field; ",
            ),
            (
                "an invalid field to remove",
                "when = 'true'\nremove_fields = ['a:']",
                "rule 1.remove_fields: 'a:' is not a header",
            ),
            (
                "a recipient",
                "when = 'true'\nadd_recipients = ['joe']",
                "rule 1.add_recipients: 'joe' is not an address",
            ),
            (
                "a rule without an action",
                "when = 'true'",
                "rule 'r': action: missing; write an action, or a change such as ",
            ),
            (
                "a change too early",
                "when = 'true'\nstage = 'mail'\nadd_fields = ['X: y']",
                "rule 'r': stage: 'mail' is too early to change a message; write 'eom' or leave it out",
            ),
            (
                "an action too early",
                "when = 'true'\nstage = 'mail'\naction = 'discard'",
                "rule 'r': stage: 'mail' is too early for discard; write 'eom' or leave it out",
            ),
            (
                "a reply without a refusal",
                "when = 'true'\naction = 'tag'\nreply = '550 no'",
                "rule 'r': reply: '550 no' is never sent; write action = 'reject' or 'tempfail'",
            ),
            (
                "a reply's code",
                "when = 'true'\naction = 'reject'\nreply = '450 no'",
                "rule 'r': reply: '450 no' does not fit reject; write a code that begins with 5",
            ),
            (
                "a reply's status",
                "when = 'true'\naction = 'reject'\nreply = '550 4.7.1 no'",
                "rule 'r': reply: '4.7.1 no' does not fit reject; write an enhanced status code that begins with 5",
            ),
        )
    },
    **{
        f"when: {when}": (
            f"[[rule]]\nname = 'r'\naction = 'reject'\nstage = '{stage}'\nwhen = '''{when}'''\n",
            f"rule 'r': when: {message}",
        )
        for stage, when, message in (
            ("eom", "helo ==", "line 1, column 8: not a valid CEL expression: "),
            ("eom", "hleo == 'x'", "line 1, column 1: unknown fact hleo; did you mean helo?"),
            ("eom", "spf.hleo == 'x'", "line 1, column 5: unknown fact spf.hleo; did you mean helo?"),
            ("eom", "helo.isnt('x')", "line 1, column 6: unknown function isnt; did you mean int?"),
            ("eom", "exists(dkim)", "line 1, column 1: exists needs something before it, such as dkim.exists(...)"),
            ("eom", "below", "line 1, column 1: below is a function: write below(...)"),
            ("eom", "helo.below('x')", "line 1, column 6: below does not follow a dot: write below(...)"),
            ("eom", "below(helo)", "line 1, column 11: below takes 2 arguments, not 1"),
            ("eom", "below(helo, 'a..b')", "line 1, column 13: below: 'a..b' is not a domain: "),
            ("eom", "inside(helo, '10.0.0.0/33')", "line 1, column 14: inside: '10.0.0.0/33' is "),
            ("eom", "listed(helo, 'x')", "line 1, column 14: unknown list 'x'"),
            ("eom", "header(helo) == 'x'", "line 1, column 8: the last argument of header must be a plain text in "),
            ("eom", "helo == 1", "line 1, column 1: helo == 1: compare it with a text in quotes"),
            ("eom", "dkim.domain == 'x'", "line 1, column 6: dkim is a list: write dkim.exists(one, one.domain ...)"),
            ("eom", "mail_from.domain == 'A.example'", "line 1, column 11: mail_from.domain is never 'A.example': "),
            ("helo", "mail_from.domain == 'a'", "line 1, column 11: mail_from is not known at stage helo, only from "),
            ("eom", "helo", "'helo' is not a condition: it gives str, not true or false"),
            ("eom", "dkim[0].domain == 'x'", "index out of bounds: 0; a list may be empty, so check its size() first"),
            ("eom", "helo > 1", ""),
        )
    },
    "a key that may be left out": (
        "[[rule]]\nname = 'r'\nwhen = 'true'\nforward = 'yes'\n",
        "rule 1.forward: expected true or false, not 'yes'",
    ),
    # sealing
    "sealing without own domains": (SEALING, "arc.own_domains: missing; name the domains that this site receives mail"),
    "sealing without validation": (
        "[arc]\nenabled = false\nown_domains = ['ours.example']\n" + SEALING,
        "arc.enabled: false, but arc.seal records what validation found; write true",
    ),
    "a domain that seals": (SEALING.replace("example.org", "a..b"), "arc.seal 1.domain: 'a..b' is not a domain: empty"),
    "a selector that seals": (SEALING.replace("'s'", "'a b'"), "arc.seal 1.selector: 'a b' is not a selector: label"),
    # rules that sign or forward
    "a rule that forwards nothing": (
        "[[rule]]\nname = 'r'\nwhen = 'true'\nforward = true\n",
        "rule 'r': forward: nothing is done with forwarded mail; configure [srs] or [[arc.seal]]",
    ),
    "a rule that forwards and acts": (
        "[[rule]]\nname = 'r'\nwhen = 'true'\nforward = true\naction = 'tag'\n",
        "rule 'r': forward: a rule that forwards does nothing else; write another rule for the rest",
    ),
    "a rule that forwards too early": (
        "[[rule]]\nname = 'r'\nwhen = 'true'\nforward = true\nstage = 'mail'\n",
        "rule 'r': stage: 'mail' is too early to forward; write 'eom' or leave it out",
    ),
    "a rule without keys": (
        "[[rule]]\nname = 'r'\nwhen = 'true'\nsign = true\n",
        "rule 'r': sign: nothing can sign; write a [[sign.domain]] with its keys",
    ),
    "a rule with another domain": (
        SIGNING + "[[rule]]\nname = 'r'\nwhen = 'true'\nsign = 'exampel.org'\n",
        "rule 'r': sign: no table of [sign] has exampel.org; did you mean example.org?",
    ),
    "a rule with something else": (
        SIGNING + "[[rule]]\nname = 'r'\nwhen = 'true'\nsign = 'a..b'\n",
        "rule 'r': sign: 'a..b' is not a domain: empty label; write one, or true or false",
    ),
    "a rule that also acts": (
        SIGNING + "[[rule]]\nname = 'r'\nwhen = 'true'\nsign = true\naction = 'tag'\n",
        "rule 'r': sign: a rule that signs does nothing else; write another rule for the rest",
    ),
    "a rule too early": (
        SIGNING + "[[rule]]\nname = 'r'\nwhen = 'true'\nsign = true\nstage = 'mail'\n",
        "rule 'r': stage: 'mail' is too early to sign; write 'eom' or leave it out",
    ),
    # [store]
    "a relative directory": (
        "[store]\ndirectory = 'assay'\n",
        "store.directory: 'assay' is not an absolute path; write one such as /var/lib/assay",
    ),
    "a store of nothing": (
        "[store]\ndirectory = 'DIR'\ndatabase = ''\n",
        'store.database: empty, and there is no broker; write "sqlite" or the URL of a database',
    ),
    "no URL of a database": (
        "[store]\ndatabase = 'mysql://db.example.org/assay'\n",
        "store.database: 'mysql://db.example.org/assay' is not a URL that can be used; write one such as postgresql://",
    ),
    "no port of a broker": (
        "[store]\nbroker = 'amqp://mq.example.org:x/'\n",
        "store.broker: not a valid URL; write one such as amqps://assay@mq.example.org/",
    ),
    "a password in sight": (
        "[store]\ndatabase = 'postgresql://assay:secret@db.example.org/assay'\n",
        "store.database: it contains a password, which everyone who reads this file sees; use password_file",
    ),
    "a password in a parameter": (
        "[store]\ndatabase = 'postgresql://assay@db.example.org/assay?application_name=a&pass%77ord=secret'\n",
        "store.database: it contains a password, which everyone who reads this file sees; use password_file",
    ),
    "a password of the broker in sight": (
        "[store]\nbroker = 'amqps://assay:secret@mq.example.org/'\n",
        "store.broker: it contains a password, which everyone who reads this file sees; use broker_password_file",
    ),
    "an exchange without a name": (
        "[store]\nexchange = ''\n",
        "store.exchange: '' is not a name of an exchange; write one such as assay",
    ),
    "an exchange that no broker can have": (
        "[store]\nexchange = 'ass\u00e4y'\n",
        "store.exchange: 'ass\u00e4y' is not a name of an exchange; write one such as assay",
    ),
    "a password for nothing": (
        "[store]\npassword_file = 'DIR/password'\n",
        "store.password_file: database is not a URL, so nothing asks for a password; remove this key",
    ),
    # [web]
    "no page": ("[web]\nlisten = '8891'\n", "web.listen: '8891' is not a socket address"),
    "a page without a login": (
        "[web]\nlisten = 'inet:8891@127.0.0.1'\n",
        "web.listen: no user could log in; set token_file, or user_header and trusted_proxies",
    ),
    "no header field": (
        "[web]\nuser_header = 'Remote User'\n",
        "web.user_header: 'Remote User' is not the name of a header field; write one such as X-Remote-User",
    ),
    "a header that nobody may write": (
        "[web]\nuser_header = 'X-Remote-User'\n",
        "web.user_header: no client is believed; name the reverse proxy in trusted_proxies",
    ),
    "no proxy": (
        "[web]\ntrusted_proxies = ['proxy']\n",
        "web.trusted_proxies: 'proxy' is not an IP address or a network such as 192.0.2.0/24 or 2001:db8::/32",
    ),
    "no domain of ours": ("[web]\ndomains = ['a..b']\n", "web.domains: 'a..b' is not a domain: empty label"),
    "a page without a store": (
        "[web]\nlisten = 'inet:8891@127.0.0.1'\ntoken_file = 'DIR/token'\n",
        "web.listen: it shows what the store has, and there is no database; set store.directory",
    ),
    "no token": (
        "[store]\ndirectory = 'DIR'\n[web]\nlisten = 'inet:8891@127.0.0.1'\ntoken_file = 'DIR/none'\n",
        "web.token_file: DIR/none: cannot be read: No such file or directory",
    ),
    "a token that is not ASCII": (
        "[store]\ndirectory = 'DIR'\n[web]\nlisten = 'inet:8891@127.0.0.1'\ntoken_file = 'DIR/Latin-1'\n",
        "web.token_file: DIR/Latin-1: not ASCII text (octet 17)",
    ),
    "a token that is too short": (
        "[store]\ndirectory = 'DIR'\n[web]\nlisten = 'inet:8891@127.0.0.1'\ntoken_file = 'DIR/short'\n",
        "web.token_file: DIR/short: write one line of at least 20 characters without spaces; openssl rand",
    ),
    # [log]
    "unknown log": ("[log]\nto = 'file'\n", "log.to: 'file' is not one of stderr, syslog, journald"),
    "unknown format": ("[log]\nformat = 'xml'\n", "log.format: 'xml' is not one of pairs, json"),
    "no endpoint": ("[metrics]\nlisten = '9810'\n", "metrics.listen: '9810' is not a socket address"),
    "relative endpoint": (
        "[metrics]\nlisten = 'unix:m'\n",
        "metrics.listen: 'unix:m' is not an absolute path; write one such as unix:/run/assay/daemon/metrics.sock",
    ),
    "control over TCP": (
        "[control]\nsocket = 'inet:1@127.0.0.1'\n",
        "control.socket: 'inet:1@127.0.0.1' is not a unix socket; write one such as unix:/run/assay/daemon/control.",
    ),
    "unknown level": ("[log]\nlevel = 'loud'\n", "log.level: 'loud' is not one of error, warning, info, debug"),
    "unknown facility": ("[log]\nfacility = 'post'\n", "log.facility: 'post' is not one of auth, authpriv, daemon, "),
    "facts in a directory that is missing": (
        "[log]\nfacts = 'DIR/missing/facts'\n",
        "log.facts: DIR/missing/facts: cannot be written: No such file or directory; create DIR/missing",
    ),
    "facts that are a directory": ("[log]\nfacts = 'DIR'\n", "log.facts: DIR: cannot be written: Is a directory"),
}
FILES = {
    "wrong record": b'example.org. TXT "x"\nexample.org. A nonsense\n',
    "Latin-1": b"example.org. TXT \xe9",
    "loop": b"a.example. CNAME a.example.\n",
    "key": pem(rsa_key()),
    "short": b"0123456789\n",
    "list": b"# partners\nexample.org\na b\n",
}


def fails(folder: Path, text: str) -> ConfigError:
    """The error of a configuration file with this text."""
    for name, content in FILES.items():
        (folder / name).touch(0o600)
        (folder / name).write_bytes(content)
    path = folder / "assay.toml"
    path.write_text(text.replace("DIR", str(folder)))
    with pytest.raises(ConfigError) as caught:
        read_for_serving(path)
    return caught.value


@pytest.mark.parametrize(("text", "message"), ROWS.values(), ids=ROWS)
def test_an_error_names_file_key_and_value(tmp_path: Path, text: str, message: str) -> None:
    said = str(fails(tmp_path, text))
    assert said.startswith(f"{tmp_path}/assay.toml: ")
    assert message.replace("DIR", str(tmp_path)) in said
    assert said.isprintable(), "one line"


def raise_sites(module: str) -> Iterator[range]:
    """The lines of each ``raise`` statement of a module that creates an error."""
    tree = ast.parse((PACKAGE / module).read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    exempt = {node for each in functions if each.name in NOT_FROM_A_FILE for node in ast.walk(each)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node not in exempt:
            yield range(node.lineno, (node.end_lineno or node.lineno) + 1)


def lines_passed(error: BaseException | None) -> Iterator[tuple[str, int]]:
    """The file and line of each frame in the traceback of an error and of its causes."""
    while error is not None:
        traceback: TracebackType | None = error.__traceback__
        while traceback is not None:
            yield traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
            traceback = traceback.tb_next
        error = error.__cause__ or error.__context__


def test_each_message_has_a_row(tmp_path: Path) -> None:
    passed: set[tuple[str, int]] = set()
    for text, _ in ROWS.values():
        passed.update(lines_passed(fails(tmp_path, text)))
    # The messages of load() for files that cannot be read are in test_load.py.
    for path in (tmp_path / "none", tmp_path / "Latin-1"):
        with pytest.raises(ConfigError) as caught:
            read_for_serving(path)
        passed.update(lines_passed(caught.value))
    without = [
        f"{module}:{lines.start}"
        for module in READERS
        for lines in raise_sites(module)
        if not any((str(PACKAGE / module), line) in passed for line in lines)
    ]
    assert not without


#: The Python that runs, which a postmaster cannot know: "/opt/assay/bin/python3 -m pip install".
PIP = f"{sys.executable} -m pip install"


def test_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h2", None)
    said = str(fails(tmp_path, "[dns]\nnameservers = 'https://192.0.2.1/q'\n"))
    assert f"dns.nameservers: 'https://192.0.2.1/q' needs Python packages; run: {PIP} h2" in said
    monkeypatch.setitem(sys.modules, "publicsuffixlist", None)
    said = str(fails(tmp_path, "[dmarc]\norganizational_domain = 'psl'\n"))
    assert f"dmarc.organizational_domain: 'psl' needs Python packages; run: {PIP} publicsuffixlist" in said


def test_a_missing_package_for_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda _: None)
    said = str(fails(tmp_path, "[metrics]\nlisten = 'inet:9810@127.0.0.1'\n"))
    assert f"metrics.listen: this needs Python packages; run: {PIP} prometheus_client" in said


def test_missing_packages_for_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda _: None)
    said = str(fails(tmp_path, "[store]\ndirectory = 'DIR'\n"))
    assert f"store.database: this needs Python packages; run: {PIP} SQLAlchemy alembic" in said
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == "psycopg" else name)
    said = str(fails(tmp_path, "[store]\ndirectory = 'DIR'\ndatabase = 'postgresql://db.example.org/assay'\n"))
    assert f"store.database: this needs Python packages; run: {PIP} 'psycopg[binary]'" in said


def test_a_missing_package_for_the_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == "aio_pika" else name)
    said = str(fails(tmp_path, "[store]\ndirectory = 'DIR'\ndatabase = ''\nbroker = 'amqp://mq.example.org/'\n"))
    assert f"store.broker: this needs Python packages; run: {PIP} aio-pika" in said


def test_missing_packages_for_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == "jinja2" else name)
    said = str(fails(tmp_path, "[web]\nlisten = 'inet:8891@127.0.0.1'\ntoken_file = 'DIR/token'\n"))
    assert f"web.listen: this needs Python packages; run: {PIP} jinja2" in said
