"""`pair`: create and reload in one go, with scenarios from anywhere; and input files that are wrong."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.support.mini import releases
from tests.support.mini.world import World, main, scenario, until

BASE = """
import numpy as np

def build():
    print("building")
    return {"layer1": np.eye(4, 6, dtype=np.float32), "layer3": np.full((3, 4), 0.25, dtype=np.float32)}
"""

TILTED = scenario("tilted", requires=["minipeft>=3.0"]).replace("alpha = 3.0", "alpha = 3.0, tilt = 2.0")
"""What 1.0 refuses to load and 1.1 loads without the tilt."""


def pair(world: World, *options: str, creator: str = "1.0", loader: str = "2.1") -> tuple[str, ...]:
    return ("pair", "--creator", world.spec(creator), "--loader", world.spec(loader), *options)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder that knows nothing of any matrix, with one scenario and the Python file that makes its base."""
    folder = tmp_path / "my adapters"
    folder.mkdir()
    inputs = 'inputs = { x = { kind = "uniform", shape = [2, 6] } }'
    (folder / "mine.toml").write_text(scenario("mine", base=None, base_file="my_base.py") + inputs)
    (folder / "my_base.py").write_text(BASE)
    return folder


def test_a_scenario_from_outside_with_a_base_in_python(empty: World, elsewhere: Path) -> None:
    said = empty.run(*pair(empty, "--scenarios", str(elsewhere / "mine.toml")))
    assert said.code == 1, said
    found = empty.cell("mine")
    assert (found.verdict, found.fixture_origin) == ("silent-wrong", "created")
    assert found.id == empty.id("mine", "2.1")
    assert not empty.fixtures.exists()
    assert empty.run(*pair(empty, "--scenarios", str(elsewhere), loader="2.0")).code == 0


def test_pair_without_a_matrix_of_its_own(empty: World, elsewhere: Path) -> None:
    """Over the repository's matrix: no --matrices at all."""
    words = [
        w for w in empty.arguments(*pair(empty, "--scenarios", str(elsewhere / "mine.toml"))) if "matrices" not in w
    ]
    assert main(*words).code == 1
    assert empty.cell("mine").verdict == "silent-wrong"


def test_a_folder_with_scenarios_bases_and_expectations(empty: World) -> None:
    empty.expect()
    said = empty.run(*pair(empty))
    assert said.code == 0, said
    assert empty.verdicts() == {"two-layers": "silent-wrong", "one-layer": "exact", "later": "unsupported"}
    assert "1 known break" in said.line


@pytest.mark.slow
def test_several_creators_and_loaders_under_xdist_share_their_workers(empty: World) -> None:
    options = ["--creator", empty.spec("2.0"), "--loader", empty.spec("2.0"), "-n", "2"]
    said = empty.run(*pair(empty, *options))
    assert said.code == 1, said
    report = empty.report()
    assert len(report.cells) == 12
    assert report.counts == {
        "silent-wrong": 3, "exact": 7, "unsupported": 2, "expected": 0, "compared": 10, "planned": 12,
    }  # fmt: skip


def test_what_the_creator_refuses_is_no_fixture(empty: World) -> None:
    empty.scenarios(scenario("impossible", targets=["layer1", "layer9"]))
    said = empty.run(*pair(empty, "-k", "impossible or one-layer", loader="2.0"))
    assert said.code == 2, said
    assert empty.verdicts() == {"impossible": "no-fixture", "one-layer": "exact"}
    assert "the creator's libraries refuse it: KeyError" in empty.cell("impossible").reason


def test_a_creator_that_does_not_import(empty: World) -> None:
    said = empty.run(*pair(empty, creator="2.8", loader="2.0"))
    assert said.code == 2, said
    assert set(empty.verdicts().values()) == {"env-failed"}


WRONG = [
    # what is in the file, what is said of it
    (scenario("x").replace("adapter", "adaptor"), ["unknown key `scenario[0].adaptor`", "did you mean `adapter`?"]),
    (scenario("x").replace('"LowRankConfig"', "3"), ["`scenario[0].adapter.config` = 3", "valid string"]),
    (scenario("x", base="mpl"), ["`scenario[0].base` = 'mpl': no such base", "did you mean 'mlp'?"]),
    (
        scenario("x", base_file="no.py", base=None),
        ["`scenario[0].base_file` = 'no.py'", "a Python file beside this one"],
    ),
    (scenario("x", skip={"fly": "can't"}).replace(": ", " = "), ["`skip`", "fly"]),
    (scenario("x", requires=["peft >> 3"]), ["`scenario[0]", "is no condition"]),
    ("[[scenario]\n", ["not TOML", "line 1"]),
    ("", ["key `scenario` is missing"]),
]


@pytest.mark.parametrize(
    ("text", "words"), WRONG, ids=["key", "type", "base", "file", "skip", "requires", "toml", "empty"]
)
def test_a_wrong_scenario_file(empty: World, text: str, words: list[str]) -> None:
    path = empty.scenarios(text)
    for command in (pair(empty), ("create", empty.spec("1.0")), ("list",)):
        said = empty.run(*command)
        assert said.code == 64, said
        assert said.out == ""
        assert said.err.startswith("peft-regress: ")
        assert all(word in said.err for word in [str(path), *words, "expected: ", "next: "]), said.err
        assert "Traceback" not in said.err
    assert not empty.reports.exists()


