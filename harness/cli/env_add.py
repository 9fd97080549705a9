"""`env add`: a release of PEFT becomes a creator with fixtures; or every release that the matrix lacks."""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from collections.abc import Sequence

from harness.cli import common
from harness.core import matrix
from harness.core.errors import ExitCode, HarnessError, UsageError
from harness.core.matrix import Declared
from harness.core.text import clip, code, fenced, many, prose, seconds
from harness.core.versions import FIRST_PACKAGES
from harness.envs import missing_releases
from harness.envs.draft import Draft
from harness.envs.environments import Environments
from harness.envs.index import Release
from harness.runner import add_release
from harness.runner.add_release import Added, Order, Outcome


def add(arguments: argparse.Namespace) -> int:
    """Add one release, or with `--missing` all that the registry has and the matrix lacks."""
    if bool(arguments.requirement) == arguments.missing:
        raise UsageError(
            "env add: both a release and --missing" if arguments.missing else "env add: no release is named",
            "peft==VERSION, or --missing", "for example: peft-regress env add peft==0.12.0",
        )  # fmt: skip
    environments = common.environments_of(arguments)
    scenarios = [] if arguments.no_fixtures else _scenarios(arguments)
    if arguments.missing:
        return _missing(arguments, environments, scenarios)
    if arguments.dry_run:
        return _dry_run(arguments, environments.draft(arguments.requirement), scenarios)
    try:
        added = _added(arguments, environments, arguments.requirement, scenarios)
    except KeyboardInterrupt:
        return _interrupted(arguments.requirement)
    if arguments.json:
        common.out_json(_data(added, arguments))
    else:
        common.out(markdown(added, _command(arguments, added.requirement), _where(arguments)).rstrip())
    return ExitCode.CLEAN if added.whole else ExitCode.CANNOT_TELL


def _scenarios(arguments: argparse.Namespace) -> list[Declared]:
    where = [common.path(text) for text in arguments.scenarios]
    declared = common.matrix_of(arguments).scenarios([path for path in where if path] or None)
    chosen = common.chosen(declared, arguments.keyword, arguments.families)
    if not chosen:
        raise UsageError(
            "no scenario is selected", "at least one", "loosen -k or --family, or add the environment --no-fixtures"
        )
    return chosen


def _added(
    arguments: argparse.Namespace, environments: Environments, requirement: str, scenarios: Sequence[Declared]
) -> Added:
    order = Order(
        scenarios, arguments.jobs or common.cores(), arguments.keep_going, common.path(arguments.worker_handler)
    )
    return add_release.add(environments, common.store_of(arguments), requirement, order, common.say)


def _interrupted(what: str) -> int:
    common.say(f"peft-regress: interrupted; nothing of {what} was kept, the same command does it again")
    return ExitCode.INTERRUPTED


# -- all that are missing ---------------------------------------------------------------------------------------------


def _missing(arguments: argparse.Namespace, environments: Environments, scenarios: Sequence[Declared]) -> int:
    found = missing_releases.missing(environments.releases.ask(missing_releases.PACKAGE), environments.declarations())
    if not found or arguments.dry_run:
        return _listed(arguments, found)
    added: list[Added] = []
    failed: dict[str, HarnessError] = {}
    for place, release in enumerate(found, 1):
        requirement = _requirement(release)
        common.say(f"{requirement} of {release.day} ({place} of {len(found)})")
        try:
            added.append(_added(arguments, environments, requirement, scenarios))
        except HarnessError as error:
            failed[requirement] = error
            common.say(f"{requirement} could not be added: {error}")
        except KeyboardInterrupt:
            _tell(arguments, added, failed)
            return _interrupted(requirement)
    _tell(arguments, added, failed)
    return ExitCode.CANNOT_TELL if failed or not all(one.whole for one in added) else ExitCode.CLEAN


def _requirement(release: Release) -> str:
    return f"{missing_releases.PACKAGE}=={release.version}"


def _listed(arguments: argparse.Namespace, found: Sequence[Release]) -> int:
    if arguments.json:
        common.out_json(
            {"missing": [{"requirement": _requirement(r), "released": r.day} for r in found], "added": [], "failed": []}
        )
    elif found:
        common.out("\n".join(f"{_requirement(release)}  of {release.day}" for release in found))
        common.out(f"{len(found)} would be added")
    else:
        common.out("nothing is missing: every minor release's newest patch that the registry has is declared")
    return ExitCode.CLEAN


def _tell(arguments: argparse.Namespace, added: Sequence[Added], failed: dict[str, HarnessError]) -> None:
    """Each release that was added, then what could not be, then the count."""
    if arguments.json:
        wrong = [
            {"requirement": name, "found": error.found, "expected": error.expected, "next": error.next_step}
            for name, error in failed.items()
        ]
        common.out_json({"added": [_data(one, arguments) for one in added], "failed": wrong})
        return
    for one in added:
        common.out(markdown(one, _command(arguments, one.requirement), _where(arguments)))
    for requirement, error in failed.items():
        common.out(f"{requirement} could not be added: {error}\n")
    common.out(f"{len(added)} added, {len(failed)} could not be")


