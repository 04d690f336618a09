# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the Grafana dashboard, ``contrib/grafana/assay.json``.

python contrib/write-dashboard.py

Import it in Grafana and choose the Prometheus that scrapes assay. A test runs each query against a real Prometheus.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).parent / "grafana" / "assay.json"
_WHERE = '{instance=~"$instance"}'

#: Title, unit, kind of panel, and queries with their legends. Two panels a row.
PANELS: tuple[tuple[str, str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Workers that serve", "none", "stat", ((f"sum by (instance) (assay_workers{_WHERE})", "{{instance}}"),)),
    (
        "Up since",
        "dateTimeFromNow",
        "stat",
        ((f"1000 * max by (instance) (assay_start_time_seconds{_WHERE})", "{{instance}}"),),
    ),
    (
        "Messages by action",
        "ops",
        "timeseries",
        ((f"sum by (action) (rate(assay_verdicts_total{_WHERE}[$__rate_interval]))", "{{action}}"),),
    ),
    (
        "What decided",
        "ops",
        "timeseries",
        ((f"sum by (by, action) (rate(assay_decisions_total{_WHERE}[$__rate_interval]))", "{{by}} {{action}}"),),
    ),
    *(
        (
            f"Results of {method}",
            "ops",
            "timeseries",
            (
                (
                    f'sum by (result) (rate(assay_results_total{{method="{method}",instance=~"$instance"}}'
                    "[$__rate_interval]))",
                    "{{result}}",
                ),
            ),
        )
        for method in ("dmarc", "dkim", "spf.mailfrom", "spf.helo", "arc", "iprev")
    ),
    (
        "Mail of your own, by whether it is signed",
        "ops",
        "timeseries",
        ((f"sum by (signed) (rate(assay_outgoing_total{_WHERE}[$__rate_interval]))", "signed: {{signed}}"),),
    ),
    (
        "Forwarded mail: rewritten, turned back, sealed",
        "ops",
        "timeseries",
        ((f"sum by (act) (rate(assay_forwarded_total{_WHERE}[$__rate_interval]))", "{{act}}"),),
    ),
    (
        "How long a message waits",
        "s",
        "timeseries",
        tuple(
            (
                f"histogram_quantile({share}, sum by (le) "
                f"(rate(assay_message_wait_seconds_bucket{_WHERE}[$__rate_interval])))",
                f"{share:.0%}",
            )
            for share in (0.5, 0.9, 0.99)
        ),
    ),
    (
        "Waiting by stage, 99 %",
        "s",
        "timeseries",
        (
            (
                f"histogram_quantile(0.99, sum by (le, stage) "
                f"(rate(assay_wait_seconds_bucket{_WHERE}[$__rate_interval])))",
                "{{stage}}",
            ),
        ),
    ),
    (
        "Questions to the DNS, by where the answer came from",
        "ops",
        "timeseries",
        ((f"sum by (source) (rate(assay_dns_questions_total{_WHERE}[$__rate_interval]))", "{{source}}"),),
    ),
    (
        "Queries to nameservers",
        "ops",
        "timeseries",
        (
            (
                f"sum by (server, transport, outcome) (rate(assay_dns_queries_total{_WHERE}[$__rate_interval]))",
                "{{server}} {{transport}} {{outcome}}",
            ),
        ),
    ),
    (
        "How long nameservers take, 99 %",
        "s",
        "timeseries",
        (
            (
                f"histogram_quantile(0.99, sum by (le, server) "
                f"(rate(assay_dns_query_seconds_bucket{_WHERE}[$__rate_interval])))",
                "{{server}}",
            ),
        ),
    ),
    (
        "Nameservers that answer, and slow domains",
        "none",
        "timeseries",
        (
            (f"sum by (server) (assay_dns_nameserver_up{_WHERE})", "workers for which {{server}} answers"),
            (f"sum (assay_dns_slow_names{_WHERE})", "slow domains"),
        ),
    ),
    (
        "Reports, by what came of each try",
        "none",
        "timeseries",
        (
            (f"sum by (outcome) (increase(assay_reports_tried_total{_WHERE}[$__rate_interval]))", "{{outcome}}"),
            (f"sum by (reason) (increase(assay_reports_withheld_total{_WHERE}[$__rate_interval]))", "none: {{reason}}"),
        ),
    ),
    (
        "Reports that wait, and how long the oldest does",
        "none",
        "timeseries",
        (
            (f"sum (assay_reports_waiting{_WHERE})", "reports"),
            (f"max (assay_reports_waiting_seconds{_WHERE}) / 3600", "hours"),
        ),
    ),
    ("Open sessions", "none", "timeseries", ((f"sum by (instance) (assay_sessions{_WHERE})", "{{instance}}"),)),
    (
        "Trouble",
        "none",
        "timeseries",
        (
            (f"sum (increase(assay_exceptions_total{_WHERE}[$__rate_interval]))", "bugs"),
            (f"sum (increase(assay_deaths_total{_WHERE}[$__rate_interval]))", "deaths of processes"),
            (f"sum (increase(assay_log_lines_lost_total{_WHERE}[$__rate_interval]))", "lost log lines"),
            (f"sum by (result) (increase(assay_reloads_total{_WHERE}[$__rate_interval]))", "reload {{result}}"),
        ),
    ),
)
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> dict[str, Any]:
    """The whole dashboard, as Grafana imports it."""
    return {
        "title": "assay",
        "uid": "assay",
        "schemaVersion": 38,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                {
                    "name": "instance",
                    "type": "query",
                    "datasource": _SOURCE,
                    "query": "label_values(assay_workers, instance)",
                    "includeAll": True,
                    "multi": True,
                    "allValue": ".*",
                },
            ]
        },
        "panels": [
            {
                "id": number + 1,
                "title": title,
                "type": kind,
                "datasource": _SOURCE,
                "gridPos": {"x": 12 * (number % 2), "y": 8 * (number // 2), "w": 12, "h": 8},
                "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
                "targets": [
                    {"refId": chr(ord("A") + place), "expr": query, "legendFormat": legend, "datasource": _SOURCE}
                    for place, (query, legend) in enumerate(queries)
                ],
            }
            for number, (title, unit, kind, queries) in enumerate(PANELS)
        ],
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(dashboard(), indent=2) + "\n")
