"""What the loader can't tell apart is computed once; every condition of that is broken once here."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from harness.core.matrix import Matrix
from harness.core.run import Cell
from harness.envs.environments import Environments
from harness.runner import alike as rules
from harness.runner import plan, shared_replay
from harness.runner.request import CheckRequest
from harness.store.fixtures import Store
from tests.support.mini.world import World
from tests.support.observations import Pair

CREATORS = ("4.0", "4.1", "4.2")
OLDEST, MIDDLE, NEWEST = CREATORS


@pytest.fixture
def alike(mini: World) -> World:
    """A world with fixtures of three releases that differ in a stamp alone."""
    for release in CREATORS:
        assert mini.run("create", mini.spec(release)).code == 0
    mini.trace.unlink(missing_ok=True)
    return mini


def checked(world: World, loader: str, *more: str) -> dict[str, Cell]:
    """The cells of `two-layers`, by creator's release."""
    creators = [option for release in CREATORS for option in ("--creator", world.name(release))]
    world.run("check", *creators, "--loader", world.spec(loader), "-k", "two-layers", *more)
    cells = {cell.creator: cell for cell in world.report().cells}
    return {release: cells[world.name(release)] for release in CREATORS}


def test_the_one_between_two_that_are_equal_is_not_computed(alike: World) -> None:
    found = checked(alike, "4.3")
    assert [cell.verdict for cell in found.values()] == ["exact"] * 3
    assert [found[release].same_as for release in CREATORS] == ["", found[NEWEST].id, ""]
    assert len(alike.traced("replay")) == 2
    assert found[MIDDLE].probes["forward"] == found[NEWEST].probes["forward"].model_copy(
        update={"duration_s": found[MIDDLE].probes["forward"].duration_s}
    )


def test_each_is_computed_where_that_is_asked_for(alike: World) -> None:
    found = checked(alike, "4.3", "--each")
    assert [cell.same_as for cell in found.values()] == [""] * 3
    assert len(alike.traced("replay")) == 3


def test_a_loader_that_looks_at_the_stamp_beyond_the_config_is_found_by_its_ends(alike: World) -> None:
    found = checked(alike, "4.4")
    assert [cell.same_as for cell in found.values()] == [""] * 3
    assert found[OLDEST].verdict == found[MIDDLE].verdict == "exact"
    assert found[NEWEST].verdict != "exact"


def test_a_config_that_is_read_otherwise_is_computed_for_itself(alike: World) -> None:
    found = checked(alike, "4.5")
    assert [cell.same_as for cell in found.values()] == [""] * 3
    assert [cell.verdict for cell in found.values()] == ["exact", "warned", "exact"]


def test_a_deviation_rests_on_a_computation_of_its_own(alike: World) -> None:
    found = checked(alike, "4.6")
    assert [cell.verdict for cell in found.values()] == ["silent-wrong"] * 3
    assert [cell.same_as for cell in found.values()] == [""] * 3
    # a silent deviation is looked at twice, and what agrees with another's replay has been
    assert 3 <= len(alike.traced("replay")) < 6


def test_a_damaged_fixture_between_two_sound_ones_is_told(alike: World) -> None:
    manifest = Store(alike.fixtures).manifest(alike.name(MIDDLE), "two-layers")
    digest = manifest.files["adapter/adapter_config.json"].sha256
    blob = next(path for path in alike.fixtures.rglob("*") if path.name.startswith(digest) or digest in str(path))
    blob.chmod(0o644)
    blob.write_text("{}")
    assert [str(cell.verdict) for cell in checked(alike, "4.3").values()] == ["exact", "bad-fixture", "exact"]


def test_other_tensors_make_another_group(alike: World) -> None:
    path = alike.matrices / "scenarios" / "mini.toml"
    files = sorted((alike.matrices / "scenarios").glob("*.toml"))
    store = Store(alike.fixtures)
    manifests = [store.manifest(alike.name(release), "two-layers") for release in CREATORS]
    other = store.manifest(alike.name(OLDEST), "one-layer")
    assert len({rules.traits(store, manifest) for manifest in manifests}) == 1, (path, files)
    moved = manifests[0].model_copy(
        update={"files": manifests[0].files | {"adapter/adapter_model.safetensors": _weights(other)}}
    )
    assert rules.traits(store, moved) != rules.traits(store, manifests[0])


def _weights(manifest: Any) -> Any:
    return manifest.files["adapter/adapter_model.safetensors"]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"facts": {"roundtrip": {"config_before": {"r": 1}}}}, True),
        ({"facts": {"roundtrip": {"config": {"peft_version": "9"}}}}, True),
        ({"facts": {"roundtrip": {"config": {"r": 1}}}}, False),
        ({"facts": {"accounting": {"base_changed": ["w"]}}}, False),
        ({"load": {"float32": {"outcome": "ok", "warnings": ["hm"]}}}, False),
        ({"probes": {}}, False),
        ({"arrays": {}}, False),
    ],
)
def test_ends_are_equal_in_all_but_their_stamps(change: dict[str, Any], same: bool) -> None:
    one = Pair().golden.observed()
    if "facts" in change:
        change = {"facts": {**one.facts, **change["facts"]}}
        one = dataclasses.replace(one, facts={**one.facts, "roundtrip": {}} if same else one.facts)
        if same and "config" in change["facts"]["roundtrip"]:
            one = dataclasses.replace(one, facts={**one.facts, "roundtrip": {"config": {"peft_version": "1"}}})
    assert rules.equal(one, dataclasses.replace(one, **change)) is same


