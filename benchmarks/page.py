"""Prints how long the HTML page of 20,000 cells takes to open, filter and scroll in a headless Chromium.

    python -m benchmarks.page [REPORT.json] [--cells 20000]

The cells are copies of those of a real report, each with its own figures: they compress no better than real ones.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page

from benchmarks.many_cells import RELEASES, multiplied
from harness.core import run_file
from harness.report.html import render
from tests.support import samples
from tests.support.browser import running

OPEN_LIMIT_S = 2.0


_FRAMES = """new Promise((done) => {
  const gaps = [], height = document.documentElement.scrollHeight; let last = performance.now(), y = 0;
  const step = (now) => { gaps.push(now - last); last = now; y += 120; scrollTo(0, y % height);
    gaps.length < 180 ? requestAnimationFrame(step) : done(gaps.slice(2).sort((a, b) => a - b)); };
  requestAnimationFrame(step); })"""
_FILTER = """(() => { const q = document.getElementById("query"), start = performance.now();
  q.value = 'peft<0.7 family:lora ratio>0.1 lora'; applyQuery(); document.body.offsetHeight;
  const took = performance.now() - start; q.value = ''; applyQuery(); return took; })()"""
_OPENED = """new Promise((done) => requestAnimationFrame(() => setTimeout(() => done({
  loaded: performance.timing.loadEventEnd - performance.timing.navigationStart,
  painted: performance.getEntriesByName("first-contentful-paint")[0]?.startTime,
  settled: performance.now()}), 0)))"""
_DRAWER = """(async () => { const start = performance.now(); await openCell(Math.floor(total / 2));
  document.body.offsetHeight; return performance.now() - start; })()"""


def measure(page: Page, address: str) -> dict[str, float]:
    """Milliseconds: until painted, until loaded and settled; a filter, a drawer, the frames of a scroll."""
    page.goto(address)
    found: dict[str, float] = page.evaluate(_OPENED)
    frames: list[float] = page.evaluate(_FRAMES)
    found |= {"frame, median": frames[len(frames) // 2], "frame, 95 %": frames[int(len(frames) * 0.95)]}
    return found | {"filter": page.evaluate(_FILTER), "drawer, first": page.evaluate(_DRAWER)}


def main() -> None:
    """Measure one loader with all the cells, and ten loaders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", nargs="?", type=Path, help="a real report.json (default: made-up cells)")
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--keep", type=Path, help="a folder for the pages")
    arguments = parser.parse_args()
    source = run_file.load(arguments.report) if arguments.report else samples.every_verdict()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="page-"))
    folder.mkdir(parents=True, exist_ok=True)
    slow = False
    with running() as browser:
        for loaders in (RELEASES[-1:], RELEASES[-10:]):
            run = multiplied(source, arguments.cells, loaders)
            started = time.perf_counter()
            data = render.render(run)
            rendered = time.perf_counter() - started
            path = folder / f"{len(loaders)}-loaders.html"
            path.write_bytes(data)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            found = measure(page, path.as_uri())
            page.close()
            slow |= found["settled"] > OPEN_LIMIT_S * 1000
            said = ", ".join(f"{name} {value:.0f} ms" for name, value in found.items())
            print(f"{len(run.cells):,} cells, {len(loaders)} loaders, {len(data) / 1e6:.1f} MB: {said}; "
                  f"rendered in {rendered:.1f} s")  # fmt: skip
    print(f"opens in under {OPEN_LIMIT_S:g} s: {'no' if slow else 'yes'}")


if __name__ == "__main__":
    main()
