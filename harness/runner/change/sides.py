"""The two sides of `check --against`: the change, the baseline, and what differs between them.

If possible, both sides are one environment and differ in the changed package only: a checkout or a release is layered
onto the baseline's own lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from harness.core import run_file
from harness.core.comparison import Against
from harness.core.errors import HarnessError, UsageError
from harness.core.files import expanded
from harness.core.matrix import Declared
from harness.core.run import Run
from harness.core.text import enumerated, similar
from harness.core.versions import version_of
from harness.envs import source_tree
from harness.envs import spec as specs
from harness.envs.environment import BuiltEnvironment, EnvFailed, Environment
from harness.envs.environments import CURRENT, Environments
from harness.runner.change import files as changed_files
from harness.runner.change import touched as touching
from harness.runner.change.files import Changed, Installed
from harness.runner.plan import versions_of

_FORMS = "a declared environment (current, v0200), a clone's ref (../peft@main), or the folder of an earlier run"


@dataclass(frozen=True)
class Sides:
    """The change and the baseline, not built yet."""

    spec: str
    """The change as the user wrote it."""
    change: Environment
    baseline: Environment
    """The environment to compare with; where that is an earlier run, the one that the change is layered onto."""
    package: str
    """The changed package; empty where more than one may differ."""
    tree: Path | None
    """The checkout that the user named; None where the change is none."""
    ref: str
    """The commit of that checkout's clone that is the baseline; empty where the baseline is none."""
    run: Run | None
    """The earlier run that is the baseline; None where it is an environment."""

    @property
    def source(self) -> str:
        """Where the change comes from."""
        overlay = self.change.overlay
        return overlay.source if overlay else self.spec.partition(" over ")[0]


@dataclass(frozen=True)
class Built:
    """Both sides, built."""

    change: BuiltEnvironment
    baseline: BuiltEnvironment


def sides(text: str, baseline: str, environments: Environments) -> Sides:
    """The two sides that the user asks for.

    Args:
        text: the change: a checkout, a git URL, pins, or anything else that a loader may be.
        baseline: what to compare with; empty for the newest release.

    Raises:
        UsageError: one of them does not exist, or both are the same.
        EnvFailed: one can't be described: it does not resolve, or can't be fetched.
    """
    names = environments.names()
    change_spec = specs.parse(text, names)
    if isinstance(change_spec, specs.Over) and not baseline:
        baseline = change_spec.base
    run = _run(baseline, names)
    base_spec = None if run is not None or not baseline else specs.parse(baseline, names)
    package = _package(change_spec, text, environments)
    home = _home(run, baseline if isinstance(base_spec, specs.Named | specs.Pins) else "", package, environments)
    change = environments.describe(_layered(text, change_spec, home))
    of_tree = isinstance(base_spec, specs.Checkout | specs.Git)
    against = environments.describe(specs.over(baseline, home) if of_tree else baseline if base_spec else home)
    if of_tree and against.overlay and package and against.overlay.package != package:
        raise UsageError(
            f"{text!r} is of {package}, and the baseline {baseline!r} of {against.overlay.package}",
            "one package on both sides", _FORMS,
        )  # fmt: skip
    if run is None and against.name == change.name:
        kind = HarnessError if of_tree else UsageError  # two refs with the same content are no mistake of the user
        raise kind(
            f"{text!r} and the baseline are the same to the byte: {change.name}; nothing was compared",
            "a change and another baseline", "name another --baseline",
        )  # fmt: skip
    tree = change_spec.path if isinstance(change_spec, specs.Checkout) else None
    ref = _own_ref(base_spec, tree, against)
    return Sides(text, change, against, package, tree, ref, run)


def _run(text: str, names: Sequence[str]) -> Run | None:
    """An earlier run; None where the text names an environment."""
    path = expanded(text)
    if not text or text in names:
        return None
    if path.is_file() or (path / "report.json").is_file():
        return run_file.load(path)
    try:
        specs.parse(text, names)
    except UsageError as error:
        raise UsageError(f"the baseline {text!r} is no run and no environment: {error.found}", _FORMS,
                         error.next_step) from error  # fmt: skip
    return None


