"""In which release of a library a cell's verdict changes, and in which commit.

Example:
    request = BisectRequest(SearchRequest(CellRequest("lokr-alpha-differs")), package="peft")
    print(bisect(request).sentence)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from packaging.version import Version

from harness.core.errors import UsageError
from harness.core.matrix import CellId
from harness.core.progress import Log, quiet
from harness.core.versions import version_of
from harness.deviation.search import rows
from harness.deviation.search.candidates import Held, PeriodTrue, plain_versions
from harness.deviation.search.coupling import LIKELY
from harness.deviation.search.outcome import KIND_WORDS
from harness.deviation.search.trials import Refused
from harness.deviation.search.turning_point import Kinds, Line, TurningPoint, border, turning_point, wrong_end
from harness.deviation.search.work import SearchRequest, Work, work
from harness.envs import missing_releases
from harness.envs.environment import EnvFailed, Environment
from harness.envs.index import Known

Rest = Literal["held", "period-true"]
"""The packages around the bisected one: as in one environment, or as of each release's day."""
RESTS: tuple[Rest, Rest] = ("held", "period-true")
_Context = Held | PeriodTrue


@dataclass(frozen=True)
class BisectRequest:
    """What is bisected.

    Attributes:
        package: default: the culprit that `blame` found, else the likeliest package that differs.
        good: a release in which the cell is clean; with `clone` also a commit, tag or branch. Default: as in the
            environment in which the cell is clean.
        bad: a release or commit in which the cell deviates. Default: as in the environment in which it deviates.
        find_fix: the good release is newer than the bad one; find the first good one.
        pre: include pre-releases.
        rest: default: held; a PEFT release that cannot be tested that way is tried with the packages of its day.
        clone: a clone of the package: continue to the commit.
    """

    search: SearchRequest
    package: str = ""
    good: str = ""
    bad: str = ""
    find_fix: bool = False
    pre: bool = False
    rest: Rest | None = None
    clone: Path | None = None


@dataclass(frozen=True)
class ReleaseAnswer:
    """The release in which the verdict changes.

    Attributes:
        rest: which packages were around it, in words.
        left_out: release → why it was not considered.
        count: releases in the row.
        compare: address of the changes between the two releases; empty if the repository is unknown.
    """

    at: TurningPoint
    rest: str
    left_out: Mapping[str, str]
    count: int
    compare: str


@dataclass(frozen=True)
class CommitAnswer:
    """The commit in which the verdict changes."""

    at: TurningPoint
    repository: Path
    commit: str

    def data(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self.at) | {"repository": str(self.repository), "commit": self.commit}


@dataclass(frozen=True)
class Answer:
    """Where a verdict changes: in a release, in a commit, or both.

    Attributes:
        notes: what limits the answer.
        spent: seconds, environments built, cells run, results taken from the journal.
    """

    cell: CellId
    package: str
    releases: ReleaseAnswer | None
    commits: CommitAnswer | None
    notes: tuple[str, ...]
    spent: Mapping[str, float]
    journal: Path

    @property
    def sentence(self) -> str:
        """The answer: `peft 0.14.0 (2024-12-06) is the first that deviates; peft 0.13.2 is the last that is clean`."""
        first = self.releases or self.commits
        assert first is not None
        return first.at.sentence

    def data(self) -> dict[str, Any]:
        """The answer as JSON."""
        data: dict[str, Any] = {"cell": str(self.cell), "package": self.package}
        commits = self.commits.data() if self.commits else None
        if (one := self.releases) is not None:
            data |= asdict(one.at)
            data |= {"rest": one.rest, "left_out": dict(one.left_out), "releases": one.count, "compare": one.compare}
            data |= {"commits": commits} if commits else {}
        else:
            data |= commits or {}
        return data | {"spent": dict(self.spent), "journal": str(self.journal)}


def bisect(request: BisectRequest, log: Log = quiet) -> Answer:
    """Find the release, and with a clone the commit, in which a cell's verdict changes.

    The answer is also written to `bisect/CELL-PACKAGE.json` in the reports folder, beside the journal of what was
    tried. A search that was interrupted continues from the journal.

    Raises:
        UsageError: there is no such cell, environment, package, release or commit, or the order of the ends is wrong.
        Refused: an end is not clean or not deviating as requested, or is flaky.
        HarnessError: an environment, the network or the disk failed.
    """
    with work(request.search, "bisect", f"-{request.package}" if request.package else "", log) as under_way:
        package = request.package or _package(under_way)
        under_way.trials.deviates(under_way.bad)
        answer = _Bisect(request, under_way, package).answer()
        under_way.keep(answer.data())
        return answer


