"""The command line of `check --against …`."""

from __future__ import annotations

from harness.cli.parser import Parser

_ABOUT = """What a change does to stored adapters: the same cells under the change and under a baseline, in one
environment but for the package that changed. Red is what the change alone made worse; what deviates on both sides is
told as `still`, neither red nor part of the exit code. Whose fixtures: v061's, and the oldest creator's of what 0.6.1
could not make, unless --creator or --all say otherwise. Which scenarios: those that the changed files can affect. What
changed is read from --changed-files, else from git (since the branch left its upstream, with what is not committed),
else from the installed files themselves. Where nothing that is installed changed, one scenario of each family."""


def add_to(one: Parser) -> None:
    """Add the options."""
    group = one.add_argument_group("one change held against a baseline", _ABOUT)
    group.add_argument(
        "--against", metavar="SPEC",
        help="the change: a checkout or an unpacked wheel (../peft, ../transformers; committed or not), PATH@REF, "
        "git+URL@REF, peft==X; compared with --baseline (current, v0200, ../peft@main, or an earlier run; default: "
        "the newest release)",
    )  # fmt: skip
    group.add_argument(
        "--changed-files", nargs="+", metavar="FILE",
        help="names of the changed files as git knows them, or - to read them from stdin, one a line",
    )  # fmt: skip
    group.add_argument(
        "--every-scenario", action="store_true", help="every scenario, whatever changed; --all: of every creator too"
    )