def test_a_wrong_base_and_wrong_expectations(mini: World) -> None:
    base = mini.matrices / "bases" / "mlp.toml"
    base.write_text(base.read_text().replace("kind", "kinds"))
    said = mini.run("check", "--loader", mini.spec("2.0"))
    assert said.code == 64
    assert f"{base}: " in said.err
    assert "unknown key `inputs.x.kinds` (did you mean `kind`?)" in said.err
    base.write_text(base.read_text().replace("kinds", "kind"))
    mini.expect(verdict="exact")
    said = mini.run("check", "--loader", mini.spec("2.0"))
    assert said.code == 64
    assert "scaling.toml: `condition[0].verdict` = 'exact'" in said.err
    assert not mini.reports.exists()


def test_one_name_for_two_scenarios(mini: World) -> None:
    mini.scenarios(scenario("one-layer"))
    said = mini.run("check", "--loader", mini.spec("2.0"))
    assert said.code == 64
    assert "scenario name 'one-layer' is taken by" in said.err


LOADERS = [
    # loader, exit code, what is said
    ("nobody", 64, "no environment 'nobody'"),
    ("peft=0.9", 64, "does not pin a version"),
    ("./no-such-checkout", 64, "is not a folder"),
    ("python:/no/such/python", 64, "is not a program"),
]


@pytest.mark.parametrize(("loader", "code", "words"), LOADERS, ids=[row[0] for row in LOADERS])
def test_a_loader_that_nobody_knows(mini: World, loader: str, code: int, words: str) -> None:
    said = mini.run("check", "--loader", loader)
    assert said.code == code, said
    assert words in said.err
    assert "expected: " in said.err
    assert "next: " in said.err


BROKEN = {
    "cannot-run": ("echo no such library libpython >&2; exit 127", "no such library libpython"),
    "dies-at-start": (
        'case "$*" in *--serve*) echo abort: no more room >&2; exit 3;; esac\nexec {python} "$@"',
        "abort: no more room",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_an_interpreter_that_does_not_work(mini: World, kind: str) -> None:
    body, words = BROKEN[kind]
    python = mini.spec("2.0").removeprefix("python:")
    program = releases.script(mini.root / "broken", body.replace("{python}", python))
    said = mini.run("check", "--loader", f"python:{program}", "--loader", mini.spec("2.0"), "-k", "not later")
    assert said.code == 2, said
    verdicts = {cell.loader: str(cell.verdict) for cell in mini.report().cells}
    assert sorted(verdicts.values()) == ["env-failed", "exact"]
    failed = [cell for cell in mini.report().cells if cell.verdict == "env-failed"]
    assert len(failed) == 2
    assert all(words in cell.log_tail and words in cell.reason for cell in failed)
    assert any(words in one.failed for one in mini.report().environments)


def test_a_loader_that_is_older_than_the_feature_is_tried(empty: World) -> None:
    empty.scenarios(TILTED)
    said = empty.run(*pair(empty, "-k", "tilted", creator="3.0", loader="1.1"))
    found = empty.cell("tilted")
    assert (said.code, found.verdict, found.reading) == (1, "silent-wrong", "ignored"), said
    lacks = "lacks the feature (needs minipeft>=3.0, has minipeft 1.1), but does not refuse"
    assert lacks in said.line
    words = shlex.split(found.reproduce)
    assert "--forward" not in words, "`pair` has no such option"
    again = main(*words[1:], f"--reports={empty.root / 'again'}", *[w for w in empty.where("pair") if "handler" in w])
    assert again.code == 1, again


def test_a_loader_that_is_older_than_the_feature_refuses(empty: World) -> None:
    empty.scenarios(TILTED)
    said = empty.run(*pair(empty, "-k", "tilted", creator="3.0", loader="1.0"))
    found = empty.cell("tilted")
    assert (found.verdict, found.reading) == ("unsupported", "refused"), said
    assert "needs minipeft>=3.0, has minipeft 1.0; it refuses at stage adapter: TypeError" in said.line
    assert said.code == 2, "nothing was compared"
    assert "nothing was compared." in said.line
    assert "1 unsupported (1 tried and refused by the loader)." in said.line


SOUND = "import numpy as np\ndef build():\n    return {'layer1': np.ones((8, 6), 'float32')}\n"
BASES = {
    "raises": "raise RuntimeError('\\x1b[2J')\n",
    "exits with 0": "import os; os._exit(0)\n",
    "leaves with 0": "raise SystemExit(0)\n",
    "prints": f"for _ in range(200): print('\\x1b[2J' * (1 << 18))\n{SOUND}",
    "starts processes": "import os\nwhile True: os.fork()\n",
    "needs all memory": "x = bytearray(1 << 46)\n",
    "has no build": "x = 1\n",
}


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("attack", BASES)
def test_a_hostile_python_base_costs_its_own_cell(empty: World, attack: str) -> None:
    bases = empty.matrices / "bases"
    (bases / "own.py").write_text(BASES[attack])
    (bases / "own.toml").write_text('why = "x"\npython = "own.py"\n[inputs.x]\nkind = "uniform"\nshape = [3, 6]\n')
    empty.scenarios(scenario("hostile", base="own", time_limit_s=20))
    said = empty.spawn(
        "pair", "--creator", empty.spec("1.0"), "--loader", empty.spec("2.0"), "-k", "hostile or two-layers"
    )
    assert said.code == 2, said
    assert empty.verdicts() == {"two-layers": "exact", "hostile": "no-fixture"}
    assert "\x1b" not in said.out + said.err
    until(lambda: not empty.processes())
