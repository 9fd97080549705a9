"""The command line: parse, call, print, exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from harness import __version__
from harness.commands import add, check, create, docs, environments, fixtures, grid, offline, reports
from harness.errors import ExitCode, HarnessError

_EXIT = """
exit codes:
  0    clean: everything compared is as it was, or deviates as matrices/expectations.toml says
  1    something regressed, or an expectation no longer holds
  2    could not tell: nothing was compared, an environment failed, a fixture is bad
  64   a wrong argument or input file
  130  interrupted; --resume goes on
"""


class Parser(argparse.ArgumentParser):
    """argparse with the documented exit code for wrong usage, and examples that keep their lines."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **more})

    def error(self, message: str) -> NoReturn:
        """Print usage and what is wrong; exit 64."""
        self.print_usage(sys.stderr)
        print(f"{self.prog}: {message}\n  next: see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(int(ExitCode.USAGE))


def parser() -> Parser:
    """The whole command line."""
    top = Parser(
        prog="peft-regress",
        description="Does an adapter that a released PEFT saved still load today, and compute the same thing?",
        epilog="examples:\n"
        "  peft-regress check                                  the stored fixtures under the newest libraries\n"
        "  peft-regress check --loader ../peft -k lokr         … under a checkout, LoKr only\n"
        "  peft-regress pair --creator peft==0.9.0 --loader current\n"
        "  peft-regress show lokr-alpha-differs                one cell of the newest run in full\n" + _EXIT,
    )
    top.add_argument("--version", action="version", version=f"peft-regress {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    _list(commands)
    _create(commands)
    _check(commands)
    _pair(commands)
    _matrix(commands)
    _show(commands)
    _report(commands)
    _fixtures(commands)
    _env(commands)
    _offline(commands)
    _docs(commands)
    return top


def _command(commands: Any, name: str, call: Callable[[argparse.Namespace], int], help: str, examples: str) -> Parser:
    made: Parser = commands.add_parser(name, help=help, description=help + ".", epilog=f"examples:\n{examples}")
    made.set_defaults(call=call)
    return made


def _where(one: Parser, *, fixtures: bool = True) -> None:
    one.add_argument("--matrices", metavar="DIR", help="scenarios, bases and environments outside the repository")
    if fixtures:
        one.add_argument("--fixtures", metavar="DIR", help="where fixtures are (default: the repository's)")


def _choice(one: Parser, scenarios: bool = True) -> None:
    one.add_argument(
        "-k", dest="keyword", metavar="EXPR", help="scenarios whose name matches, for example 'lokr or loha'"
    )
    one.add_argument(
        "--family", action="append", default=[], metavar="NAME", help="scenarios of this family (repeatable)"
    )
    if scenarios:
        one.add_argument(
            "--scenarios", action="append", default=[], metavar="PATH", help="scenario files or folders (default: all)"
        )


def _handler(one: Parser) -> None:
    one.add_argument("--worker-handler", help=argparse.SUPPRESS)  # for tests of everything around the worker


def _saying(one: Parser) -> None:
    one.add_argument("-v", "--verbose", action="count", default=0, help="a line a cell")
    one.add_argument("--json", action="store_true", help="for a program")


def _list(commands: Any) -> None:
    one = _command(commands, "list", reports.list_, "list the scenarios and which creators have fixtures of them",
                   "  peft-regress list -v --family lokr\n  peft-regress list --json")  # fmt: skip
    _where(one)
    _choice(one, scenarios=False)
    _saying(one)


def _create(commands: Any) -> None:
    one = _command(
        commands, "create", create.create, "create fixtures under a pinned environment and store them",
        "  peft-regress create v061\n"
        "  peft-regress create v061 -k lokr --replace --reason 'alpha in the declaration was wrong'",
    )  # fmt: skip
    one.add_argument("creator", metavar="CREATOR", help="an environment: a name, peft==X, a checkout, python:PATH")
    _where(one)
    _choice(one)
    _saying(one)
    one.add_argument("--jobs", type=int, default=0, help="how many at once (default: cores)")
    one.add_argument("--replace", action="store_true", help="overwrite fixtures that are there; needs --reason")
    one.add_argument("--reason", metavar="TEXT", help="why stored evidence is replaced; the manifest keeps it")
    one.add_argument("--dry-run", action="store_true", help="say what would be created")
    _handler(one)


def _running(one: Parser) -> None:
    _where(one)
    _choice(one)
    one.add_argument(
        "--cell", action="append", default=[], metavar="ID", help="this cell only (a glob may name several)"
    )
    one.add_argument(
        "--device", default="cpu", choices=["cpu", "cuda"], help="where the loader computes (default: cpu)"
    )
    one.add_argument("--reports", metavar="DIR", help="where the run's folder is made (default: reports/)")
    one.add_argument("--jobs", type=int, default=0, help="cells at once in one process (default: cores)")
    one.add_argument("--time-limit", type=float, metavar="S", help="seconds for a cell, in place of its own limit")
    one.add_argument("--resume", action="store_true", help="go on with the newest unfinished run of the same cells")
    one.add_argument("--strict", action="store_true", help="a new warning fails the run too")
    one.add_argument(
        "--baseline", metavar="RUN", help="compare with an earlier run: regressed, fixed, still, new, gone"
    )
    one.add_argument("--format", choices=["terminal", "markdown"], default="terminal", help="what is printed")
    one.add_argument("--dry-run", action="store_true", help="say which cells would be checked")
    one.add_argument("-q", "--quiet", action="count", default=0, help="the verdict sentence only")
    _saying(one)
    _handler(one)
    runner = one.add_argument_group("of pytest, which is the runner")
    runner.add_argument(
        "-n", dest="numprocesses", metavar="N", help="processes (xdist); cells of one loader stay together"
    )
    runner.add_argument("-x", dest="exitfirst", action="store_true", help="stop at the first deviation")
    runner.add_argument("--lf", dest="last_failed", action="store_true", help="only what failed last time")
    runner.add_argument("--co", "--collect-only", dest="collect_only", action="store_true", help="list the cells")
    runner.add_argument("--junitxml", metavar="FILE", help="pytest's own JUnit file, besides the run's")
    runner.add_argument("pytest", nargs="*", metavar="-- ARG", help="anything else for pytest, after --")


_SPEC = "a name, peft==X, several pins with commas, a checkout's path, a git URL with a ref, python:PATH"


_EACH = "compute each cell by itself, those too that the loader cannot tell apart"
_FORWARD = "try a loader too that lacks a scenario's feature by declaration: does it refuse, or load something else?"


def _check(commands: Any) -> None:
    one = _command(
        commands, "check", check.check, "replay stored fixtures under loaders and say what deviates",
        "  peft-regress check\n"
        "  peft-regress check --creator v061 --loader peft==0.20.0 -k 'lokr or loha'\n"
        "  peft-regress check --loader ../peft --baseline reports/20261122-v061-current\n"
        "  peft-regress check --loader python:/opt/venv/bin/python --format markdown\n" + _EXIT,
    )  # fmt: skip
    whose = one.add_mutually_exclusive_group()
    whose.add_argument(
        "--creator", action="append", default=[], metavar="NAME", help="whose fixtures (default: all that are stored)"
    )
    whose.add_argument(
        "--all", action="store_true", help="every creator's: those that are stored, and those made on demand"
    )
    one.add_argument("--loader", action="append", default=[], metavar="SPEC", help=f"{_SPEC} (default: current)")
    one.add_argument("--forward", action="store_true", help=_FORWARD)
    one.add_argument("--each", action="store_true", help=_EACH)
    _running(one)


def _matrix(commands: Any) -> None:
    one = _command(
        commands, "matrix", grid.matrix, "replay the fixtures of several creators under several loaders",
        "  peft-regress matrix --creators all --loaders current\n"
        "  peft-regress matrix --creators v0191,v0200 --loaders 'v01*' -k lora       new under old\n"
        "  peft-regress matrix --creators all --loaders all -n 2                     old under new, new under old\n"
        "  peft-regress matrix --creators v061 --loaders v082,current --loaders peft==0.9.0,transformers==4.38.2\n"
        + _EXIT,
    )  # fmt: skip
    one.add_argument(
        "--creators", action="append", required=True, metavar="A,B,…",
        help="whose fixtures: names with commas, globs ('v01*') among those that have some, or all (repeatable)",
    )  # fmt: skip
    one.add_argument(
        "--loaders", action="append", required=True, metavar="X,Y,…",
        help="what reloads them: as --loader of check, with commas between them, globs of declared environments, or "
        "all; several pins in one value are one environment (repeatable)",
    )  # fmt: skip
    one.add_argument("--each", action="store_true", help=_EACH)
    _running(one)


def _pair(commands: Any) -> None:
    one = _command(
        commands, "pair", check.pair, "create in one environment and replay in another, storing nothing but the report",
        "  peft-regress pair --creator peft==0.9.0 --loader current\n"
        "  peft-regress pair --creator v061 --loader ../peft --scenarios my-scenarios.toml -k my-adapter\n"
        "  peft-regress pair --creator peft==0.13.2,transformers==4.36.2 --loader peft==0.14.0\n" + _EXIT,
    )  # fmt: skip
    one.add_argument("--creator", action="append", required=True, metavar="SPEC", help=_SPEC)
    one.add_argument("--loader", action="append", required=True, metavar="SPEC", help=_SPEC)
    _running(one)


def _show(commands: Any) -> None:
    one = _command(commands, "show", check.show_cell, "print one cell of a run in full",
                   "  peft-regress show lokr-alpha-differs\n"
                   "  peft-regress show 'lokr-alpha-differs@v061:current[cpu]' reports/20261122-x")  # fmt: skip
    one.add_argument("cell", metavar="CELL", help="a cell's id, or a part of it that only one cell has")
    one.add_argument("run", metavar="RUN", nargs="?", help="a run's folder (default: the newest)")
    one.add_argument("--reports", metavar="DIR", help="where runs are (default: reports/)")
    one.add_argument("--json", action="store_true", help="for a program")


def _report(commands: Any) -> None:
    one = _command(commands, "report", reports.report_, "render a run again, or merge the shards of one plan",
                   "  peft-regress report reports/20261122-v061-current --format markdown\n"
                   "  peft-regress report shard-1 shard-2 --out merged\n"
                   "  peft-regress report reports/x --format csv --out x.csv")  # fmt: skip
    one.add_argument("run", nargs="+", metavar="RUN", help="a run's folder or its report.json")
    formats = ["terminal", "markdown", "json", "html", "junit", "csv", "parquet"]
    one.add_argument("--format", choices=formats, default="terminal")
    one.add_argument("--out", metavar="PATH", help="a folder for all formats; for csv and parquet a file")
    one.add_argument("-v", "--verbose", action="count", default=0, help="a line a cell")
    other = _command(commands, "diff", reports.diff, "compare two runs: regressed, fixed, still, new, gone",
                     "  peft-regress diff reports/yesterday reports/today --format markdown")  # fmt: skip
    other.add_argument("before", metavar="RUN_A")
    other.add_argument("now", metavar="RUN_B")
    other.add_argument("--format", choices=["terminal", "markdown"], default="terminal")
    _saying(other)


def _fixtures(commands: Any) -> None:
    group = commands.add_parser(
        "fixtures", help="look after the stored fixtures", description="Look after the stored fixtures."
    )
    inner = group.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    one = _command(inner, "verify", create.verify, "check every stored file against its size and SHA-256",
                   "  peft-regress fixtures verify\n"
                   "  peft-regress fixtures verify --recreate v061    make them anew: the same bytes?")  # fmt: skip
    one.add_argument("--recreate", metavar="CREATOR", help="make this creator's fixtures anew, and compare the bytes")
    _where(one)
    _choice(one)
    _saying(one)
    one.add_argument("--jobs", type=int, default=0, help="how many at once (default: cores)")
    _handler(one)
    other = _command(
        inner, "prune", create.prune, "remove blobs that no manifest names", "  peft-regress fixtures prune --dry-run"
    )
    _where(other)
    other.add_argument("--dry-run", action="store_true", help="say what would be removed")
    one = _command(
        inner, "diff", fixtures.diff, "hold what two creators wrote for the same scenarios against each other",
        "  peft-regress fixtures diff v071 v082\n"
        "  peft-regress fixtures diff v0140 v0212 -k lora -v\n\n"
        "exit codes: 0 nothing differs (but version strings), 1 something does, 2 nothing could be compared",
    )  # fmt: skip
    one.add_argument("a", metavar="A", help="a creator that has fixtures")
    one.add_argument("b", metavar="B", help="another")
    other = _command(
        inner, "history", fixtures.history, "how often each scenario's adapter changed its form over the releases",
        "  peft-regress fixtures history\n  peft-regress fixtures history -v lora-bias-all",
    )  # fmt: skip
    other.add_argument("scenario", nargs="*", metavar="SCENARIO", help="names or globs (default: all)")
    for each in (one, other):
        _where(each)
        _choice(each, scenarios=False)
        each.add_argument("-v", "--verbose", action="count", default=0, help="each change with all that it touches")
        each.add_argument("--json", action="store_true", help="for a program")


def _env(commands: Any) -> None:
    group = commands.add_parser("env", help="the environments that fixtures are made and replayed in",
                                description="The environments that fixtures are made and replayed in.")  # fmt: skip
    inner = group.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    one = _command(
        inner, "list", environments.list_, "list the declared environments", "  peft-regress env list --json"
    )
    _where(one, fixtures=False)
    one.add_argument("--json", action="store_true", help="for a program")
    one = _command(inner, "build", environments.build, "build environments that are not built yet",
                   "  peft-regress env build\n  peft-regress env build v061-torch21")  # fmt: skip
    one.add_argument(
        "spec", nargs="*", metavar="SPEC", help=f"{_SPEC} (default: all declared, but for those on demand)"
    )
    _where(one, fixtures=False)
    one.add_argument("--dry-run", action="store_true", help="say what would be built")
    one = _command(inner, "lock", environments.lock, "resolve declared environments anew and write their locks",
                   "  peft-regress env lock current")  # fmt: skip
    one.add_argument("name", nargs="+", metavar="NAME")
    _where(one, fixtures=False)
    one = _command(inner, "add", add.add, "make a release of PEFT a creator: declare, lock, build, create its fixtures",
                   "  peft-regress env add peft==0.12.0\n"
                   "  peft-regress env add peft==0.13.2,transformers==4.36.2 --keep-going\n"
                   "  peft-regress env add peft==0.12.0 --dry-run\n"
                   "  peft-regress env add --missing      every minor release's newest patch that has no environment\n"
                   "\nAll of it, or nothing: where a step fails, neither declaration nor fixtures stay. What was done\n"
                   "is printed as Markdown, for a pull request.\n"
                   "\nexit codes:\n  0    added; with --missing: all of them, or there were none\n"
                   "  2    it does not resolve, build or import; a scenario was refused (the others are kept with\n"
                   "       --keep-going); with --missing: some could not be added\n"
                   "  64   no such release, a yanked one, none for this Python, or declared already\n"
                   "  130  interrupted; nothing half-made is kept")  # fmt: skip
    one.add_argument("requirement", nargs="?", metavar="REQUIREMENT", help="peft==X, and further pins with commas")
    one.add_argument("--missing", action="store_true", help="every release that the registry has and the matrix lacks")
    one.add_argument("--no-fixtures", action="store_true", help="declare, lock and build only")
    one.add_argument("--keep-going", action="store_true", help="keep what could be made though scenarios were refused")
    one.add_argument("--jobs", type=int, default=0, help="how many at once (default: cores)")
    one.add_argument("--dry-run", action="store_true", help="say what would be done")
    one.add_argument("--json", action="store_true", help="for a program")
    _where(one)
    _choice(one)
    _handler(one)
    one = _command(inner, "rm", environments.remove, "delete what is built of an environment from the cache",
                   "  peft-regress env rm v061")  # fmt: skip
    one.add_argument("spec", metavar="SPEC")
    _where(one, fixtures=False)
    one = _command(inner, "gc", environments.collect_garbage, "delete cached environments that nothing names any more",
                   "  peft-regress env gc --dry-run")  # fmt: skip
    _where(one, fixtures=False)
    one.add_argument("--dry-run", action="store_true", help="say what would be deleted")


def _offline(commands: Any) -> None:
    one = _command(commands, "export", offline.export, "write worker, plan and fixtures for another machine",
                   "  peft-regress export box --creator v061 --device cuda\n"
                   "  (there)  python box/worker --plan box/plan.json --out box/out --device cuda\n"
                   "  (here)   peft-regress judge box")  # fmt: skip
    one.add_argument("folder", metavar="DIR")
    one.add_argument(
        "--creator", action="append", default=[], metavar="NAME", help="whose fixtures (default: all there are)"
    )
    one.add_argument(
        "--loader", default="current", metavar="SPEC", help="what the other machine has, about (default: current)"
    )
    one.add_argument("--name", help="what the other machine's environment is called in the report")
    one.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    _where(one)
    _choice(one, scenarios=False)
    one = _command(commands, "judge", offline.judge, "compare what a worker left in a folder, and write the report",
                   "  peft-regress judge box\n  peft-regress judge box --out box/out --json")  # fmt: skip
    one.add_argument("folder", metavar="DIR", help="what `export` wrote")
    one.add_argument("--out", metavar="DIR", help="what the worker wrote (default: DIR/out)")
    one.add_argument("--reports", metavar="DIR", help="where the run's folder is made (default: reports/)")
    _where(one)
    one.add_argument("--json", action="store_true", help="for a program")


def _docs(commands: Any) -> None:
    one = _command(
        commands, "docs", docs.docs, "write the generated pages under docs/",
        "  peft-regress docs\n  peft-regress docs --check      exit 1 if a page is not up to date",
    )  # fmt: skip
    one.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is not up to date")
    one.add_argument("--out", metavar="DIR", help="where the pages are (default: docs/)")
    _where(one)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    try:
        parsed = parser().parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0) if not isinstance(end.code, str) else int(ExitCode.USAGE)
    try:
        return int(parsed.call(parsed))
    except HarnessError as error:
        print(f"peft-regress: {error}", file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("peft-regress: interrupted; what had finished is kept, --resume goes on", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:  # the reader of our output went away: `| head`
        sys.stderr.close()
        return int(ExitCode.CLEAN)
