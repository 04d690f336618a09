# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay spfquery`` as users run it: arguments in, lines and exit code out, with a nameserver on loopback."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from assay.cli.main import main
from assay.cli.spfquery import EXIT_CODES
from nameserver import NameServer

PAGE = Path(__file__).parents[2] / "docs" / "spfquery.md"

ROWS: dict[str, list[list[Any]]] = {
    "example.org": [["TXT", ["v=spf1 ip4:192.0.2.1 -all exp=why.example.org"]]],
    "why.example.org": [["TXT", ["%{i} is none of ours"]]],
    "mail.example.org": [["TXT", ["v=spf1 a -all"]], ["A", "192.0.2.1"]],
    "softfail.example": [["TXT", ["v=spf1 ~all"]]],
    "neutral.example": [["TXT", ["v=spf1 ?all"]]],
    "permerror.example": [["TXT", ["v=spf1 oops"]]],
    "temperror.example": [["SERVFAIL", "*"]],
    "none.example": [["A", "192.0.2.1"]],
    "void.example": [["TXT", ["v=spf1 a:a.void.example a:b.void.example ip4:192.0.2.1 -all"]]],
    "joe.example": [["TXT", ["v=spf1 exists:%{l}.%{h}.%{o} -all"]]],
    "joe.joe.example.joe.example": [["A", "127.0.0.2"]],
    "joe.mail.example.org.joe.example": [["A", "127.0.0.2"]],
    "postmaster.joe.example.joe.example": [["A", "127.0.0.2"]],
    "hostile.example": [["TXT", ["v=spf1 \x1b]0;owned\x07 -all"]], ["TXT", ["\udcff"]]],
    "big.example": [
        ["TXT", ["v=spf1 include:i.big.example mx:m.big.example a:%{l}.big.example/30 redirect=example.org"]]
    ],
    "i.big.example": [["TXT", ["v=spf1 ip6:2001:db8::/32 ?all"]]],
    "again.example": [["TXT", ["v=spf1 a:many.example a:many.example a:a..again.example a:%{h} ?all"]]],
    "many.example": [["A", f"203.0.113.{number}"] for number in range(1, 26)],
    "m.big.example": [["MX", [10, "mx.big.example"]]],
    "mx.big.example": [["A", "203.0.113.9"]],
}


class Ended(NamedTuple):
    code: int | str | None
    lines: list[str]
    errors: str


@pytest.fixture(scope="module")
def nameserver() -> Iterator[str]:
    with NameServer(ROWS) as server:
        host, port = server.address
        yield f"{host}:{port}"


