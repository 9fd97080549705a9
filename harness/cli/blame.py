"""`blame`: which library turned a cell's verdict."""

from __future__ import annotations

import argparse
from typing import Any

from harness.cli import common, searching
from harness.cli.searching import Work
from harness.core.errors import ExitCode
from harness.deviation.search import delta, sentence
from harness.deviation.search.coupling import Ends
from harness.deviation.search.delta import Ask, Blame, Candidate, Search
from harness.deviation.search.outcome import Outcome
from harness.envs.environment import EnvFailed


def blame(arguments: argparse.Namespace) -> int:
    """Find the smallest set of version changes between two environments that turns a cell's verdict."""
    data = _searched(arguments)
    if arguments.json:
        common.out_json(data)
    return ExitCode.CLEAN if data["culprits"] else ExitCode.CANNOT_TELL


def sentence_of(cell: str, arguments: argparse.Namespace) -> str:
    """The answer about a cell in a sentence; as `blame` finds it with the rest of its arguments at their defaults.

    Args:
        arguments: of another command, with the same places (reports, fixtures, matrices) and run.
    """
    own = argparse.Namespace(**DEFAULTS)
    own.__dict__.update({k: v for k, v in vars(arguments).items() if k in DEFAULTS and v is not None})
    own.__dict__.update(cell=cell, json=True, quiet=True)
    return str(_searched(own)["sentence"])


DEFAULTS: dict[str, Any] = {
    "cell": "", "run": None, "sound_in": None, "deviates_in": None, "matrices": None, "fixtures": None, "reports": None,
    "scenarios": [], "creator": None, "log": None, "replay": None, "anew": False, "json": False, "quiet": False,
    "worker_handler": None,
}  # fmt: skip


def _searched(arguments: argparse.Namespace) -> dict[str, Any]:
    with searching.work(arguments, "blame") as work:
        quiet = arguments.quiet
        if not quiet:
            common.say(f"verifying both ends: {work.question.id.scenario} under {work.good.name} and {work.bad.name}")
        ends = work.ends()
        hunt = delta.search(ends)
        ask = next(hunt)
        work.trials.ahead([work.environments.between(ask.candidate, work.overlays, work.bad.python)])
        work.trials.verify(work.good, work.bad)
        if not quiet:
            common.say(
                f"{work.good.name} is sound, {work.bad.name} deviates ({work.trials.deviation.words}); "
                f"{len(ends.differing)} packages differ"
            )
        found = _run(work, hunt, ask)
        data = _result(work, ends, found)
        searching.write(work.file, data)
        if not arguments.json:
            _print(work, data)
        return data


def _run(work: Work, hunt: Search, ask: Ask) -> Blame:
    """Plays the search: asks are tried, what comes of them is sent back."""
    try:
        while True:
            ask = hunt.send(_tried(work, ask))
    except StopIteration as stop:
        found: Blame = stop.value
        return found


def _tried(work: Work, ask: Ask) -> Outcome:
    python = work.bad.python
    try:
        environment = work.environments.between(ask.candidate, work.overlays, python)
    except EnvFailed as error:
        entry = work.trials.untestable(_key(ask.candidate), ask.candidate.words, error)
        work.tell(ask.candidate.words, f"at most {ask.left} left")
        work.told(entry)
        return entry.outcome
    if (known := work.trials.known(environment)) is not None and known in work.trials.tried:
        return known.outcome
    work.tell(ask.candidate.words, f"at most {ask.left} left")
    work.trials.ahead([work.environments.between(one, work.overlays, python) for one in ask.ahead if one.pins is None])
    entry = work.trials.outcome(environment, ask.candidate.words)
    work.told(entry)
    return entry.outcome


def _key(candidate: Candidate) -> str:
    return " ".join(f"{package}=={version}" for package, version in sorted((candidate.pins or {}).items()))


def _result(work: Work, ends: Ends, found: Blame) -> dict[str, Any]:
    return {
        "cell": str(work.question.id),
        "sentence": sentence.sentence(found, ends),
        "notes": list(sentence.notes(found, ends)),
        "good": {"name": work.good.name, "spec": work.question.good},
        "bad": {"name": work.bad.name, "spec": work.question.bad},
        "differing": {package: [ends.old.get(package), ends.new.get(package)] for package in ends.differing},
        "culprits": [
            {
                "packages": {package: [ends.old.get(package), ends.new.get(package)] for package in one.packages},
                "companions": {package: list(along) for package, along in one.companions.items()},
                "sound": {"words": one.sound.words, "versions": dict(one.sound.versions)},
                "bad": {"words": one.bad.words, "versions": dict(one.bad.versions)},
                "still_bad_without": list(one.still_bad_without),
                "tied": dict(one.tied),
            }
            for one in found.culprits
        ],
        "complete": found.complete,
        "tried": [
            {"words": e.words, "result": e.kind, "why": e.why, "verdict": e.verdict, "seconds": e.seconds}
            for e in work.trials.tried
        ],
        "spent": work.trials.spent.data(),
        "journal": str(work.trials.journal),
    }  # fmt: skip


def _print(work: Work, data: dict[str, Any]) -> None:
    common.out(data["sentence"] + ".")
    for note in data["notes"]:
        common.out(f"  note: {note}")
    searching.table(work.trials.tried)
    searching.tell_spent(data)
    one = data["culprits"][0]["packages"] if len(data["culprits"]) == 1 else {}
    if len(one) == 1:
        package = next(iter(one))
        common.say(f"which release: peft-regress bisect '{work.question.id}' --package {package}")
