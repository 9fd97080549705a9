"""`env add`: makes a PEFT release a creator with fixtures, or every release that the matrix lacks."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.cli import common
from harness.cli.parser import choice, command, count, handler, where
from harness.core import matrix
from harness.core.errors import ExitCode, HarnessError, UsageError
from harness.core.matrix import Declared
from harness.core.text import clip, code, fenced, many, prose, seconds, table
from harness.core.versions import FIRST_PACKAGES
from harness.envs import missing_releases
from harness.envs.draft import Draft
from harness.envs.index import Release
from harness.runner import add_release
from harness.runner.add_release import Added, AddRequest, Outcome


@dataclass(frozen=True)
class EnvAddOptions:
    request: AddRequest
    missing: bool = False
    dry_run: bool = False
    json: bool = False


def add_to(inner: Any) -> None:
    one = command(inner, "add", add, "add a PEFT release as a creator: declare, lock, build, create fixtures",
                  "  peft-regress env add peft==0.12.0\n"
                  "  peft-regress env add peft==0.13.2,transformers==4.36.2 --keep-going\n"
                  "  peft-regress env add peft==0.12.0 --dry-run\n"
                  "  peft-regress env add --missing      every minor release's newest patch that has no environment\n"
                  "\nAll or nothing: if a step fails, neither declaration nor fixtures stay. The result is printed as\n"
                  "Markdown, for a pull request.\n"
                  "\nexit codes:\n  0    added; with --missing: all were added, or none was missing\n"
                  "  2    it does not resolve, build or import; a scenario was refused (--keep-going keeps the\n"
                  "       others); with --missing: some could not be added\n"
                  "  64   no such release, a yanked one, none for this Python, or declared already\n"
                  "  130  interrupted; nothing half-made is kept", EnvAddOptions)  # fmt: skip
    one.add_argument("requirement", nargs="?", metavar="REQUIREMENT", help="peft==X, and further pins with commas")
    one.add_argument("--missing", action="store_true", help="every release that the index has and the matrix lacks")
    one.add_argument("--no-fixtures", action="store_true", help="declare, lock and build only")
    one.add_argument("--keep-going", action="store_true", help="keep the other fixtures if scenarios are refused")
    one.add_argument("--jobs", type=count, default=0, help="fixtures at once (default: cores)")
    one.add_argument("--dry-run", action="store_true", help="list what would be added")
    one.add_argument("--json", action="store_true", help="print JSON")
    where(one)
    choice(one)
    handler(one)


def add(options: EnvAddOptions) -> int:
    """Add one release, or with `--missing` all that the index has and the matrix lacks."""
    request = options.request
    if bool(request.requirement) == options.missing:
        raise UsageError(
            "env add: both a release and --missing" if options.missing else "env add: no release is named",
            "peft==VERSION, or --missing", "for example: peft-regress env add peft==0.12.0",
        )  # fmt: skip
    scenarios = request.scenarios()
    if options.missing:
        return _missing(options)
    if options.dry_run:
        return _dry_run(options, request.places.environments(common.say).draft(request.requirement), scenarios)
    try:
        added = add_release.add(request, common.say)
    except KeyboardInterrupt:
        return _interrupted(request.requirement)
    if options.json:
        common.out_json(_data(added, request))
    else:
        common.out(markdown(added, _command(request, added.requirement), _where(request)).rstrip())
    return ExitCode.CLEAN if added.whole else ExitCode.CANNOT_TELL


def _interrupted(what: str) -> int:
    common.say(f"peft-regress: interrupted; nothing of {what} was kept, the same command starts again")
    return ExitCode.INTERRUPTED


# -- all that are missing ----------------------------------------------------------------------------------------------


def _missing(options: EnvAddOptions) -> int:
    environments = options.request.places.environments(common.say)
    found = missing_releases.missing(environments.releases.ask(missing_releases.PACKAGE), environments.declarations())
    if not found or options.dry_run:
        return _listed(options, found)
    added: list[Added] = []
    failed: dict[str, HarnessError] = {}
    for place, release in enumerate(found, 1):
        requirement = _requirement(release)
        common.say(f"{requirement} of {release.day} ({place} of {len(found)})")
        request = dataclasses.replace(options.request, requirement=requirement)
        try:
            added.append(add_release.add(request, common.say, environments))
        except HarnessError as error:
            failed[requirement] = error
            common.say(f"{requirement} could not be added: {error}")
        except KeyboardInterrupt:
            _report(options, added, failed)
            return _interrupted(requirement)
    _report(options, added, failed)
    return ExitCode.CANNOT_TELL if failed or not all(one.whole for one in added) else ExitCode.CLEAN


def _requirement(release: Release) -> str:
    return f"{missing_releases.PACKAGE}=={release.version}"


def _listed(options: EnvAddOptions, found: Sequence[Release]) -> int:
    if options.json:
        missing = [{"requirement": _requirement(release), "released": release.day} for release in found]
        common.out_json({"missing": missing, "added": [], "failed": []})
    elif found:
        common.out("\n".join(f"{_requirement(release)}  of {release.day}" for release in found))
        common.out(f"{len(found)} would be added")
    else:
        common.out("nothing is missing: the newest patch of every minor release in the index is declared")
    return ExitCode.CLEAN


def _report(options: EnvAddOptions, added: Sequence[Added], failed: Mapping[str, HarnessError]) -> None:
    """Print each release that was added, then those that could not be, then the count."""
    if options.json:
        wrong = [
            {"requirement": name, "found": error.found, "expected": error.expected, "next": error.next_step}
            for name, error in failed.items()
        ]
        common.out_json({"added": [_data(one, options.request) for one in added], "failed": wrong})
        return
    for one in added:
        common.out(markdown(one, _command(options.request, one.requirement), _where(options.request)))
    for requirement, error in failed.items():
        common.out(f"{requirement} could not be added: {error}\n")
    common.out(f"{len(added)} added, {len(failed)} could not be")


# -- output ------------------------------------------------------------------------------------------------------------


def _dry_run(options: EnvAddOptions, draft: Draft, scenarios: Sequence[Declared]) -> int:
    """Print what would be added, by the packages that the release resolves to; nothing is written."""
    admitted = [one.name for one in scenarios if not matrix.unstored(one, draft.packages)]
    if options.json:
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


def _data(added: Added, request: AddRequest) -> dict[str, object]:
    commands = {"command": _command(request, added.requirement), "next": added.next_steps(_where(request))}
    return added.data() | commands


def _command(request: AddRequest, requirement: str) -> str:
    """The command that adds this release alone."""
    words = ["peft-regress", "env", "add", requirement]
    words += ["-k", request.selection.keyword] if request.selection.keyword else []
    words += [f"--family={name}" for name in request.selection.families]
    words += ["--keep-going"] * request.keep_going + ["--no-fixtures"] * request.no_fixtures
    return shlex.join(words) + _where(request)


def _where(request: AddRequest) -> str:
    given = {"--matrices": request.places.matrices, "--fixtures": request.places.fixtures}
    options = [(option, place) for option, place in given.items() if place]
    options += [("--scenarios", place) for place in request.selection.scenarios]
    return "".join(f" {option} {shlex.quote(common.shown(place))}" for option, place in options)


def markdown(added: Added, command: str, where: str = "") -> str:
    """A summary for a pull request.

    Args:
        command: the one that was run.
        where: options that name where matrices and fixtures are, with a blank before them.
    """
    peft = added.versions.get("peft", added.requirement)
    shown = [name for name in FIRST_PACKAGES if name in added.versions]
    blocks = [
        f"### PEFT {prose(peft)}: {code(added.name)}",
        f"Released {added.released}; Python {prose(added.python)}; {len(added.versions):,} packages; "
        f"done in {seconds(added.seconds)}.",
        table(shown, [[code(added.versions[name]) for name in shown]]),
        *(_fixtures(added) if added.fixtures else ["No fixtures were requested."]),
        "Added by the first command; run the second next:\n\n" + fenced("\n".join([command, *added.next_steps(where)])),
    ]
    return "\n\n".join(blocks) + "\n"


def _fixtures(added: Added) -> list[str]:
    made, verdicts = added.of("made"), ", ".join(f"{count:,} {verdict}" for verdict, count in added.verdicts.items())
    counts = [many(len(made), "fixture") + " made", f"{len(added.of('unsupported')):,} unsupported"]
    counts += [f"{len(added.of('refused')):,} refused", *_some(len(added.of("deviates")), "loaded with other results")]
    lines = [
        f"- {', '.join(counts)}; {added.size / 1e6:.2f} MB added",
        f"- self-check, each loaded again by {code(added.name)} itself: {verdicts or 'nothing to check'}",
    ]
    blocks = ["\n".join(lines)]
    blocks += _titled("Not kept", [(one.scenario, one.detail) for one in added.outcomes if _failed(one)], "scenario")
    again = Counter(one.detail for one in added.of("made") if one.detail)
    blocks += _titled(
        "Reported when it was loaded again", [(f"{n:,}", text) for text, n in again.most_common()], "scenarios"
    )
    standing = [(f"{count:,}", text) for text, count in added.defects.items()]
    blocks += _titled("Standing defects: checks that its own library fails", standing, "scenarios")
    reasons = Counter(one.detail for one in added.of("unsupported"))
    return blocks + _titled("Unsupported", [(f"{count:,}", text) for text, count in reasons.most_common()], "scenarios")


def _some(count: int, words: str) -> list[str]:
    return [f"{count:,} {words}"] if count else []


def _failed(one: Outcome) -> bool:
    return one.outcome in ("refused", "deviates")


def _titled(title: str, rows: Sequence[tuple[str, str]], first: str) -> list[str]:
    if not rows:
        return []
    shown = table([first, "what"], [[code(head), code(clip(text, 300))] for head, text in rows])
    return [f"**{title}**\n\n{shown}"]
