# SPDX-License-Identifier: GPL-3.0-or-later
"""``assay keys``: what an operator types and sees. The DNS is a small server that answers with authority."""

from __future__ import annotations

import re
from base64 import b64encode
from pathlib import Path
from types import SimpleNamespace

import dns.zone
import pytest

from assay.cli.main import main
from assay.inquiry import Outcome
from assay.keyring import Directory
from assay.keys.published import ServerAnswer
from assay.keys.rotation import KeyRing
from assay.protocol import dkim
from assay.resolver.authority import Authority
from signing import ed25519_key, pem, rsa_key

NOW = 1_790_000_000  # 2026-09-21
DAY = 86_400
NAME = "r20260921._domainkey.example.org"


class World:
    """A configuration, and what two authoritative servers publish."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configuration = folder / "assay.toml"
        self.published: dict[str, tuple[str, ...]] = {}
        self.now = NOW
        (folder / "keys").mkdir(mode=0o750)
        self.configure()

    def configure(self, keys: str = "", more: str = "") -> None:
        self.configuration.write_text(
            f'[dns]\nnameservers = "none"\n[keys]\ndirectory = "{self.folder}/keys"\nrsa_bits = 1024\n{keys}\n{more}'
        )

    def texts(self, name: str) -> tuple[ServerAnswer, ...]:
        texts = self.published.get(name)
        return tuple(
            ServerAnswer(server, Outcome.FOUND, tuple(text.encode() for text in texts))
            if texts
            else ServerAnswer(server, Outcome.NXDOMAIN)
            for server in ("ns1", "ns2")
        )

    def run(self, *arguments: str) -> int:
        return main(["keys", *arguments, "-c", str(self.configuration)])

    def directory(self, domain: str = "example.org") -> Directory:
        return Directory(self.folder / "keys" / domain)

    def states(self) -> dict[str, str]:
        return {key.selector: str(key.state) for key in self.directory().load().keys}

    def publish(self) -> None:
        """The operator pastes every record that is needed."""
        for key in self.directory().load().keys:
            self.published[f"{key.selector}._domainkey.example.org"] = (key.record,)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    tmp_path.chmod(0o755)
    made = World(tmp_path)
    monkeypatch.setattr("assay.cli.key_command.time", SimpleNamespace(time=lambda: made.now))
    monkeypatch.setattr(Authority, "texts", lambda _, name: made.texts(name))
    return made


def test_create_prints_the_record_for_the_zone_file(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run("create", "example.org") == 0
    out = capsys.readouterr().out
    assert out.startswith("example.org: create r20260921: the operator asks for a new key\n")
    start = out.index(f"{NAME}.")
    text = out[start : out.index(")", start) + 1]
    zone = dns.zone.from_text(text, origin="example.org", relativize=False, check_origin=False)
    (rdata,) = zone.find_rdataset(f"{NAME}.", "TXT")
    assert b"".join(rdata.strings).decode() == world.directory().load().keys[0].record
    assert "then run again: assay keys rotate --due" in out


@pytest.mark.parametrize(
    ("form", "line"), [("plain", "v=DKIM1; k=rsa; p="), ("provider", "Name:  r20260921._domainkey ")]
)
def test_other_forms_of_the_record(world: World, capsys: pytest.CaptureFixture[str], form: str, line: str) -> None:
    assert world.run("create", "example.org", "--form", form) == 0
    assert any(one.startswith(line) for one in capsys.readouterr().out.splitlines())


def test_a_key_signs_once_it_is_published_and_is_replaced_in_time(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.run("create", "example.org")
    assert world.states() == {"r20260921": "pending"}
    world.publish()
    assert world.run("rotate", "--due") == 0
    assert world.states() == {"r20260921": "active"}
    assert "example.org: activate r20260921: every authoritative server answers with it" in capsys.readouterr().out
    world.now += 180 * DAY
    world.run("rotate", "--due")
    world.publish()
    world.run("rotate", "--due")
    assert world.states() == {"r20260921": "retiring", "r20270320": "active"}
    world.now += 7 * DAY
    capsys.readouterr()
    world.run("rotate", "--due")
    assert f"example.org: remove {NAME} from the DNS: its record is still there, and may be removed" in (
        capsys.readouterr().out
    )
    assert not world.directory().key_file("r20260921").exists()
    del world.published[NAME]
    world.run("rotate", "--due")
    assert "example.org: close r20260921: its record is gone" in capsys.readouterr().out
    world.run("list")
    assert (
        "r20260921        rsa      retired   since 2027-03-27 14:13 UTC, its record is gone" in capsys.readouterr().out
    )


def test_rotate_by_hand_begins_a_rotation_and_then_continues_it(world: World) -> None:
    world.run("create", "example.org")
    world.publish()
    world.run("rotate", "--due")
    assert world.run("rotate", "example.org") == 0
    assert world.states() == {"r20260921": "active", "r20260921b": "pending"}
    assert world.run("rotate", "example.org") == 0
    assert world.states() == {"r20260921": "active", "r20260921b": "pending"}
    world.publish()
    assert world.run("rotate", "--due") == 0
    assert world.states() == {"r20260921": "retiring", "r20260921b": "active"}


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "code", "why"),
        [
            (("create", "a b"), 64, "'a b' is not a domain"),
            (("create", "example.org", "--selector", "../x"), 64, "'../x' is not a selector"),
            (("create", "example.org", "--bits", "512"), 64, "--bits 512: 1024 to 4096 are accepted everywhere"),
            (("create", "example.org", "--bits", "0"), 64, "--bits 0: 1024 to 4096 are accepted everywhere"),
            (("create", "example.org", "--type", "dsa"), 64, "dsa"),
            (
                ("retire", "example.org", "r20260921"),
                64,
                "no key that all verifiers know would sign mail of example.org",
            ),
            (("retire", "example.org", "other"), 64, "no key with the selector other; known are r20260921"),
            (("retire", "nowhere.example", "a"), 66, "no such file; make keys with: assay keys create nowhere.example"),
            (("list", "nowhere.example"), 66, "no such file; make keys with: assay keys create nowhere.example"),
            (("create", "example.org", "--selector", "R20260921"), 64, "has or had a key with the selector r20260921"),
            (("import", "example.org", "s", "/nowhere/key"), 66, "/nowhere/key: cannot be read: No such file"),
        ],
    )
    def test_each_is_one_sentence(
        self, world: World, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, why: str
    ) -> None:
        world.run("create", "example.org")
        world.publish()
        world.run("rotate", "--due")
        capsys.readouterr()
        try:
            ended = world.run(*arguments)
        except SystemExit as error:
            ended = int(error.code or 0)
        assert ended == code
        err = capsys.readouterr().err
        assert why in err
        assert "Traceback" not in err
        assert world.states() == {"r20260921": "active"}

    def test_a_second_pending_key(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        world.run("create", "example.org")
        assert world.run("create", "example.org") == 64
        assert "r20260921 is already pending; publish its record, then run: assay keys rotate example.org" in (
            capsys.readouterr().err
        )

    @pytest.mark.parametrize(
        ("keys", "why"),
        [
            ('publish_command = ["publish"]', "keys.publish_command: 'publish' is not an absolute path"),
            ('update_server = "192.0.2.1"', "keys.update_server: updates must be authenticated; set tsig_file"),
            ('tsig_file = "/x"', "keys.tsig_file: is never used; set update_server"),
            ('update_server = "ns1.example.org"\ntsig_file = "/x"', "'ns1.example.org' is not a nameserver address"),
            ('nameservers = ["x"]', "keys.nameservers: 'x' is not a nameserver address"),
            ('update_zone = "a b"', "keys.update_zone: 'a b' is not a zone"),
            (
                'update_server = "192.0.2.1"\nupdate_zone = "org"\ntsig_file = "/nowhere"',
                "keys.tsig_file: /nowhere: cannot",
            ),
            ("overlap_days = 0", "keys.overlap_days: expected an integer >= 1, not 0"),
            ('types = ["dsa"]', "keys.types: 'dsa' is not one of rsa, ed25519"),
            ("types = []", "keys.types: "),
        ],
    )
    def test_a_wrong_key_of_the_configuration(
        self, world: World, capsys: pytest.CaptureFixture[str], keys: str, why: str
    ) -> None:
        world.configure(keys)
        assert world.run("create", "example.org") == 78
        assert why in capsys.readouterr().err

    def test_a_directory_that_is_not_there(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        (world.folder / "keys").rmdir()
        assert world.run("create", "example.org") == 66
        assert f"{world.folder}/keys: No such file or directory; make it for the daemon: install -d" in (
            capsys.readouterr().err
        )

    def test_a_program_that_fails(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        world.configure('publish_command = ["/bin/false"]')
        assert world.run("create", "example.org") == 69
        assert f"assay keys: example.org: /bin/false add {NAME}: exit code 1: no output" in capsys.readouterr().err
        assert world.states() == {"r20260921": "pending"}


class TestSeveralDomains:
    def test_what_is_wrong_with_one_does_not_keep_the_others_from_rotating(
        self, world: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for domain in ("a.example", "b.example", "example.org"):
            world.run("create", domain)
        world.publish()
        world.directory("a.example").state.write_bytes(b"{")
        world.directory("b.example").key_file("r20260921").unlink()
        assert world.run("rotate", "--due") == 66
        assert world.states() == {"r20260921": "active"}
        err = capsys.readouterr().err
        assert f"assay keys: {world.directory('a.example').state}: not a state file" in err
        assert "Traceback" not in err
        assert world.run("check") == 66
        assert f"{NAME} (active): every authoritative server answers with it" in capsys.readouterr().out
        assert world.run("list") == 66

    @pytest.mark.parametrize("unseen", ["keys", "keys/example.org"])
    @pytest.mark.parametrize("verb", ["list", "check", "rotate --due", "check example.org", "list example.org"])
    def test_keys_that_cannot_be_seen_are_not_missing_keys(
        self, world: World, capsys: pytest.CaptureFixture[str], unseen: str, verb: str
    ) -> None:
        """Otherwise a run as the wrong user looks as if nothing were due. The loop fails for root too."""
        world.run("create", "example.org")
        path = world.folder / unseen
        path.rename(world.folder / "elsewhere")
        path.symlink_to(path)
        capsys.readouterr()
        assert world.run(*verb.split()) == 66
        said = capsys.readouterr()
        assert re.fullmatch(rf"assay keys: {path}\S*: cannot be \w+: Too many levels of symbolic links\n", said.err)
        assert said.out == ""

    def test_keys_that_cannot_be_read_hide_no_domain_without_keys(
        self, world: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for domain in ("a.example", "b.example", "example.org"):
            world.run("create", domain)
        world.directory("a.example").state.write_bytes(b"{")
        empty = world.directory("b.example")
        empty.save(KeyRing(empty.load().domain, ()))
        capsys.readouterr()
        assert world.run("check", "a.example", "b.example", "c.example") == 66
        unread, *others = capsys.readouterr().err.splitlines()
        assert unread.startswith(f"assay keys: {world.directory('a.example').state}: not a state file")
        assert others == [
            f"assay keys: {domain}: it has no keys; make some with: assay keys create {domain}"
            for domain in ("b.example", "c.example")
        ]

    def test_a_disk_that_is_full_is_reported_for_each(
        self, world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for domain in ("b.example", "example.org"):
            world.run("create", domain)
        world.published[NAME.replace("example.org", "b.example")] = (
            world.directory("b.example").load().keys[0].record,
        )
        world.publish()

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("assay.files.os.fsync", full)
        assert world.run("rotate", "--due") == 74
        assert capsys.readouterr().err.count("No space left on device") == 2
        assert world.states() == {"r20260921": "pending"}


class TestRetire:
    def test_a_stolen_key_is_retired_at_once(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        world.run("create", "example.org")
        world.publish()
        world.run("rotate", "--due")
        assert world.run("retire", "example.org", "r20260921", "--at-once") == 0
        assert world.states() == {"r20260921": "retired"}
        assert not world.directory().key_file("r20260921").exists()
        assert f"remove {NAME} from the DNS" in capsys.readouterr().out


class TestImport:
    def key_file(self, world: World, content: bytes) -> str:
        path = world.folder / "mail.private"
        path.touch(0o600)
        path.write_bytes(content)
        return str(path)

    def test_a_published_key_signs_at_once(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        """OpenDKIM's file, with the record that opendkim-genkey made."""
        world.published["mail._domainkey.example.org"] = (f"v=DKIM1; h=sha256; {dkim.record_of(rsa_key())[9:]}",)
        path = self.key_file(world, pem(rsa_key()))
        assert world.run("import", "example.org", "mail", path) == 0
        assert world.states() == {"mail": "active"}
        assert f"example.org: import mail: 2048 bits, from {path}" in capsys.readouterr().out
        before = world.directory().state.read_bytes()
        assert world.run("import", "example.org", "mail", path) == 0
        assert world.directory().state.read_bytes() == before

    def test_a_key_of_dkimpy(self, world: World) -> None:
        path = self.key_file(world, b64encode(ed25519_key().private_bytes_raw()))
        assert world.run("import", "example.org", "mail", path) == 0
        assert world.states() == {"mail": "pending"}
        assert world.directory().load().keys[0].record == dkim.record_of(ed25519_key())

    def test_another_key_under_a_known_selector(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        world.run("import", "example.org", "mail", self.key_file(world, pem(rsa_key())))
        assert world.run("import", "example.org", "mail", self.key_file(world, pem(rsa_key(1024)))) == 66
        assert "mail is the selector of another key; use another one" in capsys.readouterr().err

    def test_a_key_that_anyone_can_read(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        path = self.key_file(world, pem(rsa_key()))
        Path(path).chmod(0o644)
        assert world.run("import", "example.org", "mail", path) == 66
        assert f"{path}: anyone can read it (mode 0644); run: chmod 0640 {path}" in capsys.readouterr().err

    def test_all_keys_of_an_opendkim_key_table(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        path = self.key_file(world, pem(rsa_key()))
        table = world.folder / "KeyTable"
        table.write_text(
            f"# ours\nmail._domainkey.example.org example.org:mail:{path}\nall %:mail:/etc/keys/%/mail.private\n"
            f"net example.net:s2:/nowhere/key\nother example.com:s3:{path}\n"
        )
        world.published["mail._domainkey.example.org"] = (dkim.record_of(rsa_key()),)
        assert world.run("import", "--key-table", f"refile:{table}") == 66
        assert world.states() == {"mail": "active"}
        assert [key.selector for key in world.directory("example.com").load().keys] == ["s3"]
        err = capsys.readouterr().err
        assert f"{table}:3: % stands for many domains; import the key of each" in err
        assert f"{table}:4: /nowhere/key: cannot be read: No such file or directory" in err
        assert world.run("import", "--key-table", f"{table}") == 66
        assert world.states() == {"mail": "active"}

    @pytest.mark.parametrize(
        ("arguments", "code", "why"),
        [
            ((), 64, "import DOMAIN SELECTOR FILE, or import --key-table FILE"),
            (("example.org", "s"), 64, "import DOMAIN SELECTOR FILE, or import --key-table FILE"),
            (("--key-table", "/nowhere"), 66, "/nowhere: cannot be read: No such file or directory"),
            (("--key-table", "KeyTable"), 66, "for a file, write file:KeyTable"),
            (("--key-table", "file:KeyTable"), 66, "KeyTable: cannot be read: No such file or directory"),
            (("--key-table", "dsn:x"), 66, "data sets of the kind dsn: are not supported"),
            (("--key-table", "/x", "example.org"), 64, "--key-table names all domains, selectors and files"),
        ],
    )
    def test_what_is_wrong_with_the_arguments(
        self, world: World, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, why: str
    ) -> None:
        assert world.run("import", *arguments) == code
        assert why in capsys.readouterr().err

    def test_a_file_that_is_not_a_key(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        path = self.key_file(world, b"hello\n")
        assert world.run("import", "example.org", "mail", path) == 66
        assert (
            f"{path}: not a private key: neither PEM, DER nor the base64 of an Ed25519 key" in capsys.readouterr().err
        )


class TestCheck:
    def sign_with(self, world: World, row: str) -> None:
        world.configure(more=f'[[sign.domain]]\ndomain = "example.org"\n{row}\n')

    def test_all_is_well(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        world.run("create", "example.org")
        world.publish()
        world.run("rotate", "--due")
        self.sign_with(world, f'key_directory = "{world.folder}/keys/example.org"')
        capsys.readouterr()
        assert world.run("check") == 0
        assert capsys.readouterr().out == f"{NAME} (active): every authoritative server answers with it\n"

    def test_a_key_file_of_the_configuration(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        path = world.folder / "key.pem"
        path.touch(0o600)
        path.write_bytes(pem(rsa_key()))
        self.sign_with(world, f'selectors = ["s1"]\nkey_files = ["{path}"]')
        assert world.run("check") == 1
        assert capsys.readouterr().out.splitlines() == [
            "s1._domainkey.example.org (sign.domain 1): NOT PUBLISHED",
            "    ns1: the name does not exist; publish the record",
            "    ns2: the name does not exist; publish the record",
        ]
        world.published["s1._domainkey.example.org"] = (dkim.record_of(rsa_key()),)
        assert world.run("check") == 0
        assert world.run("check", "example.org") == 0
        capsys.readouterr()
        assert world.run("check", "other.example") == 66
        assert "other.example: it has no keys; make some with: assay keys create" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("row", "good"),
        [
            ("", True),
            ('identity = "author"', True),
            ('identity = "author"\nsubdomains = true', False),
            ('identity = "@mail.example.org"', False),
            ('identity = "@example.org"\nsubdomains = true', True),
        ],
    )
    def test_a_strict_key_and_identities_in_subdomains(
        self, world: World, capsys: pytest.CaptureFixture[str], row: str, good: bool
    ) -> None:
        world.run("create", "example.org")
        world.publish()
        world.run("rotate", "--due")
        world.published[NAME] = (world.published[NAME][0].replace("k=rsa;", "k=rsa; t=s;"),)
        self.sign_with(world, f'key_directory = "{world.folder}/keys/example.org"\n{row}')
        capsys.readouterr()
        assert world.run("check") == (0 if good else 1)
        assert ("t=s forbids signatures whose i= is in a subdomain of d=" in capsys.readouterr().out) is not good

    def test_a_wrong_record_is_named_by_its_selector(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        world.configure('types = ["rsa", "ed25519"]')
        world.run("create", "example.org")
        world.publish()
        world.run("rotate", "--due")
        world.published[NAME] = world.published["e20260921._domainkey.example.org"]
        capsys.readouterr()
        assert world.run("check", "example.org") == 1
        assert "    ns1: k= says ed25519, but our key is rsa; publish the record" in capsys.readouterr().out

    def test_a_domain_that_signs_with_a_key_that_is_pending(
        self, world: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The daemon would not start; what is missing is what the check is for."""
        world.run("create", "example.org")
        self.sign_with(world, f'key_directory = "{world.folder}/keys/example.org"')
        capsys.readouterr()
        assert world.run("check") == 78
        printed = capsys.readouterr()
        assert "has no active key, so mail of example.org would be unsigned" in printed.err
        assert f"{NAME} (pending): NOT PUBLISHED" in printed.out

    def test_nothing_to_check(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        assert world.run("check") == 0
        assert "no keys; make some with: assay keys create DOMAIN" in capsys.readouterr().out


def test_list_says_how_to_begin(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run("list") == 0
    assert f"no keys in {world.folder}/keys; make some with: assay keys create DOMAIN" in capsys.readouterr().out
    assert world.run("rotate", "--due") == 0
    assert capsys.readouterr().out == f"no keys in {world.folder}/keys; make some with: assay keys create DOMAIN\n"


def test_a_file_beside_the_directories_of_domains_is_no_domain(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.run("create", "example.org")
    (world.folder / "keys" / "README").touch()
    capsys.readouterr()
    assert world.run("list") == 0
    assert capsys.readouterr().err == ""


def test_list_shows_a_broken_key(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.run("create", "example.org")
    world.directory().key_file("r20260921").write_bytes(b"hello")
    assert world.run("list") == 66
    assert "r20260921.pem: not a private key in PEM without a password" in capsys.readouterr().err


def test_the_forms_can_be_listed_again(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.run("create", "example.org")
    capsys.readouterr()
    assert world.run("list", "--form", "plain") == 0
    assert world.directory().load().keys[0].record in capsys.readouterr().out.splitlines()
