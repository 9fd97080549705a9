"""Arguments become options: by field name, by type, and completely."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.cli import check_options, main, parser
from harness.runner.request import CheckRequest, Places, Selection

NO_OPTIONS = {"help", "version"}


@dataclass(frozen=True)
class _Options:
    name: str = "default"
    count: int = 0
    files: tuple[Path, ...] = ()
    out: Path | None = None
    places: Places = Places()


def test_options_are_filled_by_name_and_type() -> None:
    """Paths become absolute, lists tuples, and a dataclass within takes what is its own."""
    values = {"name": "x", "files": ["a"], "out": "~/b", "matrices": "m", "unrelated": 1, "count": None}
    assert parser.options_of(_Options, values) == _Options(
        "x", 0, (Path("a").resolve(),), Path("~/b").expanduser(), Places(matrices=Path("m").resolve())
    )


def test_options_survive_the_way_to_another_process() -> None:
    """What `arguments_of` gives is plain data that makes the same options again."""
    options = _Options("x", 2, (Path("/a"), Path("/b")), None, Places(reports=Path("/r")))
    assert parser.options_of(_Options, parser.arguments_of(options)) == options


def _commands(one: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    inner = [a for a in one._actions if isinstance(a, argparse._SubParsersAction)]
    if not inner:
        yield one
    for action in inner:
        for each in action.choices.values():
            yield from _commands(each)


def _fields(kind: Any) -> Iterator[tuple[str, bool]]:
    types = typing.get_type_hints(kind)
    for one in dataclasses.fields(kind):
        if dataclasses.is_dataclass(types[one.name]):
            yield from _fields(types[one.name])
        else:
            yield one.name, one.default is dataclasses.MISSING


@pytest.mark.parametrize("one", [*_commands(main.parser())], ids=lambda one: one.prog)
def test_every_argument_has_a_field(one: argparse.ArgumentParser) -> None:
    """No argument is parsed and dropped, and no field that needs an argument goes without."""
    kind = one.get_default(parser._OPTIONS)
    fields = dict(_fields(kind))
    arguments = {action.dest for action in one._actions} - NO_OPTIONS
    assert arguments - fields.keys() == set()
    assert {name for name, needed in fields.items() if needed} - arguments == set()


def test_default_requests_mean_the_repository() -> None:
    """`Places()` and `Selection()` are what the commands use when nothing is said."""
    assert Places().matrix().folder.name == "matrices"
    assert Selection(keyword="lokr or loha").of(Places().matrix().scenarios()) != []


def test_plain_pytest_has_the_options_of_a_request() -> None:
    """They are declared once: what `check` takes, pytest takes too, but for its own -k and its positional files."""
    declared: dict[str, tuple[str, ...]] = {}

    class Group:
        def addoption(self, *flags: str, **more: Any) -> None:
            declared[more["dest"]] = flags

    class FakeParser:
        def getgroup(self, *_: str) -> Group:
            return Group()

    check_options.add_to_pytest(FakeParser())  # type: ignore[arg-type]
    assert declared.keys() == {name for name, _ in _fields(CheckRequest)} - {
        "keyword", "expression", "scenarios", "every_creator",
        "observations",  # a check of a change sets it
    }  # fmt: skip
    assert declared["fixtures"] == ("--fixtures-dir",)
    assert declared["fail_on_warned"] == ("--fail-on-warned",)
