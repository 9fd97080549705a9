"""From what is asked for to cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import UsageError
from harness.core.matrix import CellId, Declared, of_families
from harness.core.scenario import Adapter, Base, Module, Scenario
from harness.envs.declaration import Declaration
from harness.envs.environment import EnvFailed, Environment
from harness.runner import pipeline
from harness.runner import plan as planning
from harness.runner.how import How
from harness.runner.request import CheckRequest, Selection
from harness.store.fixtures import Store
from tests.support.mini.world import World, scenario


class FakeEnvironments:
    """Names pins by themselves; `broken` can't be described."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.read: list[str] = []

    def declaration(self, name: str) -> Declaration | None:
        self.read.append(name)
        if name != "few":
            return None
        return Declaration(why="For one family.", python="3.11", pins={"peft": "0.9.0"}, families=["quant*"])

    def describe(self, spec: str) -> Environment:
        self.asked.append(spec)
        if spec == "broken":
            raise EnvFailed("broken-env", "lock", "no lock")
        return Environment(spec.replace("==", "-"), spec, "pins", "", "", "3.11", {})


def declared(name: str, family: str = "plain") -> Declared:
    base = Base(why="x", modules=[Module(name="a", type="Linear")])
    scenario = Scenario(
        name=name, why="x", family=family, base="mlp", adapter=Adapter(config="LoraConfig"), time_limit_s=7
    )
    return Declared(scenario, base, "mlp", Path("x.toml"), {})


def plan(*scenarios: Declared, pair: bool = True, families: tuple[str, ...] = (), **asked: Any) -> list[str]:
    environments: Any = FakeEnvironments()
    request = CheckRequest(pair=pair, selection=Selection(families=families), **asked)
    return [str(cell.id) for cell in planning.plan(scenarios, request, environments)]


def test_cells_are_grouped_by_loader_then_creator() -> None:
    cells = plan(declared("a"), declared("b"), creators=("v1", "v2"), loaders=("x", "y"))
    assert cells == [f"{s}@{c}:{loader}[cpu]" for loader in "xy" for c in ("v1", "v2") for s in "ab"]


def test_specifications_get_short_names_and_one_that_fails_keeps_its_own() -> None:
    assert plan(declared("a"), creators=("p==1",), loaders=("q==2", "broken")) == [
        "a@p-1:q-2[cpu]",
        "a@p-1:broken-env[cpu]",
    ]
    assert plan(declared("a"), creators=("stored",), loaders=("q==2",), pair=False) == ["a@stored:q-2[cpu]"]


SELECTIONS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["a", "b"]),
    ({"families": ("other",)}, ["b"]),
    ({"cells": ("a@v:x[cpu]",)}, ["a"]),
    ({"cells": ("*@v:x[cpu]",)}, ["a", "b"]),
    ({"cells": ("b@*",)}, ["b"]),
    ({"cells": ("a@v:x[cuda]",)}, []),
    ({"families": ("none",)}, []),
]


def test_a_creator_of_some_families_has_cells_of_those_alone() -> None:
    scenarios = [declared("plain-one"), declared("quantised-one", "quantised")]
    cells = planning.plan(scenarios, CheckRequest(("few", "all"), ("few",), pair=True), FakeEnvironments())  # type: ignore[arg-type]
    assert [(cell.id.scenario, cell.id.creator) for cell in cells] == [
        ("quantised-one", "few"),
        ("plain-one", "all"),
        ("quantised-one", "all"),
    ]


@pytest.mark.parametrize(("asked", "names"), SELECTIONS)
def test_what_is_selected(asked: dict[str, Any], names: list[str]) -> None:
    cells = plan(declared("a"), declared("b", "other"), creators=("v",), loaders=("x",), **asked)
    assert [cell.partition("@")[0] for cell in cells] == names


def test_a_family_may_be_a_glob_and_one_that_nothing_is_of_is_refused() -> None:
    scenarios = [declared("a"), declared("b", "bnb-4bit"), declared("c", "bnb-8bit")]
    assert [one.name for one in of_families(scenarios, ["bnb-*"])] == ["b", "c"]
    assert of_families(scenarios, []) == scenarios
    with pytest.raises(UsageError, match=r"family 'bnb'.*\n.*bnb-4bit, bnb-8bit\n"):
        of_families(scenarios, ["plain", "bnb"])
    assert plan(*scenarios, creators=("v",), loaders=("x",), families=("*8bit",)) == ["c@v:x[cpu]"]


def test_a_time_limit_replaces_the_scenarios_own() -> None:
    environments: Any = FakeEnvironments()
    for limit, seconds in ((None, 7), (2.0, 2.0)):
        (cell,) = planning.plan([declared("a")], CheckRequest(("v",), ("x",), time_limit=limit), environments)
        assert cell.time_limit_s == seconds


