# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn a configuration into the settings of the floors below, with files read, names resolved and text parsed."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from assay import files, policy, resolver, session, trace
from assay.config.configuration import Configuration
from assay.config.forwarding import make_rewriting, make_sealing
from assay.config.methods import SenderidSection, SpfSection
from assay.config.responses import RuleSection, split_field
from assay.config.section import SettingError, parse_domain, parse_domain_entries, parse_entries, require
from assay.config.signing import make_signing
from assay.config.site import AddressesSection
from assay.config.web import read_token
from assay.keys import Signing
from assay.model.name import Domain, InvalidNameError
from assay.model.network import Networks
from assay.model.smtp import parse_address
from assay.packages import installing
from assay.policy import Action, Edits, Stage, outcomes
from assay.policy.addresses import Entries
from assay.policy.vocabulary import known_from
from assay.protocol import dkim, dmarc, senderid, spf

#: The section with each method's actions.
_METHODS: dict[str, Callable[[Configuration], msgspec.Struct]] = {
    "iprev": lambda configuration: configuration.iprev,
    "spf.helo": lambda configuration: configuration.spf.helo,
    "spf.mailfrom": lambda configuration: configuration.spf.mailfrom,
    "dkim": lambda configuration: configuration.dkim,
    "arc": lambda configuration: configuration.arc,
    "senderid": lambda configuration: configuration.senderid,
    "dmarc": lambda configuration: configuration.dmarc.in_force,
}
#: Keys that hold an action but are not outcomes.
_NO_OUTCOMES = ("list_traffic",)


def make_resolver(
    configuration: Configuration,
    tell: Callable[[str], None] = lambda _: None,
    watch: resolver.Watch = resolver.unwatched,
    make_room: resolver.MakeRoom = resolver.no_room,
) -> resolver.Resolver:
    """A resolver, with its zone read. Close it when done.

    :param tell: gets a message when a nameserver stops answering, when it answers again, and when the system's
        nameservers change.
    :param watch: gets each query to a nameserver that has ended.
    :param make_room: called when no descriptor is left for a socket; returns whether there is one now.
    :raises ValueError: the zone file cannot be read or is invalid, with file and line; or encrypted nameservers lack
        certificates or a library.
    """
    dns = configuration.dns
    nameservers = resolver.configured(dns.nameserver_texts)
    try:
        zone = resolver.LocalZone.load(Path(dns.zone), authoritative=not nameservers) if dns.zone else None
    except resolver.ZoneError as error:
        raise SettingError("dns.zone", str(error)) from error
    return resolver.Resolver(
        nameservers,
        zone=zone,
        cache=resolver.AnswerCache(dns.cache_entries, stale_seconds=dns.stale_seconds),
        patience=dns.timeout_seconds,
        trust_ad=dns.trust_ad,
        resolv_conf=resolver.ResolvConf(tell) if dns.nameserver_texts == (resolver.SYSTEM,) else None,
        tell=tell,
        watch=watch,
        contexts=dns.contexts(nameservers),
        random_case=dns.random_case,
        make_room=make_room,
    )


def check_metrics(configuration: Configuration) -> None:
    """Check that the figures can be served.

    :raises ValueError: the library for it is not installed.
    """
    if configuration.metrics.listen:
        require("metrics.listen", {"prometheus_client": "prometheus_client"})


def check_store(configuration: Configuration) -> None:
    """Check that what `[store]` asks for can be loaded.

    :raises ValueError: a library for it is not installed.
    """
    section = configuration.store
    if not section.directory:
        return
    if section.database:
        packages = {"sqlalchemy": "SQLAlchemy", "alembic": "alembic"}
        if section.database != "sqlite":
            packages["psycopg"] = "psycopg[binary]"
        require("store.database", packages)
    if section.broker:
        require("store.broker", {"aio_pika": "aio-pika"})


def check_web(configuration: Configuration) -> None:
    """Check that the page can be served.

    :raises ValueError: a library for it is not installed, it has nothing to show, or its token cannot be used.
    """
    if not configuration.web.listen:
        return
    require("web.listen", {"starlette": "starlette", "jinja2": "jinja2", "uvicorn": "uvicorn"})
    if not configuration.store.location:
        raise SettingError("web.listen", "it shows what the store has, and there is no database; set store.directory")
    read_token(configuration.web)


def make_trust(configuration: Configuration) -> policy.Trust:
    """Build the rules for whose mail is not judged, for the session.

    :raises ValueError: an entry that could never match.
    """
    clients = configuration.clients
    return policy.Trust(
        internal=Networks.parse(clients.internal),
        relays=Networks.parse(clients.relays),
        relay_names=frozenset(Domain.parse_host(name).name for name in clients.relay_names),
        trusted_results=Networks.parse(clients.trusted_results),
        daemon_names=frozenset(clients.daemon_names),
        judge_authenticated=clients.judge_authenticated,
        exempt_senders=_mailboxes("clients.exempt_senders", clients.exempt_senders, configuration.addresses),
        exempt_recipients=_mailboxes("clients.exempt_recipients", clients.exempt_recipients, configuration.addresses),
    )