class Tool:
    """``assay spfquery`` with a nameserver."""

    def __init__(self, nameserver: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.nameserver = nameserver
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Ended:
        return self.bare("--nameserver", self.nameserver, *arguments)

    def bare(self, *arguments: str) -> Ended:
        code: int | str | None
        try:
            code = main(["spfquery", *arguments])
        except SystemExit as end:  # argparse exits this way
            code = end.code
        out, errors = self._capsys.readouterr()
        assert "Traceback" not in errors
        return Ended(code, out.split("\n")[:-1], errors)


@pytest.fixture
def tool(nameserver: str, capsys: pytest.CaptureFixture[str]) -> Tool:
    return Tool(nameserver, capsys)


@pytest.mark.parametrize(
    ("arguments", "result", "code"),
    [
        ("-i 192.0.2.1 -s joe@example.org -h mail.example.org", "pass", 0),
        ("--ip-address 192.0.2.1 --sender joe@example.org --helo-domain mail.example.org", "pass", 0),
        ("--ip 192.0.2.1 --sender=joe@example.org --helo mail.example.org", "pass", 0),
        ("-i192.0.2.1 example.org", "pass", 0),
        ("-i ::ffff:192.0.2.1 example.org", "pass", 0),
        ("-i 192.0.2.1 -s <joe@example.org>", "pass", 0),
        ("-i 192.0.2.1 -s example.org", "pass", 0),
        ("-i 192.0.2.1 -h mail.example.org", "pass", 0),
        ("-i 192.0.2.2 example.org", "fail", 1),
        ("example.org", "fail", 1),
        ("softfail.example", "softfail", 2),
        ("neutral.example", "neutral", 3),
        ("permerror.example", "permerror", 4),
        ("temperror.example", "temperror", 5),
        ("none.example", "none", 6),
        ("nowhere.example", "none", 6),
        ("com", "none", 6),
        ("-s joe", "none", 6),
        ("-s @", "none", 6),
        ("-h [192.0.2.1]", "none", 6),
        ("-s joe joe.example", "pass", 0),
        ("-s joe@elsewhere.example joe.example", "pass", 0),
        ("-s ann@elsewhere.example joe.example", "fail", 1),
        ("joe.example", "pass", 0),
        ("-h mail.example.org -s joe@joe.example", "pass", 0),
    ],
    ids=str,
)
def test_result_and_exit_code(tool: Tool, arguments: str, result: str, code: int) -> None:
    ended = tool(*arguments.split(" "))
    assert (ended.lines[0], ended.code, ended.errors) == (result, code, "")


def test_a_pass_is_printed_in_three_parts(tool: Tool) -> None:
    lines = tool("-i", "192.0.2.1", "example.org").lines
    assert lines[:2] == ["pass", "example.org permits 192.0.2.1, by ip4:192.0.2.1"]
    field = " ".join(line.lstrip("\t") for line in lines[2:])
    assert re.fullmatch(r"Received-SPF: pass \(.*client-ip=192\.0\.2\.1; .*identity=mailfrom; .*", field)


def test_the_explanation_is_marked_as_the_senders(tool: Tool) -> None:
    assert tool("-i", "192.0.2.2", "example.org").lines[2] == "example.org explains: 192.0.2.2 is none of ours"


def test_helo_is_shown_after_mail_from_and_decides_nothing(tool: Tool) -> None:
    ended = tool("-i", "192.0.2.2", "-h", "mail.example.org", "softfail.example")
    assert ended.code == 2
    assert ended.lines[0] == "softfail"
    blank = ended.lines.index("")
    assert ended.lines[blank + 1 : blank + 3] == ["helo: fail", "mail.example.org does not permit 192.0.2.2, by -all"]
    assert "identity=helo" in " ".join(ended.lines[blank:])


def test_the_null_sender_stands_for_postmaster_at_helo(tool: Tool) -> None:
    ended = tool("-i", "192.0.2.1", "-s", "", "-h", "mail.example.org")
    assert ended.lines[:2] == ["pass", "mail.example.org permits 192.0.2.1, by a"]


@pytest.mark.parametrize(
    ("expected", "code", "said"),
    [("fail", 0, ""), ("FAIL", 0, ""), ("pass", 1, "assay spfquery: expected pass, got fail\n")],
)
def test_expect(tool: Tool, expected: str, code: int, said: str) -> None:
    ended = tool("-e", expected, "-i", "192.0.2.2", "example.org")
    assert (ended.code, ended.errors, ended.lines[0]) == (code, said, "fail")


def test_verbose_prints_the_transcript_of_the_page(tool: Tool) -> None:
    command = "$ assay spfquery -v -i 192.0.2.1 -s joe@big.example\n"
    page = PAGE.read_text("utf-8")
    expected = page.partition(command)[2].partition("\n```")[0].replace("127.0.0.1\n", f"{tool.nameserver}\n", 1)
    ended = tool("-v", "-i", "192.0.2.1", "-s", "joe@big.example")
    lines = ended.lines[: ended.lines.index("pass") - 1]
    timed = re.compile(r" *[0-9]+\.[0-9] ms")
    assert [timed.sub("T", line) for line in lines] == [timed.sub("T", line) for line in expected.split("\n")]
    assert all(timed.match(line) for line in lines[7:])
    arrivals = [float(line[:9]) for line in lines[7:]]
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] > 0


def test_the_page_documents_every_option_and_exit_code(tool: Tool) -> None:
    page = PAGE.read_text("utf-8")
    for option in re.findall(r"^  (-\S+?),? (?:\S+, )?(--\S+)?", "\n".join(tool("-?").lines), re.MULTILINE):
        assert all(f"`{form}" in page for form in option if form), option
    for result, code in EXIT_CODES.items():
        assert f"| {result} | {code} |" in page


def test_verbose_marks_lookups_that_were_not_needed(tool: Tool) -> None:
    text = "\n".join(tool("-v", "-i", "203.0.113.9", "big.example").lines)
    assert re.search(r"ms  asked in advance, not needed: TXT example\.org: .*v=spf1 .* ms\)", text)


