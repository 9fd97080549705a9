"""`bisect`: in which release of a library a cell's verdict turned, and in which commit."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.version import Version

from harness.cli import common, searching
from harness.cli.searching import Work
from harness.core.errors import ExitCode, UsageError
from harness.core.versions import version_of
from harness.deviation.search import rows
from harness.deviation.search.bisection import Border, dissect
from harness.deviation.search.candidates import plain_versions
from harness.deviation.search.contexts import Held, PeriodTrue
from harness.deviation.search.coupling import LIKELY
from harness.deviation.search.journal import Entry
from harness.deviation.search.outcome import Kind
from harness.deviation.search.trials import Refused
from harness.envs import missing_releases
from harness.envs.environment import EnvFailed, Environment
from harness.envs.index import Known

Context = Held | PeriodTrue


@dataclass
class Line:
    """A row of points to be bisected: how each is called, and how its environment is made.

    Attributes:
        fallback: makes another environment of a point that can't be tested in the first; None where there is none.
    """

    names: Sequence[str]
    environment: Callable[[int], Environment]
    fallback: Callable[[int], Environment] | None = None
    entries: dict[int, Entry] = field(default_factory=dict)


def bisect(arguments: argparse.Namespace) -> int:
    """Find the release, and with a clone the commit, in which a cell's verdict turns."""
    with searching.work(arguments, "bisect", f"-{arguments.package}" if arguments.package else "") as work:
        package = arguments.package or _package(work)
        work.trials.deviates(work.bad)
        data: dict[str, Any] = {"cell": str(work.question.id), "package": package}
        if arguments.repo and not _are_versions(arguments.good, arguments.bad):
            data |= _commits(work, package, arguments.good, arguments.bad, _held(work, work.bad, work.bad.name))
        else:
            data |= _releases(work, package)
        data |= {"spent": work.trials.spent.data(), "journal": str(work.trials.journal)}
        searching.write(work.file, data)
        if arguments.json:
            common.out_json(data)
        else:
            _print(data)
        return ExitCode.CLEAN


def _package(work: Work) -> str:
    """The library that is bisected where nobody names one: the one that `blame` found, else the likeliest."""
    blamed = searching.read(work.file.parent.parent / "blame" / f"{work.question.file_stem}.json")
    culprits = [list(one["packages"]) for one in (blamed or {}).get("culprits", [])]
    if len(culprits) == 1 and len(culprits[0]) == 1:
        return str(culprits[0][0])
    old, new = plain_versions(work.good)[0], plain_versions(work.bad)[0]
    differing = [package for package in LIKELY if old.get(package) != new.get(package)]
    if not differing:
        raise UsageError(
            f"{work.good.name} and {work.bad.name} differ in none of {', '.join(LIKELY[:5])}", "a package to bisect",
            "name it with --package; `peft-regress blame` tells which it is",
        )  # fmt: skip
    return differing[0]


# -- releases ---------------------------------------------------------------------------------------------------------


def _releases(work: Work, package: str) -> dict[str, Any]:
    arguments = work.arguments
    good = arguments.good or _version(package, work.good, "--good")
    bad = arguments.bad or _version(package, work.bad, "--bad")
    if arguments.find_fix and not arguments.good:
        good = _newest(_known(work, package))
    first, last = sorted((good, bad), key=_parsed)
    kinds: tuple[Kind, Kind] = ("good", "bad") if first == good else ("bad", "good")
    if arguments.find_fix != (kinds == ("bad", "good")):
        what = "a fix is looked for, and the good one" if arguments.find_fix else "the good one"
        raise UsageError(
            f"{what} ({package} {good}) is {'older' if first == good else 'newer'} than the bad one ({bad})",
            "a bad release before the good one with --find-fix, the good one before it without",
            "exchange them, or " + ("leave out --find-fix" if arguments.find_fix else "add --find-fix"),
        )
    row = rows.releases_between(_known(work, package), package, first, last, work.bad.python, pre=arguments.pre)
    names = [release.version for release in row.releases]
    days = {release.version: release.day for release in row.releases}
    if not arguments.quiet:
        left = f"; left out: {', '.join(f'{v} ({why})' for v, why in row.left_out.items())}" if row.left_out else ""
        common.say(f"{package} {names[0]} … {names[-1]}: {len(names)} releases{left}")
    context, line = _verified(work, package, names, kinds)
    border = _dissected(work, line, kinds)
    data = _told(line, border, kinds, package, days)
    data |= {"rest": context.words, "left_out": dict(row.left_out), "releases": len(names)}
    before, after = names[border.before], names[border.after]
    data["compare"] = rows.compare_url(package, before, after)
    if arguments.repo:
        held = context if isinstance(context, Held) else _held(work, work.bad, work.bad.name)
        data["commits"] = _commits(work, package, *((before, after) if kinds[0] == "good" else (after, before)), held)
    return data


