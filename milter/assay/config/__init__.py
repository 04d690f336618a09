# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration: one TOML file, decoded into typed structs. `configuration` lists all keys with their reasons."""

from assay.config.build import (
    check_metrics,
    check_store,
    check_web,
    make_policy,
    make_resolver,
    make_settings,
    make_trust,
)
from assay.config.configuration import Configuration
from assay.config.correspondence import check_reports
from assay.config.forwarding import make_rewriting
from assay.config.load import ConfigError, load
from assay.config.risks import risks
from assay.config.sample import sample, show

__all__ = [
    "ConfigError",
    "Configuration",
    "check_metrics",
    "check_reports",
    "check_store",
    "check_web",
    "load",
    "make_policy",
    "make_resolver",
    "make_rewriting",
    "make_settings",
    "make_trust",
    "risks",
    "sample",
    "show",
]