def _package(change_spec: specs.Spec, text: str, environments: Environments) -> str:
    """The package that a change is of; empty where there may be several."""
    match change_spec:
        case specs.Checkout(path):
            return source_tree.package_of(path)[0]
        case specs.Git():
            overlay = environments.describe(text).overlay
            return overlay.package if overlay else ""
        case specs.Pins(pins):
            return pins[0][0] if len(pins) == 1 else ""
        case specs.Over(inner, _):
            return _package(inner, text.rpartition(" over ")[0], environments)
        case _:
            return ""


def _home(run: Run | None, named: str, package: str, environments: Environments) -> str:
    """The environment that the change is layered onto: the baseline's own, or the newest that has the package."""
    if named:
        return named
    loaders = sorted({cell.loader for cell in run.cells}) if run else []
    if len(loaders) == 1 and loaders[0] in environments.names():
        return loaders[0]
    if not package or package in versions_of(environments, CURRENT):
        return CURRENT
    having = {name: found for name in environments.names() if package in (found := versions_of(environments, name))}
    if not having:
        raise UsageError(
            f"no declared environment has {package!r}", "a checkout of a package that some environment has",
            "name the checkout of PEFT, Transformers, bitsandbytes or TRL",
        )  # fmt: skip
    return max(
        having, key=lambda name: (_release(having[name][package]), _release(having[name].get("peft", "0")), name)
    )


def _release(text: str) -> Version:
    return version_of(text) or Version("0")


def _layered(text: str, change_spec: specs.Spec, home: str) -> str:
    """The change as a loader: layered onto the baseline's environment, unless it is a whole environment itself."""
    if isinstance(change_spec, specs.Pins) or (isinstance(change_spec, specs.Checkout | specs.Git) and home != CURRENT):
        return specs.over(text, home)
    return text


def _own_ref(base_spec: specs.Spec | None, tree: Path | None, against: Environment) -> str:
    """The baseline's commit if it is one of the checkout's own clone; else empty."""
    if tree is None or not isinstance(base_spec, specs.Git) or against.overlay is None:
        return ""
    return against.overlay.source.rpartition("@")[2]


def differs(found: Sides, built: Built) -> tuple[str, ...]:
    """What differs between the sides besides the changed package: `package now / before`."""
    sides = (built.change.versions, _versions_of_run(found.run) if found.run else built.baseline.versions)
    now, before = ({canonicalize_name(name): version for name, version in each.items()} for each in sides)
    names = sorted((now.keys() | before.keys()) - {found.package})
    apart = [name for name in names if now.get(name) != before.get(name)]
    return tuple(f"{name} {now.get(name, 'none')} / {before.get(name, 'none')}" for name in apart)


def _versions_of_run(run: Run) -> Mapping[str, str]:
    loaders = {cell.loader for cell in run.cells}
    return next((one.versions for one in run.environments if one.name in loaders and one.versions), {})


def model(found: Sides, built: Built | None = None) -> Against:
    """What the report says about both sides."""
    version = built.change.versions.get(found.package, "") if built else found.change.versions.get(found.package, "")
    return Against(
        package=found.package,
        spec=found.spec,
        source=found.source,
        version=version,
        loader=found.change.name,
        baseline=_in_words(found, built),
        baseline_loader="" if found.run else found.baseline.name,
        differs=differs(found, built) if built else (),
    )


def _in_words(found: Sides, built: Built | None) -> str:
    if found.run is not None:
        return f"run {found.run.id}"
    versions = built.baseline.versions if built else found.baseline.versions
    package = found.package or "peft"
    version = f"{package} {versions[package]} " if package in versions else ""
    where = found.baseline.overlay.source if found.baseline.overlay else found.baseline.name
    return f"{version}({where})"


@dataclass(frozen=True)
class Contents:
    """The changed package as both sides have it."""

    now: Installed | None
    """None where more than one package may differ."""
    before: Installed | None
    """None where the baseline's files are not here."""


def contents(found: Sides, built: Built) -> Contents:
    """The package as it is installed on both sides."""
    if not found.package:
        return Contents(None, None)
    before = changed_files.installed(built.baseline, found.package) if _has_files(found) else None
    return Contents(changed_files.installed(built.change, found.package), before)