def _verified(work: Work, package: str, names: Sequence[str], kinds: tuple[Kind, Kind]) -> tuple[Context, Line]:
    """The first of the contexts in which both ends are as they should be."""
    said = []
    for context in _contexts(work, package):
        falls_back = isinstance(context, Held) and work.arguments.rest is None and package == missing_releases.PACKAGE
        fallback = PeriodTrue() if falls_back else None
        line = _line(work, package, names, context, fallback)
        found = {}
        for point, kind in ((0, kinds[0]), (len(names) - 1, kinds[1])):
            work.tell(f"{package} {names[point]}, {context.words}", "an end")
            entry = found[point] = _try(work, line, point, falls_back=False)
            work.told(entry)
            if entry.kind != kind:
                said.append(
                    f"{package} {names[point]}, {context.words}: {searching.shown(entry)}, not {searching.WORDS[kind]}"
                )
                break
        else:
            line.entries |= found
            return context, line
    raise Refused(
        "the ends are not what they should be:\n" + "\n".join(f"  {one}" for one in said),
        f"{package} {names[0]} {searching.WORDS[kinds[0]]}, {names[-1]} {searching.WORDS[kinds[1]]}",
        "ask `peft-regress blame` which library it is; or name others with --good and --bad, or try --rest period-true",
    )


def _contexts(work: Work, package: str) -> list[Context]:
    """What is tried as the packages around: as blame's last pair had them, as the bad end has, as the good end has."""
    found: list[Context] = []
    blamed = searching.read(work.file.parent.parent / "blame" / f"{work.question.file_stem}.json") or {}
    for one in blamed.get("culprits", []):
        held = dict(one["bad"]["versions"])
        if list(one["packages"]) == [package] and held != plain_versions(work.bad)[0]:
            found.append(Held("all else as in the pair that blame found", held, {}, work.bad.python))
    found += [_held(work, end, end.name) for end in (work.bad, work.good)]
    # never of one's own accord: with all else of its time as well, it may be something else that turns the verdict
    return [PeriodTrue()] if work.arguments.rest == PERIOD else found


HELD, PERIOD = "held", "period-true"


def _held(work: Work, end: Environment, name: str) -> Held:
    versions, overlays = plain_versions(end)
    return Held(f"all else as in {name}", versions, overlays, work.bad.python)


def _line(work: Work, package: str, names: Sequence[str], context: Context, fallback: PeriodTrue | None) -> Line:
    def make(one: Context) -> Callable[[int], Environment]:
        return lambda point: one.environment(work.environments, package, names[point])

    return Line([f"{package} {name}" for name in names], make(context), make(fallback) if fallback else None)


def _known(work: Work, package: str) -> Known:
    """All releases: as the registry tells now, or as it told before where it can't be asked."""
    try:
        return work.environments.releases.ask(package)
    except EnvFailed:
        known = work.environments.releases.kept(package)
        if not known.releases:
            raise
        common.say(f"the registry can't be asked; its releases of {package} are those of {known.day}")
        return known


def _newest(known: Known) -> str:
    stable = [v for v, one in known.releases.items() if not one.yanked and not Version(v).is_prerelease]
    return max(stable, key=Version)


def _version(package: str, end: Environment, option: str) -> str:
    found = plain_versions(end)[0].get(package, "")
    version = version_of(found)
    if version is None:
        raise UsageError(
            f"{end.name} has {f'{package} {found}' if found else f'no {package}'}", "a release of it at each end",
            f"name one with {option}, or another package with --package",
        )  # fmt: skip
    return str(version)


def _parsed(text: str) -> Version:
    version = version_of(text)
    if version is None:
        raise UsageError(f"{text!r} is no version", "a release such as 0.13.2", "for commits give --repo")
    return version


# -- commits ----------------------------------------------------------------------------------------------------------


def _are_versions(*texts: str | None) -> bool:
    return all(version_of(text) for text in texts if text)


