# SPDX-License-Identifier: GPL-3.0-or-later
"""The laws of a check that the published suites do not look at: batches, counts, identities, reports."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, ClassVar

import pytest

from assay.inquiry import Inquiry
from assay.model.name import Domain, ReversePath
from assay.protocol import spf
from zone import Zone

CLIENT = "192.0.2.1"
CLIENT6 = "2001:db8::1"


def txt(text: str) -> list[Any]:
    return ["TXT", [text]]


def check(rows: dict[str, list[list[Any]]], sender: str = "user@example.com", ip: str = CLIENT, **options: Any) -> Any:
    request = spf.Request(ip_address(ip), options.pop("helo", "mail.example.com"), **options)
    return Zone(rows).solve(spf.check(request.of_mail_from(ReversePath.parse(sender))))


def batches(rows: dict[str, list[list[Any]]], ip: str = CLIENT, **options: Any) -> tuple[list[set[str]], Any]:
    """Run a check and tell what it asked in each round."""
    zone = Zone(rows)
    asked: list[set[str]] = []

    def watch(inquiry: Inquiry[spf.Evaluation]) -> Inquiry[spf.Evaluation]:
        batch = next(inquiry)
        while True:
            assert len(batch) == len(set(batch)), "a question twice in a batch"
            asked.append({f"{question.type} {question.name}" for question in batch})
            answers = yield batch
            try:
                batch = inquiry.send(answers)
            except StopIteration as end:
                return end.value

    request = spf.Request(ip_address(ip), "mail.example.com", **options)
    return asked, zone.solve(watch(spf.check(request.of_mail_from(ReversePath.parse("user@example.com")))))


class TestBatches:
    def test_all_terms_that_need_no_answer_are_asked_at_once(self) -> None:
        record = "v=spf1 include:a.example a:b.example mx exists:%{ir}.c.example ip4:203.0.113.1 redirect=d.example"
        rows = {"example.com": [txt(record)], "a.example": [txt("v=spf1 -all")], "b.example": [["A", "203.0.113.9"]]}
        asked, evaluation = batches(rows)
        assert asked[:2] == [
            {"TXT example.com"},
            {"TXT a.example", "A b.example", "MX example.com", "A 1.2.0.192.c.example", "TXT d.example"},
        ]
        assert len(asked) == 2
        assert evaluation.result is spf.Result.PERMERROR  # redirect to nothing

    def test_chains_cost_their_depth_and_not_their_number(self) -> None:
        rows = {
            "example.com": [txt("v=spf1 include:a.example include:b.example include:c.example -all")],
            **{f"{x}.example": [txt(f"v=spf1 include:{x}{x}.example ?all")] for x in "abc"},
            **{f"{x}{x}.example": [txt("v=spf1 ip4:203.0.113.1 -all")] for x in "abc"},
        }
        asked, evaluation = batches(rows)
        assert [len(batch) for batch in asked] == [1, 3, 3]
        assert evaluation.result is spf.Result.FAIL
        assert evaluation.dns_terms == 6

    def test_addresses_of_all_exchangers_are_asked_at_once(self) -> None:
        rows = {
            "example.com": [txt("v=spf1 mx -all"), ["MX", [10, "m1.example"]], ["MX", [20, "m2.example"]]],
            "m1.example": [["A", "203.0.113.1"]],
            "m2.example": [["A", CLIENT]],
        }
        asked, evaluation = batches(rows)
        assert asked[1:] == [{"MX example.com"}, {"A m1.example", "A m2.example"}]
        assert evaluation.result is spf.Result.PASS

    @pytest.mark.parametrize("term", ["ip4:192.0.2.0/24", "all"])
    def test_terms_after_a_sure_match_are_not_asked(self, term: str) -> None:
        asked, evaluation = batches({"example.com": [txt(f"v=spf1 {term} a:a.example mx")]})
        assert asked == [{"TXT example.com"}]
        assert evaluation.dns_terms == 0

    @pytest.mark.parametrize("term", ["ip4:192.0.2.0/24", "-all"])
    def test_nothing_after_a_sure_match_is_asked_ahead(self, term: str) -> None:
        asked, _ = batches({"example.com": [txt(f"v=spf1 a:a.example {term} mx")]})
        assert asked[1:] == [{"A a.example"}]

    def test_reverse_lookups_are_not_made_ahead_of_need(self) -> None:
        rows = {
            "example.com": [txt("v=spf1 a:a.example ptr exists:%{p}.b.example a:c.example -all")],
            "a.example": [["A", CLIENT]],
        }
        asked, evaluation = batches(rows)
        assert asked[1:] == [{"A a.example", "A c.example"}]
        assert evaluation.mechanism == "a:a.example"

    def test_terms_beyond_the_limit_are_not_asked(self) -> None:
        record = "v=spf1 " + " ".join(f"a:a{number}.example" for number in range(20))
        rows = {f"a{number}.example": [["A", "203.0.113.1"]] for number in range(20)}
        asked, evaluation = batches({"example.com": [txt(record)], **rows})
        assert len(asked[1]) == 10
        assert len(asked) == 2
        assert evaluation.result is spf.Result.PERMERROR

    def test_asked_ahead_is_bounded_over_the_whole_check(self) -> None:
        wide = "v=spf1 " + " ".join(f"include:%{{d1r}}{n}.%{{d}}" for n in range(20))
        rows = {"example.com": [txt(wide)]}
        for n in range(20):
            rows[f"example{n}.example.com"] = [txt(f"v=spf1 {' '.join(f'mx:m{n}x{k}.example' for k in range(20))}")]
            for k in range(20):
                rows[f"m{n}x{k}.example"] = [["MX", [i, f"h{i}.m{n}x{k}.example"]] for i in range(10)]
                rows |= {f"h{i}.m{n}x{k}.example": [["A", "203.0.113.1"]] for i in range(10)}
        in_order, _ = batches(rows, limits=spf.Limits(questions_ahead=0))
        ahead, _ = batches(rows)
        assert sum(map(len, ahead)) <= sum(map(len, in_order)) + spf.Limits().questions_ahead
        assert len(ahead) < len(in_order)

    def test_nothing_ahead_asks_in_order(self) -> None:
        asked, _ = batches(
            {"example.com": [txt("v=spf1 a:a.example a:b.example -all")]}, limits=spf.Limits(questions_ahead=0)
        )
        assert asked == [{"TXT example.com"}, {"A a.example"}, {"A b.example"}]

    def test_a_failing_lookup_ahead_does_no_harm(self) -> None:
        rows = {
            "example.com": [txt("v=spf1 a:a.example a:b.example -all")],
            "a.example": [["A", CLIENT]],
            "b.example": [["SERVFAIL", "*"]],
        }
        evaluation = check(rows)
        assert evaluation.result is spf.Result.PASS
        assert evaluation.dns_terms == 1


class TestLimits:
    def test_voids_ahead_are_not_counted(self) -> None:
        rows = {"example.com": [txt("v=spf1 a:a.example a:n1.example a:n2.example a:n3.example")]}
        rows["a.example"] = [["A", CLIENT]]
        evaluation = check(rows)
        assert evaluation.result is spf.Result.PASS
        assert evaluation.void_lookups == 0

    def test_two_voids_are_fine_and_the_third_ends_the_check(self) -> None:
        rows = {"example.com": [txt("v=spf1 a:n1.example exists:n2.example ?all")]}
        assert check(rows).result is spf.Result.NEUTRAL
        assert check(rows).void_lookups == 2
        rows = {"example.com": [txt("v=spf1 a:n1.example exists:n2.example mx:n3.example all")]}
        evaluation = check(rows)
        assert evaluation.result is spf.Result.PERMERROR
        assert "find nothing, in mx:n3.example of example.com" in evaluation.reason

    def test_void_limit_is_configurable(self) -> None:
        rows = {"example.com": [txt("v=spf1 a:n1.example a:n2.example a:n3.example all")]}
        assert check(rows, limits=spf.Limits(void_lookups=3)).result is spf.Result.PASS
        assert check(rows, limits=spf.Limits(void_lookups=0)).result is spf.Result.PERMERROR

    def test_a_term_is_void_once_however_many_of_its_names_are(self) -> None:
        rows = {
            "example.com": [txt("v=spf1 mx -all"), *(["MX", [10, f"m{n}.example"]] for n in range(5))],
            **{f"m{n}.example": [["A", CLIENT]] for n in range(5)},
        }
        evaluation = check(rows, ip=CLIENT6)  # exchangers without IPv6 are no error for IPv6 clients
        assert evaluation.result is spf.Result.FAIL
        assert evaluation.void_lookups == 1

    def test_terms_are_counted_over_all_includes(self) -> None:
        rows = {
            "example.com": [txt("v=spf1 include:a.example include:b.example ?all")],
            "a.example": [txt("v=spf1 " + "exists:x.example " * 4 + "?all")],
            "b.example": [txt("v=spf1 " + "exists:x.example " * 4 + "?all")],
            "x.example": [["AAAA", CLIENT6]],
        }
        limits = spf.Limits(void_lookups=99)
        assert check(rows, limits=limits).dns_terms == 10
        assert check(rows, limits=limits).result is spf.Result.NEUTRAL
        evaluation = check(rows, limits=spf.Limits(dns_terms=9, void_lookups=99))
        assert evaluation.result is spf.Result.PERMERROR
        assert evaluation.reason == "more than 9 terms that ask the DNS, in exists:x.example of b.example"

    def test_how_deep_includes_may_nest_is_configurable(self) -> None:
        rows = {
            "example.com": [txt("v=spf1 include:a.example -all")],
            "a.example": [txt("v=spf1 include:b.example -all")],
            "b.example": [txt("v=spf1 all")],
        }
        assert check(rows, limits=spf.Limits(nested_includes=2)).result is spf.Result.PASS
        evaluation = check(rows, limits=spf.Limits(nested_includes=1))
        assert evaluation.result is spf.Result.PERMERROR
        assert evaluation.reason == "includes nest more than 1 deep, in include:b.example of a.example"

    def test_endless_recursion_ends_however_generous_the_limit(self) -> None:
        rows = {"example.com": [txt("v=spf1 include:example.com")], "r.example": [txt("v=spf1 redirect=r.example")]}
        for sender in ("user@example.com", "user@r.example"):
            assert check(rows, sender, limits=spf.Limits(dns_terms=10**9)).result is spf.Result.PERMERROR

    def test_exchangers_match_in_order_of_preference_before_a_failing_one(self) -> None:
        rows = {
            "example.com": [txt("v=spf1 mx -all"), ["MX", [20, "bad.example"]], ["MX", [10, "good.example"]]],
            "good.example": [["A", CLIENT]],
            "bad.example": [["SERVFAIL", "*"]],
        }
        assert check(rows).result is spf.Result.PASS
        rows["example.com"][1:] = [["MX", [5, "bad.example"]], ["MX", [10, "good.example"]]]
        assert check(rows).result is spf.Result.TEMPERROR

    def test_null_mx_asks_no_address(self) -> None:
        asked, evaluation = batches({"example.com": [txt("v=spf1 mx -all"), ["MX", [0, "."]]]})
        assert asked[1:] == [{"MX example.com"}]
        assert evaluation.result is spf.Result.FAIL

    def test_only_the_first_reverse_names_count(self) -> None:
        names = [["PTR", f"n{n}.other.example"] for n in range(10)] + [["PTR", "mail.example.com"]]
        rows = {
            "example.com": [txt("v=spf1 ptr -all")],
            "1.2.0.192.in-addr.arpa": names,
            "mail.example.com": [["A", CLIENT]],
        }
        assert check(rows).result is spf.Result.FAIL
        assert check(rows, limits=spf.Limits(ptr_names=11)).result is spf.Result.PASS


class TestIdentity:
    ROWS: ClassVar[dict[str, list[list[Any]]]] = {
        "example.com": [txt("v=spf1 exists:%{l}.%{o}.%{h}.x.example -all exp=e.example.com")],
        "mail.example.com": [txt("v=spf1 ip4:192.0.2.1 -all")],
        "e.example.com": [txt("%{s} from %{c} at %{r}, %{t}")],
    }

    def test_null_reverse_path_is_the_postmaster_of_the_helo_name(self) -> None:
        evaluation = check(self.ROWS, "")
        assert evaluation.result is spf.Result.PASS
        assert evaluation.identity is spf.Identity.MAILFROM
        assert evaluation.domain == Domain("mail.example.com")
        assert evaluation.sender == "postmaster@mail.example.com"

    def test_helo(self) -> None:
        evaluation = Zone(self.ROWS).solve(spf.check(spf.Request(ip_address(CLIENT), "Mail.Example.Com.").of_helo()))
        assert evaluation.result is spf.Result.PASS
        assert evaluation.identity is spf.Identity.HELO
        assert evaluation.domain == Domain("mail.example.com")

    @pytest.mark.parametrize(
        "helo",
        ["", "mail", "[192.0.2.1]", "192.0.2.1", "mäil.example.com", "a b.example", "a..example", "\udcff.example"],
    )
    def test_helo_that_is_not_a_domain_name_is_none_without_a_question(self, helo: str) -> None:
        client = spf.Request(ip_address(CLIENT), helo)
        for request in (client.of_helo(), client.of_mail_from(ReversePath.parse("<>"))):
            zone = Zone({})
            evaluation = zone.solve(spf.check(request))
            assert evaluation.result is spf.Result.NONE
            assert evaluation.domain is None
            assert evaluation.reason
            assert not zone.asked

    @pytest.mark.parametrize(
        "sender", ["user", "user@host", "user@[192.0.2.1]", "user@a..b", "user@192.0.2.1", "@", "a b"]
    )
    def test_sender_without_a_usable_domain_is_none_without_a_question(self, sender: str) -> None:
        zone = Zone({})
        request = spf.Request(ip_address(CLIENT), "mail.example.com").of_mail_from(ReversePath.parse(sender))
        evaluation = zone.solve(spf.check(request))
        assert evaluation.result is spf.Result.NONE
        assert evaluation.domain is None
        assert "MAIL FROM" in evaluation.reason
        assert not zone.asked

    def test_u_labels_are_asked_and_expanded_as_a_labels(self) -> None:
        rows = {"xn--bcher-kva.example": [txt("v=spf1 exists:%{d}.x.example -all")]}
        rows["xn--bcher-kva.example.x.example"] = [["A", "127.0.0.2"]]
        assert check(rows, "user@BÜCHER.example").result is spf.Result.PASS

    @pytest.mark.parametrize(
        ("record", "result"),
        [
            ("v=spf1 exists:%{l}.x.example -all", "fail"),
            ("v=spf1 include:%{s}.x.example -all", "fail"),
            ("v=spf1 redirect=%{L}.x.example", "neutral"),
            ("v=spf1 exists:x.example -all", "pass"),
        ],
    )
    def test_terms_with_a_local_part_that_is_not_ascii_do_not_match(self, record: str, result: str) -> None:
        rows = {"example.com": [txt(record)], "x.example": [["A", "127.0.0.2"]]}
        rows["é.x.example"] = [["A", "127.0.0.2"]]
        assert check(rows, "é@example.com").result == result

    def test_mapped_address_is_the_ipv4_address(self) -> None:
        rows = {"example.com": [txt("v=spf1 -ip6:::/0 ip4:192.0.2.1 -all")]}
        assert check(rows, ip=f"::ffff:{CLIENT}").result is spf.Result.PASS

    def test_local_part_macros_in_the_policy_are_reported(self) -> None:
        assert check(self.ROWS).uses_local_part
        assert not check({"example.com": [txt("v=spf1 -all exp=e.example.com")], **self.ROWS}, "").uses_local_part
        only_explained = {**self.ROWS, "example.com": [txt("v=spf1 -all exp=e.example.com")]}
        assert not check(only_explained).uses_local_part
        unevaluated = {**self.ROWS, "example.com": [txt("v=spf1 a:n.example -all exists:%{l}.example.com")]}
        assert not check(unevaluated).uses_local_part


class TestWhatIsTold:
    def test_explanation_expands_all_letters(self) -> None:
        evaluation = check(TestIdentity.ROWS, receiver="mx.receiver.example", now=1700000000)
        assert evaluation.explanation == "user@example.com from 192.0.2.1 at mx.receiver.example, 1700000000"

    @pytest.mark.parametrize(
        ("sender", "shown"),
        [("a\nb@example.com", "a?b@example.com"), ("é@example.com", "?@example.com"), ("x" * 999, "x" * 450)],
    )
    def test_explanation_is_printable_and_bounded(self, sender: str, shown: str) -> None:
        rows = {"example.com": [txt("v=spf1 -all exp=e.example.com")], "e.example.com": [txt("%{s}")]}
        sender = sender if "@" in sender else f"{sender}@example.com"
        assert check(rows, sender).explanation == shown

    def test_default_explanation_stands_in_and_is_expanded(self) -> None:
        def explain(record: str, default: str) -> Any:
            return Zone({"example.com": [txt(record)], "e.example.com": [txt("theirs")]}).solve(
                spf.check_host(
                    spf.Request(
                        ip_address(CLIENT), "h.example", "example.com", "u@example.com", default_explanation=default
                    )
                )
            )

        assert explain("v=spf1 -all", "not from %{c}").explanation == "not from 192.0.2.1"
        assert explain("v=spf1 -all exp=e.example.com", "ours").explanation == "theirs"
        assert explain("v=spf1 -all exp=n.example.com", "ours").explanation == "ours"
        assert explain("v=spf1 ~all", "ours").explanation == ""
        assert explain("v=spf1 -all", "%bad").explanation == ""

    def test_given_record_replaces_the_published_one(self) -> None:
        def run(record: bytes) -> Any:
            return Zone({"a.example": [["A", CLIENT]]}).solve(
                spf.check_host(
                    spf.Request(ip_address(CLIENT), "h.example", "example.com", "u@example.com", record=record)
                )
            )

        assert run(b"v=spf1 a:a.example -all").result is spf.Result.PASS
        assert run(b"v=spf1 a:a").result is spf.Result.PERMERROR
        assert run(b"nonsense").result is spf.Result.NONE

    @pytest.mark.parametrize(
        ("record", "mechanism", "all_matched", "reason"),
        [
            ("v=spf1 ip4:192.0.2.1", "ip4:192.0.2.1", False, "example.com permits 192.0.2.1, by ip4:192.0.2.1"),
            ("v=spf1 -all", "-all", True, "example.com does not permit 192.0.2.1, by -all"),
            ("v=spf1 ~all", "~all", True, "example.com probably does not permit 192.0.2.1, by ~all"),
            ("v=spf1 ?all", "?all", True, "example.com makes no statement about 192.0.2.1, by ?all"),
            ("v=spf1", "default", False, "no term of example.com matches 192.0.2.1"),
            ("v=spf1 include:i.e", "include:i.e", False, "example.com permits 192.0.2.1, by include:i.e"),
            ("v=spf1 redirect=i.e", "+all", True, "i.e permits 192.0.2.1, by +all"),
            ("v=spf1 x", "", False, "record of example.com: unknown mechanism in x"),
            ("v=spf1 x y z", "", False, "record of example.com: unknown mechanism in x (and 2 more)"),
            ("v=spf1 include:n.i.e", "", False, "n.i.e does not exist, in include:n.i.e of example.com"),
            ("v=spf1 redirect=n.i.e", "", False, "n.i.e does not exist, in redirect=n.i.e of example.com"),
            ("v=spf1 a:s.example", "", False, "A lookup of s.example failed: SERVFAIL, in a:s.example of example.com"),
            ("v=spf1 include:s.example", "", False, "TXT lookup of s.example failed: SERVFAIL"),
            ("nothing", "", False, "example.com publishes no SPF record"),
        ],
    )  # fmt: skip
    def test_mechanism_and_reason(self, record: str, mechanism: str, all_matched: bool, reason: str) -> None:
        rows = {"example.com": [txt(record)], "i.e": [txt("v=spf1 +all")], "s.example": [["SERVFAIL", "*"]]}
        evaluation = check(rows)
        assert (evaluation.mechanism, evaluation.all_matched, evaluation.reason) == (mechanism, all_matched, reason)

    def test_domain_that_does_not_exist_is_distinguished(self) -> None:
        assert not check({}).domain_exists
        assert check({"example.com": [["A", CLIENT]]}).domain_exists

    def test_narration_has_every_evaluated_term_once(self) -> None:
        rows = {
            "example.com": [txt("v=spf1 ip4:203.0.113.1 include:i.example redirect=r.example")],
            "i.example": [txt("v=spf1 a:a.example ?all")],
            "r.example": [txt("v=spf1 mx -all")],
        }
        narrator = spf.Narrator()
        request = spf.Request(ip_address(CLIENT), "h.example", "example.com", "user@example.com")
        Zone(rows).solve(spf.check(request, narrator))
        told = [(s.depth, s.domain, s.term, s.text) for s in narrator.steps if s.term and s.event is spf.Event.OUTCOME]
        assert told == [
            (0, "example.com", "ip4:203.0.113.1", "no match"),
            (1, "i.example", "a:a.example", "no match"),
            (1, "i.example", "?all", "match: neutral"),
            (0, "example.com", "include:i.example", "no match"),
            (0, "example.com", "redirect=r.example", "continue with r.example"),
            (0, "r.example", "mx", "no match"),
            (0, "r.example", "-all", "match: fail"),
        ]

    def test_names_that_the_dns_cannot_carry_are_not_asked(self) -> None:
        record = "v=spf1 exists:%{h}.example.com a:a..example.com include:%{l}.example.com"
        rows = {"example.com": [txt(record)]}
        zone = Zone(rows)
        reverse_path = ReversePath.parse(f"{'x' * 64}@example.com")
        evaluation = zone.solve(spf.check(spf.Request(ip_address(CLIENT), "tab\there").of_mail_from(reverse_path)))
        assert [question.name for question in zone.asked] == ["example.com"]
        assert evaluation.result is spf.Result.PERMERROR  # an include of nothing
        assert evaluation.void_lookups == 0
        assert evaluation.reason.isascii()
        assert evaluation.reason.isprintable()

    def test_no_other_letter_passes_for_an_ascii_one(self) -> None:
        rows = {
            "example.com": [txt("v=spf1 ptr:%{h} a:k.example exists:%{h} -all")],
            "k.example": [["A", "203.0.113.1"]],
        }
        rows |= {"1.2.0.192.in-addr.arpa": [["PTR", "x.example"]], "x.example": [["A", CLIENT]]}
        kelvin = "\N{KELVIN SIGN}.example"
        assert kelvin.lower() == "k.example"
        assert check(rows, helo=kelvin).result is spf.Result.FAIL

    def test_long_expansion_loses_labels_on_the_left(self) -> None:
        labels = ".".join(["x" * 60] * 4)
        rows = {
            "example.com": [txt(f"v=spf1 exists:%{{l}}.{labels}.example -all")],
            f"{labels}.example": [["A", "127.0.0.2"]],
        }
        assert check(rows, "aa.bb.cc.dd.ee@example.com").result is spf.Result.PASS
