# SPDX-License-Identifier: GPL-3.0-or-later
"""The law of each parser: what must hold for every input, as a function of bytes that raises where it is broken.

One list for two ways of looking for what breaks it: `test_laws.py` (hypothesis, in every test run) and
``contrib/fuzz`` (atheris, for as long as one likes). A law lets through the error that the parser documents and no
other; where there is a way to write what was read, reading it again gives the same.

`Law.seeds` are small inputs that reach far into the parser, and what fuzzing once found.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from xml.etree import ElementTree

from assay.config.endpoint import Endpoint, EndpointError
from assay.inquiry import Outcome, Question, RecordType
from assay.keys import SendersError, opendkim, parse_senders
from assay.log import MAX_VALUE_LENGTH, quote
from assay.model.message import Header, HeaderField, split_message
from assay.model.name import Domain, InvalidNameError, Mailbox, ReversePath, parse_mailbox, quote_local_part
from assay.model.network import Networks
from assay.model.smtp import Envelope, canonical_address, parse_address
from assay.protocol import arc, authres, dkim, dmarc, report, senderid, spf
from assay.protocol.arc.chain import read_ending
from assay.protocol.arc.seal import recorded_results
from assay.protocol.report.render import MAX_TEXT
from assay.protocol.spf import macro
from assay.protocol.syntax.address import AddressFault, AddressList, parse_addresses
from assay.protocol.syntax.received import parse_received
from assay.protocol.syntax.tags import TagListError, decode_base64, parse_tags
from assay.resolver import LocalZone, ZoneError, nameservers, wire
from assay.resolver.message import read as read_message
from reference import agree

CLIENT = ip_address("2001:db8::1")
REDACTOR = report.Redactor(b"key")


@dataclass(frozen=True)
class Law:
    """A law. `tokens` are words of the grammar, for a fuzzer to put together."""

    name: str
    check: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    tokens: tuple[str, ...]


LAWS: dict[str, Law] = {}


def law(*seeds: str | bytes, tokens: str = "") -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    """Make a function a law under its own name."""

    def register(check: Callable[[bytes], None]) -> Callable[[bytes], None]:
        octets = tuple(seed.encode() if isinstance(seed, str) else seed for seed in seeds)
        name = check.__name__
        LAWS[name] = Law(name, check, octets, tuple(tokens.split()))
        return check

    return register


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _is_sound(reason: str) -> None:
    """A reason is one printable line."""
    assert reason
    assert reason.isprintable(), reason


# floor 0: names, addresses, messages


@law(
    "a.example",
    "BÜCHER.example.",
    "_spf.a-b.example",
    "xn--bcher-kva.example",
    "ａ。ｂ",
    "[192.0.2.1]",
    tokens=". xn--",
)
def domain(data: bytes) -> None:
    try:
        parsed = Domain.parse(_text(data))
    except InvalidNameError as fault:
        _is_sound(str(fault))
        return
    assert parsed.name.isascii()
    assert parsed.name == parsed.name.lower()
    assert len(parsed.name) <= 253
    assert all(0 < len(label) <= 63 for label in parsed.labels)
    assert Domain.parse(parsed.name) == parsed
    assert Domain.parse(parsed.name.upper() + ".") == parsed
    assert parsed.is_at_or_below(Domain(parsed.labels[-1]))


@law(
    "<a@b.example>",
    "<>",
    '<"a b"@c.example>',
    '"\\a@"@b.example',
    "<@a,@b:c@d.example>",
    "é@é.example",
    "<a@[1.2.3.4]>",
)
def reverse_path(data: bytes) -> None:
    text = _text(data)
    parsed = ReversePath.parse(text)
    assert parsed.text in (text, text[1:-1])
    if parsed.mailbox is None:
        assert parsed.is_null != bool(parsed.fault)
        return
    assert not parsed.fault
    again = ReversePath.parse(f"<{parsed.mailbox}>")
    assert again.mailbox == parsed.mailbox
    assert quote_local_part(parsed.mailbox.local_part) in str(parsed.mailbox)


@law("192.0.2.1", "192.0.2.0/24, 2001:db8::/32", "::ffff:192.0.2.0/120", "[::1]", "IPv6:2001:db8::1", "fe80::1%eth0")
def network(data: bytes) -> None:
    text = _text(data)
    address = parse_address(text)
    if address is not None:
        assert parse_address(str(address)) == address
        assert parse_address(f"[IPv6:{address}]") == address
    try:
        networks = Networks.parse([text])
    except ValueError as fault:
        _is_sound(str(fault).replace("\\", ""))
        return
    assert Networks.parse(map(str, networks.members)) == networks
    for member in networks.members:
        found = networks.find(member.network_address)
        assert found is not None
        assert member.network_address in found
    networks.find(CLIENT)


@law("A: 1\r\nB: 2\r\n 3\r\n\r\nx", "A: 1\nB: 2\n\n3\ny", "From a b\nA: 1\r\n\r\nx\ny", "\r\n", "From : a@b\r\n\r\n")
def message(data: bytes) -> None:
    header, body = split_message(data)
    whole = b"".join(field.raw for field in header) + b"\r\n" + body
    assert split_message(whole) == (header, body)
    for field in header:
        assert not field.key.isascii() or field in header.all(field.key.decode())
        assert b"\r\n" not in field.unfolded


# floor 2: the protocols


@law("v=1; a=rsa-sha256;\r\n\td=a.example; b=QUJD", "a=;b_1= x y ;", "p=Q Q\r\n ==", tokens="v=1; a= b= d= =")
def tag_list(data: bytes) -> None:
    with suppress(TagListError):
        decode_base64(_text(data))
    try:
        tags = parse_tags(data)
    except TagListError as fault:
        _is_sound(str(fault))
        return
    assert parse_tags(";".join(f"{name}={value}" for name, value in tags.items()).encode()) == tags


_NO_TOKEN = frozenset('()<>@,;:\\"/[]?= \t\r\n')  # RFC 2045, 5.1: no authserv-id has one of these without quotes


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _is_plain(name: str) -> bool:
    try:
        return Domain.parse(name).name == name
    except InvalidNameError:
        return False


@law(
    "a@b.example",
    'A B <a@b.example>, "C" <"d e"@f.example>',
    "group: a@b.example, C <c@d.example>;, e@f.example",
    "(a (b)) A. B <a.b@[192.0.2.1]> (c)",
    "=?utf-8?q?a=40b?= <é@é.example>",
    tokens='@ < > ( ) , ; : . " \\ [ ] =?u?q?=40?= example',
)
def address_list(data: bytes) -> None:
    parsed = parse_addresses(data)
    if isinstance(parsed, AddressFault):
        _is_sound(parsed.reason)
    elif parsed.mailboxes:
        value = ",\r\n ".join(
            f"{_quoted(one.display_name)} <{_quoted(one.local_part)}@{one.domain}>" for one in parsed.mailboxes
        )
        assert parse_addresses(value.encode()) == AddressList(parsed.mailboxes)
    author = dmarc.author([HeaderField(b"From", data)])
    assert (author.domain is None) == bool(author.fault)
    assert author.domain is None or author.domains == (author.domain,)
    assert len(author.domains) <= dmarc.MAX_AUTHOR_DOMAINS
    if not isinstance(parsed, AddressFault) and author.domains:  # what is read for sure is also what could be read
        names = {one.domain.lower() for one in parsed.mailboxes}
        assert {name for name in names if _is_plain(name)} <= {one.name for one in author.domains}


@law(
    ' mx.example.org; spf=pass smtp.mailfrom=a.example; dkim=fail reason="a b" (c) header.i=@a.example',
    ' (c) "a b" 1 ; none',
    " =?utf-8?q?mx=2Eexample=2Eorg?= ; none",
    " spf=pass (sender IP is 192.0.2.1) smtp.mailfrom=a.example; dmarc=none action=none",
    " fail (mx.example.org: a) receiver=mx.example.org; client-ip=192.0.2.1",
    tokens='mx.example.org ; = . / " \\ ( ) none spf=pass reason= header.d= smtp.mailfrom= =?u?b? ?= receiver=',
)
def authentication_results(data: bytes) -> None:
    for ours in ({"mx.example.org"}, {"bücher.example"}, {"a b"}):
        authres.claims(data, ours)
        authres.claims(data, ours, ours)
        authres.forged_received_spf(data, ours)
    parsed = authres.parse(data)
    if isinstance(parsed, authres.FieldFault):
        _is_sound(parsed.reason)
        return
    if parsed.authserv_id.strip(".") and parsed.authserv_id.isprintable() and not set(parsed.authserv_id) & _NO_TOKEN:
        assert authres.claims(data, {parsed.authserv_id}), "what we read as an id is not seen as one"
    registered = tuple(one for one in parsed.results if not authres.unregistered(one))
    written = authres.parse(authres.render("mx.example.org", registered).encode())
    assert isinstance(written, authres.AuthenticationResults)
    assert [(one.method, one.result) for one in written.results] == [(one.method, one.result) for one in registered]
    assert authres.parse(authres.render("mx.example.org", written.results).encode()) == written
    recorded_results(Header((HeaderField(b"Authentication-Results", data),)), parsed.authserv_id)


@law(
    " v=1; a=rsa-sha256; c=simple; d=a.example; s=s; h=From:To; bh=QUJD; b=QUJD; t=1; x=2; l=3; i==40@a.example",
    tokens="v=1; a=ed25519-sha256; d=a.example; s=s; h=from; bh=QUJD; b=QUJD; i=@a.example; c=simple; q= l= t= x=",
)
def dkim_signature(data: bytes) -> None:
    field = HeaderField(b"DKIM-Signature", data)
    parsed = dkim.parse(field)
    assert parsed.field is field
    if isinstance(parsed, dkim.Evaluation):
        _is_sound(parsed.reason)
    assert (parsed.identity + str(parsed.domain)).isprintable()
    header = Header((field, HeaderField(b"From", b" a@a.example")))
    if isinstance(parsed, dkim.Signature):
        hashes = dkim.BodyHashes([parsed.body_hash_spec])
        hashes.update(data)
        lookup = dkim.KeyLookup("k", Outcome.FOUND, (dkim.parse_key(b"k=ed25519; p=" + b"A" * 43),))
        _is_sound(dkim.verify(parsed, lookup, header, hashes, now=1).reason)


@law(
    "v=DKIM1; k=ed25519; p=" + "A" * 43,
    "k=rsa; t=s:y; h=sha256; s=email; p=MAA=",
    "p=",
    tokens="v=DKIM1; k=rsa; p= t=y h= s=*",
)
def dkim_key(data: bytes) -> None:
    parsed = dkim.parse_key(data)
    if isinstance(parsed, dkim.KeyFault):
        _is_sound(parsed.reason)
    else:
        assert not parsed.verify(dkim.Algorithm.RSA_SHA256, b"x" * 64, b"x" * 32)


@law(b"a  b\t\r\n\r\n\0c \r\n\r\n", b"\r\n\r\n", b"a\rb\nc \t", b"\t\r\r\n \n")
def body_hash(data: bytes) -> None:
    specs = [
        dkim.BodyHashSpec(kind, "sha256", length) for kind in dkim.Canonicalization for length in (None, len(data) // 2)
    ]
    whole, cut = dkim.BodyHashes(specs), dkim.BodyHashes(specs)
    whole.update(data)
    for at in range(0, len(data), 3):
        cut.update(data[at : at + 3])
    assert [whole.digest(spec) for spec in specs] == [cut.digest(spec) for spec in specs]


@law(
    "v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 a:%{d}/24//64 mx -exists:%{ir}.%{v}.x.example include:a.example ?all",
    "v=spf1 redirect=_spf.%{d2r-} exp=e.%{h} x=%{s}%%%_%- ~ptr",
    "spf2.0/mfrom,pra a -all",
    tokens="v=spf1 ip4: ip6: a mx ptr exists: include: redirect= exp= all %{d} %{S1r-} / // - ~ ? +",
)
def spf_record(data: bytes) -> None:
    for texts in ([data], [b"v=spf1 " + data], [data, b"v=spf1 " + data]):
        for scope in senderid.Scope:
            senderid.select_record(texts, scope, spf1=senderid.Spf1.FALLBACK)
        record = spf.select(texts)
        if record is None:
            continue
        for fault in record.faults:
            _is_sound(fault)
        if record.faults:
            continue
        terms = [*record.directives, record.redirect, record.exp, *record.unknown]
        again = spf.parse(" ".join(["v=spf1", *(term.text for term in terms if term is not None)]).encode())
        assert again == record


@law("%{d}.%{ir}.%{v}.example", "a.%{L2r-+}%%%_%-.x", "%{s", tokens="%{ } %% %_ %- s l o d i p v h c r t r .-+,/_=")
def spf_macro(data: bytes) -> None:
    text = _text(data)
    values = dict.fromkeys("slodipvhcrt", text[:50])
    for read in (macro.parse, macro.parse_domain_spec, lambda text: macro.parse(text, explanation=True)):
        try:
            string = read(text)
        except macro.MacroError as fault:
            _is_sound(str(fault))
            continue
        expanded = macro.expand(string, values)
        assert string.literal is None or string.literal == expanded
        tail = macro.expand(string, values, tail=9)
        assert expanded.endswith(tail)
        assert tail == expanded or len(tail) >= 9


@law("a b.example", 'é\r\n)("\\@', tokens='" \\ ( ) ;')
def received_spf(data: bytes) -> None:
    sender, _, helo = _text(data).partition(" ")
    evaluation = spf.Evaluation(spf.Result.PERMERROR, spf.Identity.MAILFROM, None, sender, helo, helo + sender)
    value = spf.render(evaluation, client_address=CLIENT, helo=helo, envelope_from=sender, receiver="mx.example.org")
    lines = value.split("\r\n\t")
    assert all(line.isprintable() and len(line.encode()) < 998 for line in lines)
    assert authres.forged_received_spf(value.encode(), {"mx.example.org"})


@law(
    "v=DMARC1; p=reject; sp=none; np=quarantine; rua=mailto:a@b.example!9m,mailto:c@d; fo=1:d; pct=50; psd=n; t=y",
    tokens="v=DMARC1; p= sp= np= none quarantine reject rua=mailto:a@b ruf= fo= adkim= aspf= psd= t=y pct= ; , ! :",
)
def dmarc_record(data: bytes) -> None:
    for text in (data, b"v=DMARC1;" + data):
        if not dmarc.is_record(text):
            continue
        record = dmarc.parse(text)
        for note in record.notes:
            _is_sound(note)
        assert record.p is not None or (record.sp is None and record.np is None and not record.rua)
        if text.isascii():
            assert dmarc.parse(record.text.encode()) == record


@law(
    "mailto:a@b.example!10m,mailto:%22a%20b%22@b%C3%BCcher.example?cc=x@y.example",
    "https://a.example/",
    tokens="mailto: a@b.example %40 %2C %C3%BC ! 10m , ? &cc= https://",
)
def report_uri(data: bytes) -> None:
    record = dmarc.parse(b"v=DMARC1; p=none; rua=" + data)
    for uri in (*record.rua, _text(data)):
        try:
            mailbox = report.parse_mailto(uri)
        except report.UriError as fault:
            _is_sound(str(fault))
            continue
        assert str(mailbox).isascii()
        assert str(mailbox).isprintable()
        assert parse_mailbox(str(mailbox)) == mailbox
    assert all(uri and limit >= 0 for uri, limit in report.size_limits(record).items())


@law("a\r\nb", "]]>", "&lt;<a>", "\0", b"\xff\xfe", "ü" * 300, tokens="]]> < > & \0")
def aggregate_report(data: bytes) -> None:
    """What XML readers other than the tests' own make of a text in a report: the same, whatever it is."""
    text = _text(data)
    none = dmarc.DmarcPolicy.NONE
    about = report.AggregateReport(
        report.ReportMetadata(text, text, text, 0, 1, text, (text,), text),
        report.PolicyPublished(text, none, none, none),
    )
    record = report.ReportRecord(
        text,
        1,
        report.Disposition.NONE,
        dkim_aligned=False,
        spf_aligned=False,
        header_from=text,
        envelope_from=text,
        reasons=(report.OverrideReason(report.OverrideType.OTHER, text),),
        dkim=(report.DkimResult(text, text, dkim.Result.PASS, text),),
        spf=report.SpfResult(text, spf.Result.PASS, text),
    )
    for schema in report.Schema:
        root = ElementTree.fromstring(b"".join(report.render(about, [record], schema)))  # noqa: S314 - our own
        texts = [element.text or "" for element in root.iter()]
        assert all(one.isprintable() or not one.strip() for one in texts)
        assert max(map(len, texts)) <= 11 * (MAX_TEXT + 3)