def make_settings(configuration: Configuration) -> session.Settings:
    """Build the settings for the evaluation of a message.

    :raises ValueError: an unreadable list, an invalid rule or domain, or the public suffix list is configured but not
        installed.
    """
    signing = make_signing(configuration)
    decisions = make_policy(configuration)
    _check_sign_rules(decisions, signing)
    rewriting, sealing = make_rewriting(configuration.srs), make_sealing(configuration.arc)
    if decisions.forward_rules and rewriting is None and sealing is None:
        name = decisions.forward_rules[0].name
        raise ValueError(
            f"rule {name!r}: forward: nothing is done with forwarded mail; configure [srs] or [[arc.seal]]"
        )
    return session.Settings(
        authserv_id=configuration.identity.authserv_id,
        fallback_authserv_id=socket.gethostname(),
        further_authserv_ids=configuration.identity.strip,
        trace=trace.Wanted(
            received_spf=configuration.headers.received_spf,
            received_spf_local_part=configuration.headers.received_spf_local_part,
            arc_none=configuration.arc.write_none,
            hide_none=configuration.headers.hide_none,
            single_spf=configuration.headers.single_spf,
            authenticated=configuration.headers.authenticated,
        ),
        iprev=configuration.iprev.enabled,
        spf_limits=spf_limits(configuration.spf),
        spf_seconds=configuration.spf.seconds or None,
        spf_best_guess=configuration.spf.best_guess.encode(),
        spf_explanations=configuration.replies.explain and not configuration.replies.generic,
        dkim=dkim.SignatureRules(
            min_rsa_bits=configuration.dkim.min_rsa_bits,
            max_signatures=configuration.dkim.max_signatures,
            single_fields=configuration.dkim.single_fields,
            test_mode_counts=configuration.dkim.test_mode_counts,
        ),
        arc=configuration.arc.enabled,
        arc_max_sets=configuration.arc.max_sets,
        sender_id=_sender_id(configuration.senderid),
        public_suffix=public_suffix(configuration.dmarc.organizational_domain),
        legacy_pct=configuration.dmarc.legacy_pct,
        signing=signing,
        rewriting=rewriting,
        sealing=sealing,
        policy=decisions,
        dry_run=configuration.milter.dry_run,
        dry_run_headers=configuration.milter.dry_run_headers,
    )


def _check_sign_rules(decisions: policy.Policy, signing: Signing | None) -> None:
    for rule in decisions.sign_rules:
        if signing is None:
            raise ValueError(f"rule {rule.name!r}: sign: nothing can sign; write a [[sign.domain]] with its keys")
        if isinstance(rule.sign, Domain) and not signing.signs_as(rule.sign):
            near = signing.nearest(rule.sign)
            hint = f"; did you mean {near}?" if near else "; write a [[sign.domain]] with its keys"
            raise ValueError(f"rule {rule.name!r}: sign: no table of [sign] has {rule.sign}{hint}")


def make_policy(configuration: Configuration) -> policy.Policy:
    """The operator's decisions, rules compiled and lists read.

    :raises ValueError: see `make_settings`.
    """
    addresses = configuration.addresses
    lists = {name: _read_list(name, Path(path), addresses) for name, path in configuration.lists.items()}
    forwarders = Networks.parse(configuration.clients.trusted_forwarders)
    settings = outcomes.OutcomeSettings(
        strict_spf_domains=parse_domain_entries("spf.strict_domains", configuration.spf.strict_domains),
        stricter_dmarc=parse_domain_entries("dmarc.stricter_domains", configuration.dmarc.stricter_domains),
        required_fields=_lower(configuration.dkim.required_fields),
        iprev_names=configuration.iprev.names_in_mail_from,
        list_traffic=configuration.dmarc.list_traffic,
        trusted_forwarder=lambda text: (
            (address := parse_address(text)) is not None and forwarders.find(address) is not None
        ),
    )
    sections = {name: section(configuration) for name, section in _METHODS.items()}
    stages = {name: getattr(section, "stage", Stage.EOM) for name, section in sections.items()}
    for name, stage in stages.items():
        _, known = known_from(name)
        if stage.rank < known.rank:
            raise SettingError(f"{name}.stage", f"{stage.value!r} is too early; write {known.value} or a later stage")
    return policy.Policy(
        rules=tuple(_rule(rule, lists, exact=addresses.exact_local_parts) for rule in configuration.rule),
        methods=policy.methods(
            {name: _actions(section) for name, section in sections.items()},
            stages,
            frozenset(name for name, section in sections.items() if getattr(section, "dry_run", False)),
            settings,
        ),
        replies=policy.ReplyTexts(
            configuration.replies.texts, configuration.replies.generic, configuration.replies.explain
        ),
        lists=lists,
        exact_local_parts=addresses.exact_local_parts,
        tag=_tag(configuration),
        trusted_sealers=frozenset(
            parse_domain("arc.trusted_sealers", text.lstrip(".")) for text in configuration.arc.trusted_sealers
        ),
        logs_facts=configuration.log.facts != "",
    )