def test_verbose_reports_that_no_lookup_was_needed(tool: Tool) -> None:
    assert "     0.0 ms  => none: HELO is not a fully qualified domain name" in tool("-v", "-h", "localhost").lines


def test_a_client_whose_mail_the_daemon_does_not_judge_is_noted(tool: Tool) -> None:
    note = "note         the daemon does not judge mail of this client: internal network 127.0.0.0/8"
    assert note in tool("-v", "example.org").lines
    assert note not in tool("-v", "-i", "192.0.2.1", "example.org").lines


def test_verbose_counts_unlisted_records_and_marks_repeated_lookups(tool: Tool) -> None:
    text = "\n".join(tool("-v", "-i", "192.0.2.1", "-h", "", "again.example").lines)
    assert re.search(r"A many\.example: 203\.0\.113\.[0-9]+, .* and 5 more \([0-9.]+ ms\)", text)
    assert re.search(r"A many\.example: 203\.0\.113\.[0-9]+, .* and 5 more \(as above\)", text)
    assert "A a..again.example: the name does not exist (not asked: the DNS cannot carry this name)" in text
    assert "A (empty name): the name does not exist (not asked" in text
    assert "expands to nothing (%{h} = )" in text


def test_json_has_everything(tool: Tool) -> None:
    ended = tool("--json", "-e", "fail", "-i", "192.0.2.2", "-h", "mail.example.org", "example.org")
    assert ended.code == 0
    found = json.loads("\n".join(ended.lines))
    assert {key: value for key, value in found.items() if key != "checks"} == {
        "result": "fail",
        "expected": "fail",
        "client": "192.0.2.2",
        "helo": "mail.example.org",
        "mail_from": "postmaster@example.org",
        "internal_network": None,
    }
    mail_from, helo = found["checks"]
    assert (mail_from["identity"], mail_from["result"], mail_from["explanation"]) == (
        "mailfrom",
        "fail",
        "192.0.2.2 is none of ours",
    )
    assert (helo["identity"], helo["result"], helo["dns_terms"]) == ("helo", "fail", 1)
    assert [(one["name"], one["type"], one["outcome"]) for one in mail_from["dns"]] == [
        ("example.org", "TXT", "found"),
        ("why.example.org", "TXT", "found"),
    ]
    assert all(one["ms"] >= 0 for one in mail_from["dns"])
    assert mail_from["received_spf"].startswith("fail (")
    assert {
        "depth": 0,
        "domain": "example.org",
        "term": "-all",
        "event": "outcome",
        "text": "match: fail",
    } in mail_from["steps"]