@law(
    'From: "A" <a@b.example>\nTo: c@d.example\nReceived: from x (y) for <e@f.example>\nX-A: b\nSubject: "g h"@i\n',
    tokens='From: To: Received: Subject: " @ < > ( ) = \\ \n a@b.example i= smtp.mailfrom=',
)
def redacted_header(data: bytes) -> None:
    header, _ = split_message(data)
    fields, complete = REDACTOR.header(header)
    assert complete == (len(fields) == len(header.fields))
    octets = b"".join(field.raw for field in fields)
    assert octets.isascii()
    assert [field.name for field in split_message(octets + b"\r\n")[0]] == [field.name for field in fields]
    for word in re.findall(r"[a-z0-9]+@", REDACTOR.text(_text(data))):
        assert len(word) > 16, "a local part in clear"  # that of a hash has 16 characters
    report.report_mail(Envelope(ReversePath("a")), header)


@law(
    "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=a.example; s=s; b=QUJD\n"
    "ARC-Message-Signature: i=1; a=rsa-sha256; d=a.example; s=s; h=from; bh=QUJD; b=QUJD\n"
    "ARC-Authentication-Results: i=1; mx.example.org; none\n",
    tokens="ARC-Seal: ARC-Message-Signature: ARC-Authentication-Results: i=1; cv=none; cv=pass; i=2; \n",
)
def arc_chain(data: bytes) -> None:
    header, _ = split_message(data)
    parsed = arc.parse_chain(header)
    instance, failed = read_ending(header)
    assert 0 <= instance <= arc.MAX_SETS
    assert instance or not failed
    if isinstance(parsed, arc.Chain):
        assert [one.instance for one in parsed.sets] == list(range(1, instance + 1))
    else:
        assert not parsed.reason or parsed.reason.isprintable()


