"""Every cell is sent, once, with those that share its replays; the death of a node costs no other cell its result."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from harness.runner.cluster.waiting import LEAST, MOST, Piece, Waiting
from harness.runner.plan import Planned
from tests.runner.cluster.cells import many, planned


def waiting(cells: list[Planned]) -> Waiting:
    found = Waiting()
    found.add(cells)
    return found


def served(found: Waiting, ends: Callable[[Piece], bool] = lambda _: False) -> tuple[list[Piece], list[Planned], int]:
    """The pieces that were checked, the cells that were given up, and how many nodes ended."""
    done: list[Piece] = []
    guilty: list[Planned] = []
    deaths = 0
    while (piece := found.take(2, 2, node=f"node {len(done) + deaths}")) is not None:
        if not ends(piece):
            found.done(piece)
            done.append(piece)
            continue
        deaths += 1
        if (one := found.ended(piece, "it ended")) is not None:
            guilty.append(one)
    return done, guilty, deaths


def ids(cells: list[Planned]) -> list[str]:
    return sorted(str(cell.id) for cell in cells)


def test_cells_that_share_replays_are_in_one_batch_of_one_loader() -> None:
    cells = many(40, 3) + many(40, 3, "v061")
    done, _, _ = served(waiting(cells))
    assert ids([cell for piece in done for cell in piece.cells]) == ids(cells)
    assert all(len({cell.loader_spec for cell in piece.cells}) == 1 for piece in done)
    assert len({(cell.loader_spec, cell.id.scenario) for cell in cells}) == sum(len(piece.units) for piece in done)


def test_the_first_batches_are_large_and_the_last_ones_small() -> None:
    done, _, _ = served(waiting(many(1000)))
    sizes = [len(piece.cells) for piece in done]
    assert sizes[0] == MOST * 2
    assert sizes[-2] == LEAST * 2
    assert sizes == sorted(sizes, reverse=True)


def test_a_node_keeps_its_loader_and_another_takes_another() -> None:
    found = waiting(many(300) + many(300, loader="v061"))
    first = found.take(2, 1)
    second = found.take(2, 1)
    assert first is not None
    assert second is not None
    assert {first.loader, second.loader} == {"current", "v061"}
    again = found.take(2, 1, last=second.loader)
    assert again is not None
    assert again.loader == second.loader


@given(st.integers(1, 60), st.integers(1, 4), st.sets(st.integers(0, 239), max_size=3))
def test_only_cells_that_end_nodes_are_given_up(scenarios: int, creators: int, guilty: set[int]) -> None:
    cells = many(scenarios, creators)
    bad = {str(cells[number].id) for number in guilty if number < len(cells)}
    done, given_up, deaths = served(waiting(cells), lambda piece: any(str(cell.id) in bad for cell in piece.cells))
    assert set(ids(given_up)) == bad
    assert ids([cell for piece in done for cell in piece.cells] + given_up) == ids(cells)
    assert deaths <= len(bad) * 12


def test_a_node_that_failed_at_a_batch_does_not_get_it_again_while_another_is_there() -> None:
    found = waiting([planned("one")])
    piece = found.take(2, 1, node="a")
    assert piece is not None
    assert found.ended(piece, "it ended") is None
    assert found.take(2, 1, node="a") is None
    assert found.take(2, 1, node="b") is not None


def test_the_only_node_gets_it_again() -> None:
    found = waiting([planned("one")])
    piece = found.take(1, 1, node="a")
    assert piece is not None
    found.ended(piece, "it ended")
    assert found.take(1, 1, node="a") is not None
