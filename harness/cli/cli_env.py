"""The command line of `env …`."""

from __future__ import annotations

from typing import Any

from harness.cli import env, env_add
from harness.cli.parser import SPEC, Parser, choice, command, handler, where


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
    one = command(inner, "add", env_add.add, "add a PEFT release as a creator: declare, lock, build, create fixtures",
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
    where(one)
    choice(one)
    handler(one)
    one = command(inner, "rm", env.remove, "delete what is built of an environment from the cache",
                   "  peft-regress env rm v061")  # fmt: skip
    one.add_argument("spec", metavar="SPEC")
    where(one, fixtures=False)
    one = command(inner, "gc", env.collect_garbage, "delete cached environments that nothing names any more",
                   "  peft-regress env gc --dry-run")  # fmt: skip
    where(one, fixtures=False)
    one.add_argument("--dry-run", action="store_true", help="say what would be deleted")
