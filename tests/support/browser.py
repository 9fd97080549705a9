"""A headless Chromium of the system, driven by Playwright: Playwright's own browsers are never downloaded."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell")


def find() -> str:
    """Path of a Chromium: `$PEFT_REGRESS_BROWSER`, else the first on the path; empty if there is none."""
    wanted = os.environ.get("PEFT_REGRESS_BROWSER", "")
    return wanted or next((path for path in map(shutil.which, NAMES) if path), "")


def ensure_browser() -> str:
    """Path of a Chromium. Without one the test is skipped, or fails in CI, where `.ci/run` installs it."""
    found = find()
    if not found:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop("no Chromium: run `apt-get install chromium`, or set PEFT_REGRESS_BROWSER to one")
    return found


@contextlib.contextmanager
def running() -> Iterator[Browser]:
    """A browser for the duration of a `with`."""
    path = ensure_browser()
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


class Watched:
    """A page, and everything that it asked for or complained about."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