def test_an_environment_is_asked_for_its_name_once() -> None:
    environments: Any = FakeEnvironments()
    for _ in range(3):
        planning.plan([declared("a")], CheckRequest(("v",), ("x",), pair=True), environments)
    assert environments.asked == ["x", "v"]


def test_a_declaration_is_read_once_however_many_scenarios_and_families_there_are() -> None:
    environments = FakeEnvironments()
    scenarios = [declared(f"{name}-{family}", family) for name in "ab" for family in ("plain", "other", "quantised")]
    creators = tuple(f"v{place}" for place in range(50))
    for _ in range(2):
        planning.plan(scenarios, CheckRequest(creators), environments)  # type: ignore[arg-type]
    assert sorted(environments.read) == sorted(creators)


def test_without_fixtures_there_is_no_creator(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no fixtures"):
        planning.creators_with_fixtures(Store(tmp_path), ())
    assert planning.creators_with_fixtures(Store(tmp_path), ("v061",)) == ("v061",)


@pytest.mark.parametrize("cell", [CellId("a-b", "v061", "current"), CellId("a", "peft-0.9", "git-peft-12[x]", "cuda")])
def test_an_id_can_be_read_again(cell: CellId) -> None:
    assert planning.parsed(str(cell)) == cell


UNMEETABLE = [
    (["peft>=99"], "requirements that no environment meets"),  # every declared environment has another
    (["no-such-package"], "no-such-package is not in the environment"),
    (["minipeft>=99"], ""),  # a release that only this creator could have, and has not: unsupported
    (["minipeft>=1.0"], ""),
]


@pytest.mark.parametrize(("requires", "said"), UNMEETABLE, ids=[" ".join(row[0]) for row in UNMEETABLE])
def test_what_no_environment_has_is_refused_before_anything_is_made(
    mini: World, requires: list[str], said: str
) -> None:
    mini.scenarios(scenario("never", requires=requires), file="never")
    ended = mini.run("create", mini.spec("1.0"), "-k", "never")
    assert (ended.code == 64) is bool(said), ended
    assert said in ended.err
    assert mini.trace.exists() is (requires == ["minipeft>=1.0"])


def test_a_scenario_that_nothing_meets_is_reported_and_the_others_are_made(mini: World) -> None:
    mini.scenarios(scenario("never", requires=["peft>=99"]), file="never")
    ended = mini.run("create", mini.spec("1.0"), "-k", "never or two-layers")
    assert ended.code == 0, ended
    assert "scenario 'never' has requirements that no environment meets" in ended.err
    assert mini.traced("create") == ["two-layers"]


def test_the_first_cell_of_each_kind_runs_the_further_probes() -> None:
    environments: Any = FakeEnvironments()
    request = CheckRequest(pair=True, creators=("v1",), loaders=("x", "y"))
    scenarios = [declared("a"), declared("b"), declared("c", "other")]
    cells = planning.with_further(planning.plan(scenarios, request, environments))
    assert [str(cell.id) for cell in cells if cell.further] == [
        f"{name}@v1:{loader}[cpu]" for loader in "xy" for name in "ac"
    ]
    (cell,) = (cell for cell in cells if str(cell.id) == "a@v1:x[cpu]")
    assert pipeline.request(cell, {})["further"] is True
    assert "further" not in pipeline.request(cell, {}, "trace")
    assert "--further" in pipeline.reproduce(cell, How())
    (other,) = (cell for cell in cells if str(cell.id) == "b@v1:x[cpu]")
    assert "further" not in pipeline.request(other, {})


@pytest.mark.parametrize(
    ("args", "further"),
    [({"use_dora": True}, True), ({"bias": "all"}, True), ({"use_dora": False}, False), ({"r": 4}, False)],
)
def test_a_switch_of_a_config_class_is_a_kind(args: dict[str, Any], further: bool) -> None:
    environments: Any = FakeEnvironments()
    request = CheckRequest(pair=True, creators=("v1",), loaders=("x",))
    plain, other = declared("a"), declared("b")
    other.scenario.adapter.args.update(args)
    cells = planning.with_further(planning.plan([plain, other], request, environments))
    assert [cell.further for cell in cells] == [True, further]


def test_every_cell_runs_the_further_probes_if_asked() -> None:
    environments: Any = FakeEnvironments()
    request = CheckRequest(pair=True, creators=("v1",), loaders=("x",), further=True)
    assert all(cell.further for cell in planning.plan([declared("a"), declared("b")], request, environments))