def _actions(section: msgspec.Struct) -> dict[str, Action]:
    """The actions of a method, by outcome."""
    return {
        field.name: value
        for field in msgspec.structs.fields(section)
        if isinstance(value := getattr(section, field.name), Action) and field.name not in _NO_OUTCOMES
    }


def _tag(configuration: Configuration) -> Edits:
    headers = configuration.headers
    return Edits(add=(split_field(headers.tag_field),) if headers.tag_field else (), subject_tag=headers.tag_subject)


def _rule(rule: RuleSection, lists: policy.Lists, *, exact: bool) -> policy.Rule:
    try:
        if rule.action is not None and rule.action.refuses:
            try:
                policy.check_reply("rule", policy.split_reply(rule.reply, rule.action)[2])
            except ValueError as error:
                raise SettingError("reply", str(error)) from error
        elif rule.reply:
            raise SettingError("reply", f"{rule.reply!r} is never sent; write action = 'reject' or 'tempfail'")
        edits = Edits(
            tuple(map(split_field, rule.add_fields)), rule.remove_fields, rule.tag_subject, rule.add_recipients
        )
        return policy.compile_rule(
            policy.Rule(
                rule.name,
                rule.stage,
                rule.when,
                rule.action,
                rule.reply,
                rule.reason,
                edits,
                rule.dry_run,
                _signer(rule.sign),
                rule.forward,
            ),
            lists,
            exact=exact,
        )
    except ValueError as error:
        raise ValueError(f"rule {rule.name!r}: {error}") from error


def _signer(sign: bool | str | None) -> bool | Domain | None:
    if not isinstance(sign, str):
        return sign
    try:
        return Domain.parse_host(sign)
    except InvalidNameError as error:
        raise SettingError("sign", f"{sign!r} is not a domain: {error}; write one, or true or false") from error


def _read_list(name: str, path: Path, addresses: AddressesSection) -> Entries:
    """Read a list file: one entry per line; ``#`` begins a comment."""
    try:
        text = files.read_text(path)
    except OSError as error:
        raise SettingError(f"lists.{name}", f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingError(f"lists.{name}", f"{path}: {files.not_text(error)}") from error
    lines = [(number, line.partition("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1)]
    entries: dict[str, int] = {}
    for number, line in lines:
        if line:
            entries.setdefault(line, number)
    try:
        return _entries("", entries, addresses)
    except ValueError:
        for entry, number in entries.items():  # find the wrong one
            _entries(f"lists.{name}: {path}:{number}", (entry,), addresses)
        raise


def _mailboxes(key: str, texts: tuple[str, ...], addresses: AddressesSection) -> Entries:
    """Addresses and domains of senders or recipients."""
    entries = _entries(key, texts, addresses)
    if odd := [entry for entry in entries.addresses if "@" not in entry]:
        raise SettingError(key, f"{odd[0]!r} is an IP address; write a mail address or a domain")
    return entries


def _entries(key: str, texts: Iterable[str], addresses: AddressesSection) -> Entries:
    return parse_entries(key, texts, exact=addresses.exact_local_parts, delimiters=addresses.subaddress_delimiters)


def _lower(texts: tuple[str, ...]) -> frozenset[str]:
    return frozenset(text.lower() for text in texts)


def _sender_id(section: SenderidSection) -> senderid.Spf1 | None:
    """How v=spf1 records count; None if Sender ID is not checked."""
    if not section.enabled:
        return None
    return senderid.Spf1.FALLBACK if section.use_spf1 else senderid.Spf1.IGNORE


def spf_limits(section: SpfSection) -> spf.Limits:
    """What one check of SPF may ask (RFC 7208, 4.6.4)."""
    return spf.Limits(
        dns_terms=section.dns_terms, void_lookups=section.void_lookups, nested_includes=section.nested_includes
    )


def public_suffix(method: dmarc.DiscoveryMethod) -> dmarc.PublicSuffix | None:
    """What finds organizational domains instead of the tree walk; None for the tree walk.

    :raises SettingError: the package with the list is not installed.
    """
    if method is dmarc.DiscoveryMethod.TREEWALK:
        return None
    if command := installing(publicsuffixlist="publicsuffixlist"):
        raise SettingError("dmarc.organizational_domain", f"'psl' needs Python packages; run: {command}")
    from publicsuffixlist import PublicSuffixList  # few need it, and it is large

    suffixes = PublicSuffixList()
    return lambda name: suffixes.publicsuffix(name)