@law(
    "Resent-From: a@b.example\nReceived: x\nSender: c@d.example\nFrom: e@f.example\n",
    tokens="Sender: From: Resent-Sender: Received: \n",
)
def responsible_address(data: bytes) -> None:
    found = senderid.responsible_address(split_message(data)[0])
    assert (found.mailbox is None) == bool(found.fault)


@law(
    " from a.example (b.example [192.0.2.1]) by c",
    " from [192.0.2.1] (helo=a.example)",
    "from a ([IPv6:2001:db8::1] helo=b)",
    "from a (HELO b) (c@192.0.2.1) by d",
    "from [192.0.2.1] (192.0.2.2) by c (192.0.2.3) with Microsoft SMTP Server",
    "from [192.0.2.1] by c with esmtps (TLS1.3) tls X (Exim 4.96)",
    tokens="from by with ( ) [ ] @ IPv6: helo= HELO Exim 192.0.2.1",
)
def received(data: bytes) -> None:
    told = parse_received(data)
    if told is not None:
        address, helo = told
        assert address == canonical_address(address)
        assert helo
        assert not set(helo) & set(" \t\r\n")


# floor 5: the operator's texts, and the DNS


@law(
    'a.example. 300 IN TXT "v=spf1" " -all"\n*.b A 192.0.2.1\nc CNAME a.example.\nd MX 10 e\n',
    "$ORIGIN x.\n@ SOA a b 1 2 3 4 5\n ( ; c\n",
    tokens='IN A AAAA TXT MX PTR CNAME SOA $ORIGIN $TTL $GENERATE ( ) ; @ * " \\ 192.0.2.1',
)
def zone_file(data: bytes) -> None:
    try:
        text = data.decode("utf-8")
        zone = LocalZone(text)
    except (ZoneError, UnicodeDecodeError):
        return
    for name in ("a.example", "x.b", "c", "d", "", text[:20]):
        for kind in RecordType:
            found = zone.answer(Question(name, kind))
            if isinstance(found, Question):
                zone.last_word(found)


