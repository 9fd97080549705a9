"""Prints how long the HTML page of 20,000 cells takes to open, filter and scroll in a headless Chromium.

    python -m benchmarks.page [REPORT.json] [--cells 20000]

The cells are copies of those of a real report, each with its own figures: they compress no better than real ones.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from harness.core import run_file
from harness.core.run import Cell, EnvironmentReport, Run, finished
from harness.report.html import render
from tests.support import samples
from tests.support.browser import running

RELEASES = (
    "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.6.1", "0.6.2", "0.7.0", "0.7.1", "0.8.2", "0.9.0", "0.10.0", "0.11.1",
    "0.12.0", "0.13.2", "0.14.0", "0.15.2", "0.16.0", "0.17.1", "0.18.0", "0.20.0", "0.21.2",
)  # fmt: skip
OPEN_LIMIT_S = 2.0


def multiplied(source: Run, cells: int, loaders: Sequence[str]) -> Run:
    """A run of that many cells: the source's scenarios by every release, under each loader."""
    dice = random.Random(20)
    creators = [_environment(source, f"v{release.replace('.', '')}", release, "creator") for release in RELEASES]
    loading = [_environment(source, f"l{release.replace('.', '')}", release, "loader") for release in loaders]
    made = [
        _copy(cell, f"-{turn}" if turn else "", creator, loader, dice)
        for turn, cell, loader, creator in _combinations(source, creators, loading, cells)
    ]
    run = source.model_copy(
        update={
            "cells": tuple(made),
            "environments": (*creators, *loading),
            "plan": tuple(cell.id for cell in made),
            "title": f"{len(made):,} cells, made of {source.id}",
        }
    )
    return finished(run)


def _combinations(
    source: Run, creators: list[EnvironmentReport], loading: list[EnvironmentReport], cells: int
) -> Iterator[tuple[int, Cell, EnvironmentReport, EnvironmentReport]]:
    turns = cells // (len(source.cells) * len(creators) * len(loading)) + 1
    every = itertools.product(range(turns), source.cells, loading, creators)
    return itertools.islice(every, cells)


def _environment(source: Run, name: str, release: str, role: str) -> EnvironmentReport:
    like = next((e for e in source.environments if role in e.role), source.environments[0])
    return like.model_copy(update={"name": name, "role": (role,), "versions": {**like.versions, "peft": release}})


def _copy(cell: Cell, suffix: str, creator: EnvironmentReport, loader: EnvironmentReport, dice: random.Random) -> Cell:
    scenario = cell.scenario + suffix
    name = f"{scenario}@{creator.name}:{loader.name}[{cell.device}]"
    factor = 10 ** dice.uniform(-2, 0)
    probes = {
        key: probe.model_copy(
            update={"figures": tuple(f.model_copy(update=_sized(f, factor, dice)) for f in probe.figures[:1])}
        )
        for key, probe in cell.probes.items()
    }
    return cell.model_copy(
        update={
            "id": name, "scenario": scenario, "creator": creator.name, "loader": loader.name, "probes": probes,
            "reproduce": cell.reproduce.replace(cell.id, name), "duration_s": dice.uniform(0.1, 5),
            "worst_ratio": cell.worst_ratio * factor if cell.worst_ratio else cell.worst_ratio,
            "layers": tuple(layer.model_copy(update=_sized(layer, factor, dice)) for layer in cell.layers),
            "fixture": f"{dice.choice('abc')}{cell.fixture[1:]}" if cell.fixture else "",
        }
    )  # fmt: skip


def _sized(figures: Any, factor: float, dice: random.Random) -> dict[str, float]:
    """A difference and an allowance that no other has."""
    wobble = factor * dice.uniform(0.5, 1)
    return {"max_abs": figures.max_abs * wobble, "allowance": figures.allowance * dice.uniform(0.9, 1.1)}


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
