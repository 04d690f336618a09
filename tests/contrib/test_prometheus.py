# SPDX-License-Identifier: GPL-3.0-or-later
"""The dashboard and the alerts, with a real Prometheus that scrapes a real daemon; and logrotate with real files.

The programs are those unpacked by ``contrib/fetch.sh`` (or in `ASSAY_PROMETHEUS`).
"""

from __future__ import annotations

import http
import json
import os
import re
import runpy
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from running import PATIENCE, Daemon
from sending import BAD, ROWS, greet, message, send
from signing import pem, rsa_key

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(os.environ.get("ASSAY_PROMETHEUS") or ROOT / ".cache" / "prometheus")
CONTRIB = ROOT / "contrib"
OURS = "192.0.2.10"  # a host of ours
RULES = CONTRIB / "prometheus" / "assay.rules.yml"
DASHBOARD = CONTRIB / "grafana" / "assay.json"
ALERTS = re.findall(r"- alert: (\w+)", RULES.read_text())

pytestmark = pytest.mark.skipif(
    not (PROGRAMS / "usr/bin/prometheus").exists(),
    reason=f"no prometheus in {PROGRAMS}: run sh contrib/fetch.sh prometheus",
)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that has scraped a daemon through which messages go."""
    folder = tmp_path_factory.mktemp("prometheus")
    ours, its = free_port(), free_port()
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: [{RULES}]\n"
        f"scrape_configs: [{{job_name: assay, static_configs: [{{targets: ['127.0.0.1:{ours}']}}]}}]\n"
    )
    line = [
        *(
            PROGRAMS / "usr/bin/prometheus",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
        ),
        *(f"--web.listen-address=127.0.0.1:{its}", "--log.level=error"),
    ]
    rule = {"name": "watched", "when": "true", "action": "tag", "dry_run": True}
    sections: dict[str, Any] = {
        "metrics": {"listen": f"inet:{ours}@127.0.0.1"},
        "dmarc": {"reject": "reject"},
        "iprev": {"stage": "connect", "fail": "reject"},
        "clients": {"internal": (OURS,)},
        "srs": {"domain": "srs.example", "secrets_file": str(folder / "secrets"), "own_domains": ("ours.example",)},
        "sign": {"domain": ({"domain": "ours.example", "selectors": ("s",), "key_directory": str(folder)},)},
    }
    sections["store"] = {"directory": str(folder / "store")}
    sections["reports"] = {"organization": "Ours", "contact": "dmarc@ours.example"}
    (folder / "store").mkdir()
    for name, content in (("secrets", b"a secret for the tests"), ("s.pem", pem(rsa_key()))):
        (folder / name).touch(0o600)
        (folder / name).write_bytes(content)
    with (
        Daemon(folder, ROWS, rule=[rule], **sections) as daemon,
        subprocess.Popen([*map(str, line)]) as process,
    ):
        try:
            deadline = time.monotonic() + 3 * PATIENCE
            while time.monotonic() < deadline:
                send_some(daemon)
                if len(asked(f"127.0.0.1:{its}", "count_over_time(assay_verdicts_total[1m]) > 5")) > 1:
                    break
                time.sleep(0.5)
            else:
                raise AssertionError(f"nothing was scraped:\n{daemon.log()}")
            yield f"127.0.0.1:{its}"
        finally:
            process.terminate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def send_some(daemon: Daemon) -> None:
    with daemon.mta() as mta:
        greet(mta)
        send(mta)
        send(mta, message("a@reject.example"))
    with daemon.mta() as mta:
        greet(mta, OURS)
        send(mta, message("dan@ours.example"), path="dan@ours.example")
    with daemon.mta() as mta:
        mta.connect("unknown", ip_address(BAD), j="mx.example.net", client_addr=BAD)


def asked(server: str, query: str) -> list[dict[str, Any]]:
    """The result of a query; empty while the server does not answer."""
    url = f"http://{server}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            found = json.load(response)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.SERVICE_UNAVAILABLE:  # it is still starting
            return []
        raise AssertionError(f"{query}: {error.read().decode()}") from None
    except OSError:
        return []
    assert found["status"] == "success"
    return list(found["data"]["result"])


PANELS = [
    (panel["title"], target["expr"])
    for panel in json.loads(DASHBOARD.read_text())["panels"]
    for target in panel["targets"]
]


@pytest.mark.parametrize(("title", "query"), PANELS, ids=[title for title, _ in PANELS])
def test_a_query_of_the_dashboard(prometheus: str, title: str, query: str) -> None:
    filled = query.replace("$__rate_interval", "1m").replace("$instance", ".*")
    assert "$" not in filled
    assert asked(prometheus, filled), title


def test_the_dashboard_is_written_by_the_script() -> None:
    written = runpy.run_path(str(CONTRIB / "write-dashboard.py"))
    assert json.loads(DASHBOARD.read_text()) == written["dashboard"]()


def test_the_alerts_are_valid() -> None:
    checked = subprocess.run([PROGRAMS / "usr/bin/promtool", "check", "rules", RULES], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_no_alert_fires_while_all_is_well(prometheus: str) -> None:
    with urllib.request.urlopen(f"http://{prometheus}/api/v1/rules", timeout=PATIENCE) as response:
        (group,) = json.load(response)["data"]["groups"]
    assert [rule["name"] for rule in group["rules"]] == ALERTS
    assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
    assert all(rule.get("lastError", "") == "" for rule in group["rules"])
    assert {rule["name"] for rule in group["rules"] if rule["state"] == "firing"} == set()


def test_each_alert_has_a_line_in_the_runbook() -> None:
    page = (ROOT / "docs" / "trouble.md").read_text()
    _, _, section = page.partition("## Alerts\n")
    assert re.findall(r"^\| `(\w+)` \|", section.partition("\n## ")[0], re.MULTILINE) == ALERTS
    assert re.findall(r'runbook: "docs/trouble\.md, (\w+)"', RULES.read_text()) == ALERTS


#: An alert, and figures at which it fires.
FIRES = {
    "AssayDown": 'up{job="assay"} 0x30',
    "AssayServesNothing": "assay_workers 0x30",
    "AssayBug": "assay_exceptions_total 0+1x30",
    "AssayProcessesDie": 'assay_deaths_total{kind="worker"} 0+1x30',
    "AssayNotReloaded": 'assay_reloads_total{result="failed"} 0+1x30',
    "AssayNameserverDown": 'assay_dns_nameserver_up{server="192.0.2.53"} 0x30',
    "AssayDnsFails": 'assay_dns_queries_total{outcome="timeout"} 0+10x60',
    "AssayTemporaryErrors": 'assay_results_total{method="dmarc",result="temperror"} 0+10x60',
    "AssaySlow": 'assay_message_wait_seconds_bucket{le="5"} 0x60|assay_message_wait_seconds_bucket{le="+Inf"} 0+9x60',
    "AssayRefusesMuch": 'assay_decisions_total{by="x",action="reject"} 0+9x90|assay_verdicts_total 0+10x90',
    "AssayLogLost": "assay_log_lines_lost_total 0+10x30",
}


def test_every_alert_is_tried() -> None:
    assert list(FIRES) == ALERTS


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_fires(alert: str, tmp_path: Path) -> None:
    """As ``promtool test rules`` sees it: with the figures in `FIRES` for an hour and a half."""
    series = []
    for one in FIRES[alert].split("|"):
        name, values = one.rsplit(" ", 1)
        labels = "" if "}" in name else "{}"
        name = f"{name}{labels}".replace("}", ',instance="mx"}').replace("{,", "{")
        series.append(f"      - series: '{name}'\n        values: '{values}'\n")
    test = tmp_path / "test.yml"
    test.write_text(
        f"rule_files: [{RULES}]\ntests:\n  - interval: 1m\n    input_series:\n{''.join(series)}"
        "    promql_expr_test:\n"
        f"      - expr: count(ALERTS{{alertname='{alert}',alertstate='firing'}})\n"
        "        eval_time: 29m\n"
        "        exp_samples: [{labels: '{}', value: 1}]\n"
    )
    if "x90" in FIRES[alert]:
        test.write_text(test.read_text().replace("29m", "80m"))
    tried = subprocess.run([PROGRAMS / "usr/bin/promtool", "test", "rules", test], capture_output=True, text=True)
    assert tried.returncode == 0, tried.stdout + tried.stderr


def test_logrotate_takes_the_file(tmp_path: Path) -> None:
    """The paths and the owner are replaced: a test has neither."""
    text = (CONTRIB / "logrotate" / "assay").read_text()
    text = text.replace("/var/log/assay", str(tmp_path)).replace(" assay assay", "")
    (tmp_path / "conf").write_text(text)
    (tmp_path / "facts").write_text("one\n")
    (tmp_path / "log").write_text("two\n")
    tmp_path.chmod(0o700)
    line = [PROGRAMS / "usr/sbin/logrotate", "--force", "--state", tmp_path / "state", tmp_path / "conf"]
    libraries = sorted({str(path.parent) for path in PROGRAMS.rglob("*.so*")})
    subprocess.run(line, check=True, env={"LD_LIBRARY_PATH": ":".join(libraries), "PATH": "/usr/bin:/bin"})
    assert (tmp_path / "facts.1").read_text() == "one\n"
    assert (tmp_path / "facts").read_text() == ""
    assert (tmp_path / "facts").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "log").read_text() == ""
