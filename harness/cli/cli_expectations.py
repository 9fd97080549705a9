"""The command line of `accept` and `triage`."""

from __future__ import annotations

from typing import Any

from harness.cli import accept, triage
from harness.cli.parser import Parser, command, where

_EXPIRES = "the last day on which it counts (2027-05-31), or how long (90d, '6 months')"


def add_to(commands: Any) -> None:
    """Add `accept` and `triage`."""
    _accept(commands)
    _triage(commands)


def _accept(commands: Any) -> None:
    one = command(
        commands, "accept", accept.accept, "state that cells are known to deviate: write an expectation for them",
        "  peft-regress accept lokr-alpha-differs --issue https://github.com/huggingface/peft/pull/2180"
        " --expires '6 months' --reason 'Since 0.14.0 LoKr scales by alpha/r, whichever release saved the adapter.'\n"
        "  peft-regress accept 'lora-bias-*' --until 'peft<0.22' --issue … --expires 2027-05-31 --reason …\n"
        "  peft-regress accept 'lokr-*' --range peft --dry-run --issue … --expires 90d --reason …\n"
        "  peft-regress accept --renew lokr-scaled-by-alpha-over-r --expires 90d\n"
        "  peft-regress accept --remove lokr-scaled-by-alpha-over-r\n"
        "\nThe entry selects the cells that are named and no other that was judged in the run. It names creators and\n"
        "loaders as they are called there, or by versions with --range, --until, --creators and --loaders. Cells with\n"
        "another verdict or other kinds of findings get an entry of their own. docs/expectations.md tells more.\n"
        "\nexit codes:\n  0    written (or, with --dry-run, would be)\n"
        "  2    the file can't be written, or somebody else changed it meanwhile; it is as it was\n"
        "  64   an unknown cell, one that does not deviate or is expected already, no https address, a day that is\n"
        "       over, a condition that takes in more or less than was named, a damaged file; nothing was written",
    )  # fmt: skip
    one.add_argument(
        "cell", metavar="CELL", nargs="*", help="a cell's id; or a scenario or glob: the unexplained deviations of it"
    )
    _run(one, "--run")
    one.add_argument("--issue", metavar="URL", help="where the deviation is discussed, an https address")
    one.add_argument("--expires", metavar="DATE", help=_EXPIRES)
    one.add_argument("--reason", metavar="TEXT", help="why it deviates, for whoever reads the report")
    one.add_argument("--id", metavar="ID", help="the entry's name (default: made of scenarios and verdict)")
    told = one.add_argument_group("which creators and loaders (default: by their names)")
    _range(told)
    told.add_argument("--creators", metavar="COND", help="a condition (peft<0.7), or names and globs with commas")
    loaders = told.add_mutually_exclusive_group()
    loaders.add_argument("--loaders", metavar="COND", help="likewise")
    loaders.add_argument(
        "--until", metavar="COND", help="from the cells' own version up to this: peft<0.22 (the loader must meet it)"
    )
    more = one.add_argument_group("for readers of docs/known-breaks.md")
    more.add_argument("--since", metavar="TEXT", help="the release that brought it: 'PEFT 0.14.0'")
    more.add_argument("--verified", metavar="TEXT", help="which releases were seen to be fine and which wrong, and how")
    more.add_argument("--workaround", metavar="TEXT", help="what somebody with such an adapter can do")
    there = one.add_argument_group("entries that are there").add_mutually_exclusive_group()
    there.add_argument("--remove", metavar="ID", help="take an entry out: nothing deviates so any more (stale)")
    there.add_argument("--renew", metavar="ID", help="give an entry another --expires: it is still so (expired)")
    one.add_argument("--dry-run", action="store_true", help="show what would change in the file")
    one.add_argument("--json", action="store_true", help="for a program")
    where(one, fixtures=False)


def _triage(commands: Any) -> None:
    one = command(
        commands, "triage", triage.triage_, "walk through a run's unexplained deviations, cause by cause, and decide",
        "  peft-regress triage                               the newest run, on a terminal: accept, skip, see details\n"
        "  peft-regress triage --range peft                  creators and loaders by PEFT's versions\n"
        "  peft-regress triage --draft --output drafts.toml  entries to fill in\n"
        "  peft-regress triage reports/nightly --format markdown\n"
        "  peft-regress triage --blame                       have `blame` say first whose doing each cause is\n"
        "\nEach cause with its cells, where it shows, how large it is, the first layer, what `blame` found, which\n"
        "expectations are like it, and a draft of its entry; then the expectations that do not hold, and what to do.\n"
        "Without a terminal, or with --draft, the drafts are printed as TOML. A draft is no expectation: its issue is\n"
        "no address and its reason is empty, so a file with it is refused until somebody fills in both.\n"
        "\nexit codes:\n  0    looked through, whatever is left\n"
        "  2    a file can't be written\n"
        "  64   no such run, a damaged file, --output names a file that is there\n"
        "  130  interrupted; what was accepted is kept",
    )  # fmt: skip
    _run(one, "run", nargs="?")
    _range(one)
    one.add_argument("--draft", action="store_true", help="print the drafts as TOML, on a terminal too")
    one.add_argument("--format", choices=["toml", "markdown", "text"], help="print this, and ask nothing")
    one.add_argument("--output", metavar="FILE", help="write it to a new file")
    one.add_argument(
        "--blame", action="store_true", help="run `blame` first, for a cell of each cause without a sentence"
    )
    one.add_argument("--json", action="store_true", help="for a program")
    where(one)


def _run(one: Parser, name: str, **more: Any) -> None:
    one.add_argument(name, metavar="RUN", help="a run's folder (default: the newest)", **more)
    one.add_argument("--reports", metavar="DIR", help="where runs are (default: reports/)")


def _range(group: Any) -> None:
    group.add_argument(
        "--range", metavar="PACKAGE", action="append", default=[],
        help="by this package's versions, from the lowest to the highest that was seen to deviate: peft (repeatable)",
    )  # fmt: skip