def contents_of_trees(found: Sides, environments: Environments) -> Contents | None:
    """The package as its source trees would install it; None where the change must be built first.

    The environments below the trees are built if they are not.
    """
    overlay = found.change.overlay
    if overlay is None or overlay.base is None:
        return None
    base = environments.built(overlay.base) or environments.build(overlay.base.spec)
    known = changed_files.installed(base, found.package)
    now = changed_files.of_tree(overlay.tree, known) if known else None
    if now is None or known is None:
        return None
    if not _has_files(found):
        return Contents(now, None)
    other = found.baseline.overlay
    before = changed_files.of_tree(other.tree, known) if other else known
    same_base = found.baseline.name == overlay.base.name if other is None else True
    return Contents(now, before) if before and same_base else None


def _has_files(found: Sides) -> bool:
    """False for an earlier run of another release than the one under the change."""
    if found.run is None:
        return True
    ran = _versions_of_run(found.run).get(found.package)
    return ran is not None and ran == found.baseline.versions.get(found.package)


def same_program(one: Contents, other: Contents) -> bool:
    """True if the same files differ between both sides, and the change has the same modules."""
    if one.now is None or other.now is None or one.before is None or other.before is None:
        return one == other
    modules = [{name for name in each.now.digests if name.endswith(".py")} for each in (one, other) if each.now]
    apart = [changed_files.differing(each.before, each.now) for each in (one, other) if each.now and each.before]
    return modules[0] == modules[1] and apart[0] == apart[1]


def changed(found: Sides, both: Contents, given: Sequence[str]) -> tuple[Changed | None, str]:
    """The changed files; None, and why, where they are unknown.

    Args:
        given: the names after `--changed-files`; empty without it.
    """
    if both.now is None:
        return None, "more than one package differs"
    if given:
        _refuse_unknown(found, both, given)
        return changed_files.given(given, both.now.tops), ""
    if both.before is None:
        return None, "the baseline's files are not here"
    names = changed_files.differing(both.before, both.now)
    if found.tree is not None:
        git = changed_files.of_git(found.tree, found.ref, both.now.tops, names)
        if git is not None:
            return git, ""
    return Changed(names, f"its files compared with those of {model(found).baseline}"), ""


def _refuse_unknown(found: Sides, both: Contents, given: Sequence[str]) -> None:
    """Refuse names of installed files if neither side has any of them. Single ones may be of files that are gone.

    Raises:
        UsageError: neither has.
    """
    assert both.now is not None
    known = both.now.digests.keys() | (both.before.digests.keys() if both.before else set())
    tree = found.tree or (found.change.overlay.tree if found.change.overlay else None)
    inside = changed_files.given(given, both.now.tops).names
    there = not known.isdisjoint(inside) or any(tree is not None and (tree / name.strip()).exists() for name in given)
    if inside and not there:
        close = similar(inside[0], known, most=2)
        raise UsageError(
            f"--changed-files: neither side has {enumerated(inside, 3)}", "names as `git diff --name-only` prints them",
            f"did you mean {' or '.join(close)}?" if close else "leave it out: the changed files are found",
        )  # fmt: skip


def build(found: Sides, environments: Environments) -> Built:
    """Both sides, built.

    Raises:
        SideFailed: one can't be built.
    """
    made = {}
    # the baseline first: the change's packages are links to it
    for what, environment in (("the baseline", found.baseline), ("the change", found.change)):
        try:
            made[what] = environments.build(environment.spec)
        except EnvFailed as error:
            raise SideFailed(what, environment.name, environment.spec, error) from error
    return Built(made["the change"], made["the baseline"])


class SideFailed(Exception):
    """One of the two sides does not build or import."""

    def __init__(self, what: str, name: str, spec: str, error: EnvFailed) -> None:
        super().__init__(what)
        self.what, self.name, self.spec, self.error = what, name, spec, error


def touched(found: Sides, files: Changed, now: Installed, scenarios: Sequence[Declared]) -> touching.Touched:
    """The scenarios that the changed files can touch."""
    return touching.of(found.package, files.names, now.files, scenarios)