@law("inet:8890@localhost", "inet6:25@[::1]", "unix:/run/assay.sock", "local:x", "inet:0")
def endpoint(data: bytes) -> None:
    try:
        parsed = Endpoint.parse(_text(data))
    except EndpointError:
        return
    assert Endpoint.parse(str(parsed)) == parsed


@law("192.0.2.1:53", "[2001:db8::1]:5353", "2001:db8::1", "fe80::1%eth0", "system")
def nameserver(data: bytes) -> None:
    try:
        parsed = nameservers.parse(_text(data))
    except nameservers.NameserverError:
        return
    assert nameservers.parse(str(parsed)) == parsed


@law("joe example.org", "@a.example % *.b.example", "10.0.0.0/8 *\nlocal x.example", tokens="* % @ local # 10/8 a.b")
def senders_table(data: bytes) -> None:
    with suppress(SendersError):
        parse_senders(_text(data)).allow(Domain("a.example"), "joe@b.example", CLIENT)


@law("*@a.example k:@%", "csl:*=k,a.example=k", "k a.example:s:/k", "k %:s:/%/k", tokens="* % @ : k csl: refile: # ,")
def opendkim_tables(data: bytes) -> None:
    text = _text(data)
    with suppress(opendkim.TableError):
        kind, where = opendkim.data_set(text.partition("\n")[0])
        read = list(opendkim.entries(kind, "T", where))
        keys = {"k": opendkim.LoadedKey(opendkim.KeyRow("", None, Domain("s"), "/k"), {})}
        rows = opendkim.signing_rows(kind, read, keys)
        table = opendkim.SigningTable(kind, rows, keys, dkim.DEFAULT_SIGNING_RULES)
        list(table.near_misses(Mailbox("joe", Domain("a.example"))))
        opendkim.key_rows(read)


