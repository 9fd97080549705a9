"""Scenarios on models of the hub: listed, and run only for who asks for them."""

from __future__ import annotations

import pytest

from harness.core.errors import UsageError
from harness.core.matrix import CellId, Matrix
from harness.core.observation import Done, Observed
from harness.judge import cell_result
from tests.support.mini.world import World, scenario

BASE = """
why = "x"
hub = { repo = "me/tiny", revision = "0123456789abcdef0123456789abcdef01234567", model = "OPTForCausalLM" }
"""


@pytest.fixture
def real(mini: World) -> World:
    """A world with such a scenario."""
    (mini.matrices / "bases" / "tiny.toml").write_text(BASE)
    mini.scenarios(scenario("real-one", base="tiny"))
    return mini


def test_it_is_listed_and_left_out(real: World) -> None:
    assert "needs --hub" in next(line for line in real.run("list").out.splitlines() if line.startswith("real-one"))
    said = real.run("check", "--loader", real.spec("2.0"))
    assert said.code == 0, said
    assert real.report().left_out == {"real-one": "needs --hub"}
    assert "real-one" not in real.verdicts()
    assert "real-one: needs --hub" in real.run("check", "--loader", real.spec("2.0"), "--dry-run").out
    assert real.run("check", "--loader", real.spec("2.0"), "-k", "two-layers").code == 0
    assert not real.report().left_out, "it was not asked for"
    said = real.run("create", real.spec("1.0"), "--dry-run")
    assert "real-one: needs --hub" in said.err
    assert "real-one@" not in said.out


def test_it_is_run_for_who_asks_for_it(real: World) -> None:
    dry = real.run("check", "--loader", real.spec("2.0"), "--dry-run", "--hub")
    assert "real-one@" in dry.out
    assert real.run("check", "--loader", real.spec("2.0"), "--hub").code == 2
    assert real.verdicts()["real-one"] == "no-fixture"


@pytest.mark.parametrize("option", ["--scenarios", "--family"])
def test_alone_it_says_what_it_needs(real: World, option: str) -> None:
    named = {"--scenarios": str(real.matrices / "scenarios" / "more.toml"), "--family": "more"}
    said = real.run("check", "--loader", real.spec("2.0"), option, named[option])
    assert said.code == 64
    assert "real-one: needs --hub" in said.err


BAD = [
    ('hub = { repo = "tiny", revision = "' + "0" * 40 + '", model = "M" }', "repo"),
    ('hub = { repo = "me/tiny", revision = "main", model = "M" }', "revision"),
    ('hub = { repo = "me/tiny", revision = "' + "0" * 40 + '", model = "M" }\npython = "x.py"', "exactly one of"),
]


@pytest.mark.parametrize(("text", "words"), BAD)
def test_a_base_that_is_declared_wrongly(real: World, text: str, words: str) -> None:
    (real.matrices / "bases" / "tiny.toml").write_text(f'why = "x"\n{text}\n')
    with pytest.raises(UsageError, match=words):
        Matrix(real.matrices).scenarios()


def test_a_model_that_is_not_there_accuses_no_library() -> None:
    error = {
        "stage": "base",
        "type": "peft_regress_worker.hub.NotInHubCache",
        "message": "me/tiny …",
        "traceback": "",
    }
    golden = Observed("x", {"float32": {"outcome": "ok"}}, {}, {}, {})
    now = Observed("x", {"float32": {"outcome": "error", "error": error}}, {}, {}, {})
    cell = cell_result.cell(CellId("x", "v061", "current"), golden, now, Done("x", "done", "", "", 0.1))
    assert (str(cell.verdict), cell.reason) == ("not-comparable", "me/tiny …")
