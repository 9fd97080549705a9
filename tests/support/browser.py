"""A headless Chromium, driven over its DevTools protocol through a pair of pipes: no driver, no port, no dependency."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell")
FLAGS = (
    "--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--remote-debugging-pipe", "--window-size=1280,900",
)  # fmt: skip
_TIMEOUT_S = 60.0
_LAUNCH = """
import fcntl, os, sys
reads, writes = (fcntl.fcntl(int(given), fcntl.F_DUPFD, 10) for given in sys.argv[1:3])
os.dup2(reads, 3)
os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads its commands from descriptor 3 and writes its answers to 4."""


def find() -> str:
    """Path of a Chromium: `$PEFT_REGRESS_BROWSER`, else what is on the path; nothing where there is none."""
    wanted = os.environ.get("PEFT_REGRESS_BROWSER", "")
    return wanted or next((path for path in map(shutil.which, NAMES) if path), "")


def ensure_browser() -> str:
    """Path of a Chromium; in CI it is installed where it is missing, elsewhere the test is skipped, saying why."""
    found = find()
    if not found and os.environ.get("CI"):
        _install()
        found = find()
        if not found:
            pytest.fail("no Chromium in CI: `apt-get install chromium` did not give one", pytrace=False)
    if not found:
        pytest.skip("no Chromium: `apt-get install chromium`, or name one in PEFT_REGRESS_BROWSER")
    return found


def _install() -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.fail("no Chromium in CI, and it can't be installed without root and apt-get", pytrace=False)
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]):
        done = subprocess.run(command, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, capture_output=True)
        if done.returncode:
            pytest.fail(f"{' '.join(command)} failed:\n{done.stderr.decode(errors='replace')[-1000:]}", pytrace=False)


class Failed(Exception):
    """The browser refused a command, a script raised, or something did not come about in time."""


class Browser:
    """A running Chromium with a profile of its own."""

    def __init__(self, path: str) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        here_reads, there_writes = os.pipe()
        there_reads, here_writes = os.pipe()
        flags = [*FLAGS, f"--user-data-dir={self._profile.name}", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(there_reads), str(there_writes), path, *flags, "about:blank"],
            pass_fds=(there_reads, there_writes), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(there_reads)
        os.close(there_writes)
        self._reads, self._writes = here_reads, here_writes
        self._left = b""
        self._last = 0
        self.events: dict[str, list[dict[str, Any]]] = {}
        """What each page reported, by its session."""

    def send(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Run one command and return its result."""
        self._last += 1
        number = self._last
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        self._write(json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == number:
                break
        if "error" in answer:
            raise Failed(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def pump(self, seconds: float) -> None:
        """Take in what is reported for a while."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            while True:
                self._receive(deadline, "")

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._writes, data) :]

    def _receive(self, deadline: float, what: str) -> dict[str, Any]:
        while b"\0" not in self._left:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._reads], [], [], left)[0]:
                raise TimeoutError(f"Chromium did not answer {what or 'anything'}")
            data = os.read(self._reads, 1 << 20)
            if not data:
                raise Failed(f"Chromium ended (exit status {self._process.poll()}) during {what}")
            self._left += data
        text, self._left = self._left.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.setdefault(message.get("sessionId", ""), []).append(message)
        return message

    def page(self, **viewport: int) -> Page:
        """A new page that is watched."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable", session)
        page = Page(self, target, session)
        if viewport:
            page.resize(**viewport)
        return page

    def close(self) -> None:
        """End it; nothing of it stays."""
        with contextlib.suppress(Failed, TimeoutError, OSError):
            self.send("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()
        os.close(self._reads)
        os.close(self._writes)
        self._profile.cleanup()


class Page:
    """One page: what it shows, what it asked for, what it complained of."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self.browser = browser
        self._target, self._session = target, session

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Run one command on this page."""
        return self.browser.send(method, self._session, **parameters)

    def open(self, address: str) -> None:
        """Go to an address and wait until it is loaded."""
        before = len(self._events("Page.loadEventFired"))
        self.send("Page.navigate", url=address)
        deadline = time.monotonic() + _TIMEOUT_S
        while len(self._events("Page.loadEventFired")) == before:
            self.browser.pump(0.02)
            if time.monotonic() > deadline:
                raise Failed(f"{address} did not load")

    def run(self, expression: str) -> Any:
        """The value of a script, which may be a promise."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise Failed(f"{expression}: {result['exceptionDetails'].get('exception', {}).get('description')}")
        return result["result"].get("value")

    def until(self, expression: str, seconds: float = 5.0) -> Any:
        """Wait until a script gives something true, and return it."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(expression)):
            if time.monotonic() > deadline:
                raise Failed(f"not within {seconds:g} s: {expression}")
            self.browser.pump(0.02)
        return value

    def text(self, selector: str) -> str:
        """What is seen of an element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of an element."""
        where = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **where)

    def hover(self, selector: str) -> None:
        """Move the mouse to the middle of an element."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", **self._middle(selector))

    def _middle(self, selector: str) -> dict[str, float]:
        script = (
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center', inline: 'nearest'}); const b = e.getBoundingClientRect();"
            "return {x: b.x + b.width / 2, y: b.y + b.height / 2}; })()"
        )
        where: dict[str, float] = self.run(script)
        return where

    def press(self, key: str) -> None:
        """Press a key that writes nothing: `Enter`, `Escape`, `ArrowDown`, `Tab`."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def type(self, text: str) -> None:
        """Write a text where the focus is."""
        self.send("Input.insertText", text=text)

    def resize(self, width: int, height: int) -> None:
        """Give the page another size."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def scheme(self, name: str) -> None:
        """`light` or `dark`."""
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def without_script(self) -> None:
        """From now on pages run no script of their own."""
        self.send("Emulation.setScriptExecutionDisabled", value=True)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Write a PNG of what is seen, or of the whole page."""
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def pdf(self, path: Path) -> None:
        """Print it."""
        path.write_bytes(base64.b64decode(self.send("Page.printToPDF", printBackground=True)["data"]))

    def requests(self) -> list[str]:
        """Every address that was asked for."""
        return [str(event["params"]["request"]["url"]) for event in self._events("Network.requestWillBeSent")]

    def complaints(self) -> list[str]:
        """Everything that was written to the console, and every exception that nobody caught."""
        self.browser.pump(0.05)
        said = [str(event["params"]["entry"]["text"]) for event in self._events("Log.entryAdded")]
        said += [str(event["params"]["args"]) for event in self._events("Runtime.consoleAPICalled")]
        return said + [str(event["params"]["exceptionDetails"]) for event in self._events("Runtime.exceptionThrown")]

    def _events(self, method: str) -> list[dict[str, Any]]:
        return [event for event in self.browser.events.get(self._session, []) if event["method"] == method]

    def close(self) -> None:
        """Close the page."""
        self.browser.send("Target.closeTarget", targetId=self._target)


@contextlib.contextmanager
def running() -> Iterator[Browser]:
    """A browser for the time of a `with`."""
    browser = Browser(ensure_browser())
    try:
        yield browser
    finally:
        browser.close()