@law(
    b"\0\1\x81\x80\0\1\0\1\0\0\0\0\1a\0\0\1\0\1\xc0\x0c\0\1\0\1\0\0\1\0\0\4\1\2\3\4",
    b"\0\1\x81\x83\0\1\0\1\0\1\0\0\1a\0\0\x10\0\1\xc0\x0c\0\5\0\1\0\0\1\0\0\2\xc0\x0c\0\0\6\0\1\0\0\0\1\0\0",
)
def dns_message(data: bytes) -> None:
    asked = wire.section(Question("a", RecordType.A))
    assert asked is not None
    wire.answers(data, 1, asked)
    for kind in RecordType:
        reply = read_message(data, kind)
        assert agree(data, kind)
        assert (reply.answer.outcome is Outcome.FOUND) == bool(reply.answer.records)
        assert reply.answer.outcome is not Outcome.TEMPFAIL or reply.answer.reason
        wire.section(Question(reply.alias, kind))


@law("a b", "a\x00\udc80".encode("utf-8", "surrogateescape"))
def log_value(data: bytes) -> None:
    quoted = quote(_text(data))
    assert quoted.isprintable()
    assert len(quoted) <= 6 * MAX_VALUE_LENGTH + len('"..."')
    assert quoted.startswith('"') or not set(quoted) & set(' "=')
