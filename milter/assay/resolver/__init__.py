# SPDX-License-Identifier: GPL-3.0-or-later
"""Floor 5, the resolver: answers the evaluators' questions from a local zone, a cache and the DNS.

::

    resolver = Resolver(configured(["system"]))     # in the worker, after the fork
    driver = resolver.driver(budget_seconds=20)     # one per message
    pending = driver.start(evaluator())             # returns at once
    evaluation = pending.result()                   # at most until the budget is spent
    resolver.close()

`authority` and `update` are for commands of the operator, and not imported here: a worker needs neither.

Only this package imports dnspython. It does not validate DNSSEC: it can trust a resolver that does.
"""

from assay.resolver.budget import Allowance
from assay.resolver.cache import AnswerCache
from assay.resolver.driver import BudgetDriver, Observer
from assay.resolver.nameservers import SYSTEM, Nameserver, NameserverError, configured
from assay.resolver.nameservers import parse as parse_nameserver
from assay.resolver.resolv_conf import ResolvConf
from assay.resolver.service import Resolver
from assay.resolver.statistics import Statistics, Watch, unwatched
from assay.resolver.tls import CertificatesError, Contexts, contexts
from assay.resolver.transport import MakeRoom, no_room
from assay.resolver.zone import LocalZone, ZoneError

__all__ = [
    "SYSTEM",
    "Allowance",
    "AnswerCache",
    "BudgetDriver",
    "CertificatesError",
    "Contexts",
    "LocalZone",
    "MakeRoom",
    "Nameserver",
    "NameserverError",
    "Observer",
    "ResolvConf",
    "Resolver",
    "Statistics",
    "Watch",
    "ZoneError",
    "configured",
    "contexts",
    "no_room",
    "parse_nameserver",
    "unwatched",
]