def _commits(work: Work, package: str, good: str | None, bad: str | None, held: Held) -> dict[str, Any]:
    repository = Path(work.arguments.repo).expanduser().resolve()
    if not good or not bad:
        raise UsageError("commits have no default", "--good REF and --bad REF", "name both, or releases")
    fix = work.arguments.find_fix
    commits = rows.commits_between(repository, *((bad, good) if fix else (good, bad)))
    kinds: tuple[Kind, Kind] = ("bad", "good") if fix else ("good", "bad")
    subjects = {commit: rows.subject(repository, commit) for commit in (commits[0], commits[-1])}
    if not work.arguments.quiet:
        common.say(f"{repository}: {len(commits)} commits from {subjects[commits[0]]} to {subjects[commits[-1]]}")

    def environment(point: int) -> Environment:
        overlay = work.environments.commit(repository, commits[point])
        if overlay.package != package:
            raise UsageError(f"{repository} builds {overlay.package}", f"a clone of {package}", "check --repo")
        return held.commit(work.environments, overlay)

    line = Line([f"{package} at {commit[:12]}" for commit in commits], environment)
    for point, kind in ((0, kinds[0]), (len(commits) - 1, kinds[1])):
        work.tell(line.names[point], "an end")
        line.entries[point] = _try(work, line, point)
        work.told(line.entries[point])
        if line.entries[point].kind != kind:
            raise Refused(
                f"{line.names[point]} ({subjects[commits[point]]}): {searching.shown(line.entries[point])}",
                f"an end that is {searching.WORDS[kind]}", "name others with --good and --bad",
            )  # fmt: skip
    border = _dissected(work, line, kinds)
    shown = {name: rows.subject(repository, commit) for name, commit in zip(line.names, commits, strict=True)
             if commit in (commits[border.before], commits[border.after])}  # fmt: skip
    data = _told(line, border, kinds, "", shown)
    return {**data, "repository": str(repository), "commit": commits[border.after]}


# -- the search -------------------------------------------------------------------------------------------------------


def _dissected(work: Work, line: Line, kinds: tuple[Kind, Kind]) -> Border:
    search = dissect(len(line.names), *kinds)
    try:
        ask = next(search)
        while True:
            work.tell(line.names[ask.point], f"at most {ask.left} left, {ask.between} between")
            with_environment = _environment(line, ask.point)
            if isinstance(with_environment, Environment):
                work.trials.ahead([with_environment])
                ahead = [_environment(line, point) for point in ask.ahead]
                work.trials.ahead([one for one in ahead if isinstance(one, Environment)])
            entry = line.entries[ask.point] = _try(work, line, ask.point)
            work.told(entry)
            ask = search.send(entry.outcome)
    except StopIteration as stop:
        border: Border = stop.value
        return border


def _environment(line: Line, point: int) -> Environment | EnvFailed:
    try:
        return line.environment(point)
    except EnvFailed as error:
        return error


def _try(work: Work, line: Line, point: int, *, falls_back: bool = True) -> Entry:
    """What a point says; where it can't be tested among the packages that are held, among those of its time."""
    entry = _tried(work, line.names[point], line.environment, point)
    if entry.outcome.told or line.fallback is None or not falls_back:
        return entry
    work.told(entry)
    words = f"{line.names[point]}, {PeriodTrue().words}"
    work.tell(words, "instead")
    return _tried(work, words, line.fallback, point)


def _tried(work: Work, words: str, make: Callable[[int], Environment], point: int) -> Entry:
    try:
        environment = make(point)
    except EnvFailed as error:
        return work.trials.untestable(words, words, error)
    return work.trials.outcome(environment, words)


# -- what is told -----------------------------------------------------------------------------------------------------


def _told(line: Line, border: Border, kinds: tuple[Kind, Kind], package: str, days: dict[str, str]) -> dict[str, Any]:
    def point(index: int) -> dict[str, Any]:
        entry = line.entries[index]
        name = line.names[index]
        day = days.get(name.removeprefix(f"{package} ") if package else name, "")
        return {"name": name, "day": day, "result": entry.kind, "why": entry.why, "verdict": entry.verdict}

    before, after = point(border.before), point(border.after)
    turn = "deviates" if kinds[1] == "bad" else "is sound again"
    was = "is sound" if kinds[0] == "good" else "deviates"
    if border.exact:
        said = f"{_dated(after)} is the first that {turn}; {_dated(before)} is the last that {was}"
    else:
        skipped = ", ".join(line.names[index].removeprefix(f"{package} ") for index in border.skipped)
        said = (
            f"it turns after {_dated(before)}, which {was}, and by {_dated(after)}, which {turn}; "
            f"between them could not be tested: {skipped}"
        )
    return {
        "sentence": said, "exact": border.exact, "before": before, "after": after,
        "skipped": [point(index) for index in border.skipped],
        "tried": [point(index) for index in sorted(line.entries)],
    }  # fmt: skip


def _dated(point: dict[str, Any]) -> str:
    return f"{point['name']} ({point['day']})" if point["day"] else str(point["name"])


def _print(data: dict[str, Any]) -> None:
    common.out(data["sentence"] + ".")
    if commits := data.get("commits"):
        common.out(commits["sentence"] + ".")
    if data.get("rest"):
        common.out(f"  {data['rest']}.")
    if data.get("compare"):
        common.out(f"  {data['compare']}")
    for part in (data, data.get("commits") or {}):
        searching.points(part.get("tried", []))
    searching.tell_spent(data)