def test_one_bit_of_one_array_makes_ends_unequal() -> None:
    one = Pair().golden.observed()
    name = next(iter(one.arrays))
    array = one.arrays[name].copy()
    array.flat[0] = np.nextafter(array.flat[0], np.inf)
    assert not rules.equal(one, dataclasses.replace(one, arrays={**one.arrays, name: array}))


def test_an_observation_that_is_taken_over_begins_with_its_own_config() -> None:
    one = Pair().golden.observed()
    one = dataclasses.replace(one, facts={**one.facts, "roundtrip": {"config_before": {"r": 1}, "config": {"r": 1}}})
    taken = rules.with_config(one, {"r": 1, "use_dora": False})
    assert taken.fact("roundtrip", "config_before") == {"r": 1, "use_dora": False}
    assert taken.fact("roundtrip", "config") == {"r": 1}
    assert one.fact("roundtrip", "config_before") == {"r": 1}


def test_a_fixture_that_was_made_anew_meanwhile_is_another(alike: World) -> None:
    environments = Environments(alike.matrices)
    store = Store(alike.fixtures)
    asked = CheckRequest(tuple(alike.name(release) for release in CREATORS), (alike.spec("4.3"),))
    cells = plan.plan(Matrix(alike.matrices).scenarios(), asked, environments)
    found = shared_replay.SharedReplays(lambda _: store, alike.root / "scratch", lambda line: None)  # noqa: ARG005
    turns = [turn for cell, turn in found.arrange(cells) if cell.id.scenario == "two-layers"]
    assert [turn().id.creator for turn in turns] == [alike.name(release) for release in (OLDEST, NEWEST, MIDDLE)]
    middle = next(c for c in cells if (c.id.scenario, c.id.creator) == ("two-layers", alike.name(MIDDLE)))
    manifest = store.manifest(middle.id.creator, "two-layers")
    assert found.has(middle, manifest)
    assert not found.has(middle, manifest.model_copy(update={"scenario_digest": "0" * 64}))


RANK, SCALED = {"r": 2}, {"r": 2, "alpha": 4}


@pytest.mark.parametrize(
    ("oldest", "middle", "newest", "expected"),
    [
        (RANK, RANK, RANK, True),
        (RANK, RANK, SCALED, True),
        (RANK, SCALED, SCALED, True),
        (SCALED, RANK, SCALED, False),  # lacks what both have
        (RANK, SCALED, RANK, False),  # has what neither has
        (RANK, {"r": 3}, RANK, False),
        (RANK, {"r": True}, {"r": 1}, False),
        (RANK, RANK | {"peft_version": "9"}, RANK, True),
    ],
)
def test_a_config_between_two_has_what_both_have_and_nothing_else(
    oldest: dict[str, Any], middle: dict[str, Any], newest: dict[str, Any], expected: bool
) -> None:
    assert rules.between(*({"adapter_config.json": config} for config in (oldest, middle, newest))) is expected


def test_a_file_that_both_ends_lack_is_not_between_them() -> None:
    assert not rules.between({"a": RANK}, {"a": RANK, "b": {}}, {"a": RANK})


def test_the_ends_of_what_is_read_alike_begin_before_the_others(alike: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is known what is read alike, the oldest and the newest begin."""
    group = _group(alike, 7)
    places = [cell.id.creator for cell in group.waiting]
    assert places == ["c0", "c6", "c1", "c2", "c3", "c4", "c5"]
    del group.waiting[:2]
    monkeypatch.setattr(shared_replay, "base_id", lambda _: "base")
    monkeypatch.setattr(shared_replay, "adapter_id", lambda manifest: manifest)
    group.split({"base": "b", **{f"c{n}": "old" if n < 3 else "new" for n in range(6)}})  # c6 cannot be read
    assert [cell.id.creator for cell in group.waiting] == ["c2", "c3", "c5", "c1", "c4"]
    ends = {cell.creator: tuple(end.id.creator for end in found) for cell, found in group.ends.items()}
    assert ends["c1"] == ("c0", "c2")
    assert ends["c4"] == ("c3", "c5")
    assert ends["c6"] == ("c6", "c6")


def _group(world: World, size: int) -> shared_replay._Group:
    asked = CheckRequest((world.name(OLDEST),), (world.spec("4.3"),))
    cell = plan.plan(Matrix(world.matrices).scenarios(), asked, Environments(world.matrices))[0]
    cells = [dataclasses.replace(cell, id=dataclasses.replace(cell.id, creator=f"c{n}")) for n in range(size)]
    manifests: Any = {str(cell.id): cell.id.creator for cell in cells}
    return shared_replay._Group(cells, manifests)
