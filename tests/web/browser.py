# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Chromium without a window, driven over the WebDriver protocol: Debian's, as unpacked by ``contrib/fetch.sh``.

It is the copy below ``.cache/chromium`` (or `ASSAY_CHROMIUM`), never the machine's own. It may reach loopback only.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import socket
import subprocess
import sysconfig
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(os.environ.get("ASSAY_CHROMIUM") or ROOT / ".cache" / "chromium")
PROGRAM = PROGRAMS / "usr/lib/chromium/chromium"
needs_chromium = pytest.mark.skipif(
    not PROGRAM.exists(), reason=f"no chromium in {PROGRAMS}: run sh contrib/fetch.sh chromium"
)
START = 20.0  # seconds; the machine may be busy
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig><dir>{fonts}</dir><cachedir>{cache}</cachedir></fontconfig>
"""


class WebDriverError(AssertionError):
    """The browser refused a command."""


class Chromium:
    """The browser, running while the context lasts."""

    def __init__(self, folder: Path) -> None:
        """:param folder: for its profile; it is removed at the end."""
        self._folder = folder
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._session = ""

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        fonts = self._folder / "fonts.conf"
        fonts.write_text(_FONTS.format(fonts=PROGRAMS / "usr/share/fonts", cache=self._folder / "fonts"))
        library = PROGRAMS / "usr/lib" / str(sysconfig.get_config_var("MULTIARCH"))
        environment = os.environ | {
            "LD_LIBRARY_PATH": f"{library}:{library}/pulseaudio:{PROGRAMS}/lib/{library.name}",
            "FONTCONFIG_FILE": str(fonts),
            "HOME": str(self._folder),
        }
        with (self._folder / "driver.log").open("wb") as log:
            self._process = subprocess.Popen(
                [PROGRAMS / "usr/bin/chromedriver", f"--port={self._port}"],
                env=environment,
                stdout=log,
                stderr=log,
            )
        self._wait()
        arguments = [
            "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars",
            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={self._folder}/profile", "--force-device-scale-factor=1",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ]  # fmt: skip
        options = {
            "goog:chromeOptions": {"binary": str(PROGRAM), "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        self._session = self._command("POST", "/session", {"capabilities": {"alwaysMatch": options}})["sessionId"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        if self._session:
            self._command("DELETE", "")
        self._process.terminate()
        self._process.wait(START)
        shutil.rmtree(self._folder, ignore_errors=True)

    def open(self, url: str) -> None:
        """Load a page."""
        self._command("POST", "/url", {"url": url})

    @property
    def url(self) -> str:
        """Of the page."""
        return str(self._command("GET", "/url"))

    def follow(self, selector: str, url: str) -> None:
        """Click on an element and wait for the page that it leads to, which may have the URL of this page."""
        self.run("window.left = true")
        self.click(selector)
        deadline = time.monotonic() + START
        while self.url != url or not self.run("return !window.left && document.readyState == 'complete'"):
            assert time.monotonic() < deadline, f"{self.url} instead of {url}"
            time.sleep(0.02)

    def run(self, script: str, *arguments: object) -> Any:
        """The result of the body of a function; a promise is waited for. The policy of the page does not apply."""
        return self._command("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def devtools(self, method: str, **parameters: object) -> Any:
        """A command of the DevTools protocol."""
        return self._command("POST", "/goog/cdp/execute", {"cmd": method, "params": parameters})

    def type(self, selector: str, text: str) -> None:
        """Type into an element."""
        self._command("POST", f"/element/{self._find(selector)}/value", {"text": text})

    def click(self, selector: str) -> None:
        """Click on an element."""
        self._command("POST", f"/element/{self._find(selector)}/click", {})

    def press(self, key: str) -> None:
        """Press a key, as WebDriver names it, wherever the focus is."""
        actions = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self._command("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def look(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """How large the window is, and what the user prefers."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a PNG of what is visible, or of the whole page."""
        found = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def complaints(self) -> list[str]:
        """What the browser has written to its console since the last call: violations of the policy, and errors."""
        return [str(entry["message"]) for entry in self._command("POST", "/se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """The addresses of all requests since the last call."""
        messages = [
            json.loads(entry["message"])["message"]
            for entry in self._command("POST", "/se/log", {"type": "performance"})
        ]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def _find(self, selector: str) -> str:
        (identity,) = self._command("POST", "/element", {"using": "css selector", "value": selector}).values()
        return str(identity)

    def _wait(self) -> None:
        deadline = time.monotonic() + START
        while True:
            try:
                if self._command("GET", "/status")["ready"]:
                    return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _command(self, method: str, path: str, body: object = None) -> Any:
        if self._session:
            path = f"/session/{self._session}{path}"
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=START)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            value = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        if isinstance(value, dict) and "error" in value:
            raise WebDriverError(f"{path}: {value['error']}: {value['message']}")
        return value


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
