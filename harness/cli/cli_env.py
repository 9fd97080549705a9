"""The command line of `env …`."""

from __future__ import annotations

from typing import Any

from harness.cli import env, env_add
from harness.cli.parser import SPEC, Parser, command, where


def add_to(commands: Any) -> None:
    """Add `env …`."""
    group = commands.add_parser("env", help="the environments that fixtures are made and replayed in",
                                description="The environments that fixtures are made and replayed in.")  # fmt: skip
    inner = group.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    one = command(inner, "list", env.list_, "list the declared environments", "  peft-regress env list --json")
    where(one, fixtures=False)
    one.add_argument("--json", action="store_true", help="for a program")
    one = command(inner, "build", env.build, "build environments that are not built yet",
                   "  peft-regress env build\n  peft-regress env build v061-torch21\n"
                   "  peft-regress env build current --wheelhouse wheelhouse-current    without network")  # fmt: skip
    one.add_argument("spec", nargs="*", metavar="SPEC", help=f"{SPEC} (default: all declared, but for those on demand)")
    where(one, fixtures=False)
    one.add_argument("--wheelhouse", metavar="DIR", help="of the wheels that `env pack` put there; asks no index")
    one.add_argument("--dry-run", action="store_true", help="say what would be built")
    one = command(inner, "pack", env.pack, "put all wheels of an environment into a folder",
                   "  peft-regress env pack current\n"
                   "  peft-regress env pack v061 --to /media/usb/v061 --torch-build cu126\n"
                   "  (there)  peft-regress env build v061 --wheelhouse v061\n"
                   "  (there)  python3.11 v061/install.py VENV            with nothing but Python")  # fmt: skip
    one.add_argument("spec", metavar="NAME", help="a declared environment, or pins (peft==0.9.0)")
    one.add_argument("--to", metavar="DIR", help="an empty or new folder (default: wheelhouse-NAME)")
    one.add_argument(
        "--platform", action="append", default=[], metavar="TAG",
        help="of the other machine, where it is another: manylinux_2_28_x86_64 (repeatable; default: this one's)",
    )  # fmt: skip
    one.add_argument(
        "--torch-build", default="", metavar="TAG", help="Torch's build: cpu, cu126, … (default: what the index offers)"
    )
    where(one, fixtures=False)
    one = command(inner, "lock", env.lock, "resolve declared environments anew and write their locks",
                   "  peft-regress env lock current")  # fmt: skip
    one.add_argument("name", nargs="+", metavar="NAME")
    where(one, fixtures=False)
    env_add.add_to(inner)
    one = command(inner, "rm", env.remove, "delete what is built of an environment from the cache",
                   "  peft-regress env rm v061")  # fmt: skip
    one.add_argument("spec", metavar="SPEC")
    where(one, fixtures=False)
    one = command(inner, "gc", env.collect_garbage, "delete cached environments that nothing names any more",
                   "  peft-regress env gc --dry-run")  # fmt: skip
    where(one, fixtures=False)
    one.add_argument("--dry-run", action="store_true", help="say what would be deleted")