# -- what is said -----------------------------------------------------------------------------------------------------


def _dry_run(arguments: argparse.Namespace, draft: Draft, scenarios: Sequence[Declared]) -> int:
    """What would be done, by the packages that the release resolves to; nothing is written."""
    admitted = [one.name for one in scenarios if not matrix.unstored(one, draft.packages)]
    if arguments.json:
        common.out_json(
            {
                "name": draft.name, "requirement": draft.requirement, "released": str(draft.declared.released),
                "files": [str(draft.path), str(draft.lock)], "versions": dict(draft.packages), "scenarios": admitted,
            }
        )  # fmt: skip
        return ExitCode.CLEAN
    common.out(f"{draft.requirement}, released {draft.declared.released}, for Python {draft.declared.python}")
    common.out(f"would write {draft.path}\nwould write {draft.lock} ({len(draft.packages)} packages)")
    common.out(f"would build {draft.name} and import its libraries")
    for name in admitted:
        common.out(f"would create {name}@{draft.name}")
    common.out(f"{len(admitted)} of {len(scenarios)} scenarios are for this release; nothing was written")
    return ExitCode.CLEAN


def _data(added: Added, arguments: argparse.Namespace) -> dict[str, object]:
    commands = {"command": _command(arguments, added.requirement), "next": added.next_steps(_where(arguments))}
    return added.data() | commands


def _command(arguments: argparse.Namespace, requirement: str) -> str:
    """The command that adds this release alone, as it was run."""
    words = ["peft-regress", "env", "add", requirement]
    words += ["-k", arguments.keyword] if arguments.keyword else []
    words += [f"--family={name}" for name in arguments.families]
    words += ["--keep-going"] * arguments.keep_going + ["--no-fixtures"] * arguments.no_fixtures
    return shlex.join(words) + _where(arguments)


def _where(arguments: argparse.Namespace) -> str:
    given = {"--matrices": arguments.matrices, "--fixtures": arguments.fixtures}
    options = [(option, value) for option, value in given.items() if value]
    options += [("--scenarios", path) for path in arguments.scenarios]
    return "".join(f" {option} {shlex.quote(value)}" for option, value in options)


def markdown(added: Added, command: str, where: str = "") -> str:
    """A summary for a pull request.

    Args:
        command: the one that was run.
        where: the options that say where matrices and fixtures are, with a blank before them.
    """
    peft = added.versions.get("peft", added.requirement)
    shown = [name for name in FIRST_PACKAGES if name in added.versions]
    blocks = [
        f"### PEFT {prose(peft)}: {code(added.name)}",
        f"Released {added.released}; Python {prose(added.python)}; {len(added.versions):,} packages; "
        f"done in {seconds(added.seconds)}.",
        _table(shown, [[code(added.versions[name]) for name in shown]]),
        *(_fixtures(added) if added.fixtures else ["No fixtures were asked for."]),
        "Made by, and next:\n\n" + fenced("\n".join([command, *added.next_steps(where)])),
    ]
    return "\n\n".join(blocks) + "\n"


def _fixtures(added: Added) -> list[str]:
    made, verdicts = added.of("made"), ", ".join(f"{count:,} {verdict}" for verdict, count in added.verdicts.items())
    counts = [many(len(made), "fixture") + " made", f"{len(added.of('unsupported')):,} unsupported"]
    counts += [f"{len(added.of('refused')):,} refused", *_some(len(added.of("deviates")), "not loaded as it was")]
    lines = [
        f"- {', '.join(counts)}; {added.size / 1e6:.2f} MB added",
        f"- self-check, each loaded again by {code(added.name)} itself: {verdicts or 'nothing to check'}",
    ]
    blocks = ["\n".join(lines)]
    blocks += _titled("Not kept", [(one.scenario, one.detail) for one in added.outcomes if _failed(one)], "scenario")
    again = Counter(one.detail for one in added.of("made") if one.detail)
    blocks += _titled("Said on loading it again", [(f"{n:,}", text) for text, n in again.most_common()], "scenarios")
    standing = [(f"{count:,}", text) for text, count in added.defects.items()]
    blocks += _titled("Standing defects: what its own library fails too", standing, "scenarios")
    reasons = Counter(one.detail for one in added.of("unsupported"))
    return blocks + _titled("Unsupported", [(f"{count:,}", text) for text, count in reasons.most_common()], "scenarios")


def _some(count: int, words: str) -> list[str]:
    return [f"{count:,} {words}"] if count else []


def _failed(one: Outcome) -> bool:
    return one.outcome in ("refused", "deviates")


def _titled(title: str, rows: Sequence[tuple[str, str]], first: str) -> list[str]:
    if not rows:
        return []
    table = _table([first, "what"], [[code(head), code(clip(text, 300))] for head, text in rows])
    return [f"**{title}**\n\n{table}"]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])