def _package(work: Work) -> str:
    """The package to bisect by default: the culprit that `blame` found, else the likeliest that differs."""
    culprits = [list(one["packages"]) for one in work.blamed()]
    if len(culprits) == 1 and len(culprits[0]) == 1:
        return str(culprits[0][0])
    if work.bad.consumer:
        return work.bad.consumer.package
    old, new = plain_versions(work.good)[0], plain_versions(work.bad)[0]
    differing = [package for package in LIKELY if old.get(package) != new.get(package)]
    if not differing:
        raise UsageError(
            f"{work.good.name} and {work.bad.name} have the same {', '.join(LIKELY[:5])}", "a package to bisect",
            "name it with --package; `peft-regress blame` finds out which one it is",
        )  # fmt: skip
    return differing[0]


class _Bisect:
    """One bisection: of releases, of commits, or of commits between two releases."""

    def __init__(self, request: BisectRequest, work: Work, package: str) -> None:
        self.request = request
        self.work = work
        self.package = package
        self.notes: list[str] = []

    def answer(self) -> Answer:
        good, bad = self.request.good, self.request.bad
        releases: ReleaseAnswer | None = None
        commits: CommitAnswer | None = None
        if self.request.clone and not _are_versions(good, bad):
            commits = self._commits(self.request.clone, good, bad, self._held(self.work.bad))
        else:
            releases, commits = self._releases()
        trials = self.work.trials
        return Answer(
            self.work.question.id, self.package, releases, commits, tuple(self.notes), trials.spent.data(),
            trials.journal,
        )  # fmt: skip

    # -- releases -----------------------------------------------------------------------------------------------------

    def _releases(self) -> tuple[ReleaseAnswer, CommitAnswer | None]:
        package = self.package
        first, last, kinds = self._ends()
        row = rows.releases_between(
            self._known, package, first, last, self.work.bad.python, pre=self.request.pre,
            extracted=self.work.extracts(package),
        )  # fmt: skip
        names = [release.version for release in row.releases]
        left = f"; left out: {', '.join(f'{v} ({why})' for v, why in row.left_out.items())}" if row.left_out else ""
        self.work.log(f"{package} {names[0]} … {names[-1]}: {len(names)} releases{left}")
        context, line = self._verified(names, {f"{package} {one.version}": one.day for one in row.releases}, kinds)
        found = border(self.work, line, kinds)
        before, after = names[found.before], names[found.after]
        releases = ReleaseAnswer(
            turning_point(line, found, kinds), context.words, row.left_out, len(names),
            rows.compare_url(package, before, after),
        )  # fmt: skip
        if self.request.clone is None:
            return releases, None
        held = context if isinstance(context, Held) else self._held(self.work.bad)
        good, bad = (before, after) if kinds[0] == "good" else (after, before)
        return releases, self._commits(self.request.clone, good, bad, held)

    def _ends(self) -> tuple[str, str, Kinds]:
        """The older and the newer end, and what each should be."""
        request, work = self.request, self.work
        good = request.good or _version(self.package, work.good, "--good")
        bad = request.bad or _version(self.package, work.bad, "--bad")
        if request.find_fix and not request.good:
            good = self._known.newest
        first, last = sorted((good, bad), key=_parsed)
        kinds: Kinds = ("good", "bad") if first == good else ("bad", "good")
        if request.find_fix != (kinds == ("bad", "good")):
            what = "with --find-fix, the good release" if request.find_fix else "the good release"
            raise UsageError(
                f"{what} ({self.package} {good}) is {'older' if first == good else 'newer'} than the bad one ({bad})",
                "the bad release first with --find-fix, the good release first without it",
                "exchange them, or " + ("leave out --find-fix" if request.find_fix else "add --find-fix"),
            )
        return first, last, kinds

    def _verified(self, names: Sequence[str], days: Mapping[str, str], kinds: Kinds) -> tuple[_Context, Line]:
        """The first of the contexts in which both ends are what they should be."""
        wrong = []
        for context in self._contexts():
            line = self._line(names, days, context)
            words = f", {context.words}"
            if (end := wrong_end(self.work, line, kinds, words)) is None:
                return context, line
            expected = KIND_WORDS[kinds[0 if end == 0 else 1]]
            wrong.append(f"  {line.names[end]}{words}: {line.entries[end].shown}, expected: {expected}")
        raise Refused(
            "the ends are not what they should be:\n" + "\n".join(wrong),
            f"{self.package} {names[0]} {KIND_WORDS[kinds[0]]}, {names[-1]} {KIND_WORDS[kinds[1]]}",
            "run `peft-regress blame` to find the library; or name other ends with --good and --bad, or try "
            "--rest period-true",
        )

    def _contexts(self) -> list[_Context]:
        """The packages around the bisected one, in the order in which they are tried."""
        if self.request.rest == "period-true":
            return [PeriodTrue()]
        # period-true is never a default: with all packages of another day, another one may change the verdict
        work = self.work
        found: list[_Context] = []
        for one in work.blamed():
            versions = dict(one["bad"]["versions"])
            if list(one["packages"]) == [self.package] and versions != plain_versions(work.bad)[0]:
                found.append(Held("all else as in the pair that blame found", versions, {}, work.bad.python))
        return [*found, *(self._held(end) for end in (work.bad, work.good))]

    def _held(self, end: Environment) -> Held:
        versions, overlays = plain_versions(end)
        return Held(f"all else as in {end.name}", versions, overlays, self.work.bad.python)

    def _line(self, names: Sequence[str], days: Mapping[str, str], context: _Context) -> Line:
        package, environments = self.package, self.work.environments

        def make(one: _Context) -> Callable[[int], Environment]:
            return lambda point: one.environment(environments, package, names[point])

        falls_back = isinstance(context, Held) and self.request.rest is None and package == missing_releases.PACKAGE
        fallback = make(PeriodTrue()) if falls_back else None
        return Line([f"{package} {name}" for name in names], make(context), fallback, days, f"{package} ")

    @cached_property
    def _known(self) -> Known:
        """All releases: from the index, or from the last answer of the index if it cannot be reached."""
        index = self.work.environments.releases
        try:
            return index.ask(self.package)
        except EnvFailed:
            known = index.kept(self.package)
            if not known.releases:
                raise
            self.notes.append(f"the index cannot be reached; the releases of {self.package} are those of {known.day}")
            return known

    # -- commits ------------------------------------------------------------------------------------------------------

    def _commits(self, clone: Path, good: str, bad: str, held: Held) -> CommitAnswer:
        if not good or not bad:
            raise UsageError("commits have no default", "--good REF and --bad REF", "name both, or releases")
        fix = self.request.find_fix
        kinds: Kinds = ("bad", "good") if fix else ("good", "bad")
        commits = rows.commits_between(clone, *((bad, good) if fix else (good, bad)))
        names = [f"{self.package} at {commit[:12]}" for commit in commits]
        subjects = {end: rows.subject(clone, commits[end]) for end in (0, len(commits) - 1)}
        self.work.log(f"{clone}: {len(commits)} commits from {subjects[0]} to {subjects[len(commits) - 1]}")
        line = Line(names, lambda point: self._environment_at(clone, commits[point], held))
        if (end := wrong_end(self.work, line, kinds)) is not None:
            raise Refused(
                f"{names[end]} ({subjects[end]}): {line.entries[end].shown}",
                f"an end that is {KIND_WORDS[kinds[0 if end == 0 else 1]]}", "name others with --good and --bad",
            )  # fmt: skip
        found = border(self.work, line, kinds)
        line.days = {names[point]: rows.subject(clone, commits[point]) for point in (found.before, found.after)}
        return CommitAnswer(turning_point(line, found, kinds), clone, commits[found.after])

    def _environment_at(self, clone: Path, commit: str, held: Held) -> Environment:
        overlay = self.work.environments.commit(clone, commit)
        if overlay.package != self.package:
            raise UsageError(f"{clone} builds {overlay.package}", f"a clone of {self.package}", "check --repo")
        return held.commit(self.work.environments, overlay)


def _version(package: str, end: Environment, option: str) -> str:
    found = plain_versions(end)[0].get(package, "")
    if (version := version_of(found)) is None:
        raise UsageError(
            f"{end.name} has {f'{package} {found}' if found else f'no {package}'}", "a release of it at each end",
            f"name one with {option}, or another package with --package",
        )  # fmt: skip
    return str(version)


def _parsed(text: str) -> Version:
    if (version := version_of(text)) is None:
        raise UsageError(f"{text!r} is not a version", "a release such as 0.13.2", "pass --repo for commits")
    return version


def _are_versions(*texts: str) -> bool:
    return all(version_of(text) for text in texts if text)