class TestConfiguration:
    """The tool uses the daemon's configuration."""

    def test_limits(self, tool: Tool, tmp_path: Path) -> None:
        assert tool("-i", "192.0.2.1", "void.example").code == 0
        configuration = tmp_path / "assay.toml"
        configuration.write_text("[spf]\nvoid_lookups = 1\n")
        assert tool("-c", str(configuration), "-i", "192.0.2.1", "void.example").lines[0] == "permerror"

    def test_zone_and_authserv_id(self, tool: Tool, tmp_path: Path) -> None:
        zone = tmp_path / "zone"
        zone.write_text('example.org. TXT "v=spf1 ip4:192.0.2.77 -all"\n')
        configuration = tmp_path / "assay.toml"
        configuration.write_text(f'[identity]\nauthserv_id = "mx.example.net"\n[dns]\nzone = "{zone}"\n')
        ended = tool("-v", "--config", str(configuration), "-i", "192.0.2.77", "example.org")
        assert ended.code == 0
        assert f"zone         {zone}" in ended.lines
        assert "receiver=mx.example.net" in "\n".join(ended.lines)

    def test_a_record_of_the_zone_may_include_one_of_the_dns(self, tool: Tool, tmp_path: Path) -> None:
        zone = tmp_path / "zone"
        zone.write_text('example.com. TXT "v=spf1 include:example.org ip4:192.0.2.0/24 -all"\n')
        configuration = tmp_path / "assay.toml"
        configuration.write_text(f'[dns]\nzone = "{zone}"\n')
        assert tool("-c", str(configuration), "-e", "pass", "-i", "192.0.2.25", "example.com").code == 0
        assert tool("-c", str(configuration), "-e", "pass", "-i", "192.0.3.25", "example.com").code == 1

    def test_nameservers(self, tool: Tool, tmp_path: Path) -> None:
        configuration = tmp_path / "assay.toml"
        configuration.write_text(f'[dns]\nnameservers = ["{tool.nameserver}"]\n')
        assert tool.bare("-c", str(configuration), "-i", "192.0.2.1", "example.org").lines[0] == "pass"
        assert tool.bare("-c", str(configuration), "--nameserver", "none", "example.org").lines[0] == "none"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 64, "nothing to check"),
        (["-i", "192.0.2.1"], 64, "nothing to check"),
        (["-i", "192.0.2", "example.org"], 64, "'192.0.2' is not an IP address"),
        (["-i", "", "example.org"], 64, "'' is not an IP address"),
        (["-i", "\udcff", "example.org"], 64, "is not an IP address"),
        (["-e", "maybe", "example.org"], 64, "'maybe' is not one of pass, fail"),
        (["joe@example.org"], 64, "give an address with -s"),
        (["example.org", "example.com"], 64, "unrecognized arguments: example.com"),
        (["--nameserver", "ns.example", "example.org"], 64, "'ns.example' is not a nameserver address"),
        (["--nameserver", "127.0.0.1:99999", "example.org"], 64, "port"),
        (["--nameserver", "none", "--nameserver", "127.0.0.1", "example.org"], 64, "'none' must stand alone"),
        (["-c", "/nonexistent/assay.toml", "example.org"], 78, "/nonexistent/assay.toml: cannot be read"),
        (["-c", "/", "example.org"], 78, "cannot be read"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_wrong_usage_ends_in_one_sentence(tool: Tool, arguments: list[str], code: int, said: str) -> None:
    ended = tool.bare(*arguments)
    assert (ended.code, ended.lines) == (code, [])
    assert said in ended.errors


def test_a_bad_configuration_names_its_key(tool: Tool, tmp_path: Path) -> None:
    configuration = tmp_path / "assay.toml"
    configuration.write_text("[spf]\nvoid_lookup = 1\n")
    ended = tool.bare("-c", str(configuration), "example.org")
    assert ended.code == 78
    assert "spf.void_lookup; did you mean void_lookups?" in ended.errors


def test_an_unreachable_nameserver_is_a_temperror_with_a_reason(tool: Tool) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    ended = tool.bare("-v", "--nameserver", f"127.0.0.1:{port}", "example.org")
    assert ended.code == 5
    assert f"127.0.0.1:{port}" in "\n".join(ended.lines[4:])
    assert any(line.startswith("TXT lookup of example.org failed: ") for line in ended.lines)


@pytest.mark.parametrize(
    ("option", "said"), [("-V", "assay "), ("--version", "assay "), ("-?", "usage: assay spfquery")]
)
def test_version_and_help(tool: Tool, option: str, said: str) -> None:
    ended = tool.bare(option)
    assert ended.code == 0
    assert ended.lines[0].startswith(said)


@pytest.mark.parametrize("option", [[], ["-v"], ["--json"]], ids=str)
def test_text_from_a_stranger_cannot_control_the_terminal(tool: Tool, option: list[str]) -> None:
    ended = tool(*option, "-s", "\x1b[31m\udcff\u202ejoe@hostile.example", "-h", "\x9b\udc80")
    assert ended.code == 4
    text = "\n".join(ended.lines)
    assert not re.search("[\x00-\x08\x0b-\x1f\x80-\x9f\u202e\ud800-\udfff]", text)
    if option == ["-v"]:
        assert r"<\x1b[31m\xff\u202ejoe@hostile.example>" in text
        assert r"v=spf1 \x1b]0;owned\x07 -all" in text


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.sampled_from(["-i", "-s", "-h", "-e", "-v", "--json", "--", "-", "192.0.2.1", "::1", "pass", "e.org"]),
            st.text(alphabet=st.characters(min_codepoint=1), max_size=20),
        ),
        max_size=6,
    )
)
@example(arguments=["", "\x1b[31m\ud800"])
def test_no_argument_causes_a_traceback(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    ended = Tool("none", capsys)(*arguments)
    assert ended.code in (0, 1, 4, 6, 64, 78)
