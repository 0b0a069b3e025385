"""Distance fields and grid search against slower ways to the same answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from nimbusd.stages.plan.esdf import distance_to, interpolate
from nimbusd.stages.plan.grid_search import search, traversal_cost, window_around
from nimbusd.stages.types import BoolArray


@st.composite
def grids(draw: st.DrawFn) -> BoolArray:
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    bits = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    return np.array(bits, np.bool_).reshape(height, width)


@given(grids(), st.sampled_from([0.05, 0.1, 1.0]), st.floats(0.5, 15.0))
def test_the_distance_field_is_the_distance_to_the_nearest_of_the_cells_up_to_its_reach(
    grid: BoolArray, cell_m: float, reach_cells: float
) -> None:
    field = distance_to(grid, cell_m, reach_cells * cell_m)
    wanted = np.argwhere(grid)
    for row, column in np.argwhere(np.ones_like(grid)):
        away = np.linalg.norm(wanted - [row, column], axis=1).min(initial=np.inf)
        assert field[row, column] == pytest.approx(min(away, reach_cells) * cell_m, rel=1e-5)


def test_a_large_distance_field_does_not_show_the_tiles_that_it_is_made_in() -> None:
    grid = np.random.default_rng(0).random((1700, 900)) < 0.0005
    beats: list[None] = []
    field = distance_to(grid, 0.05, 2.0, lambda: beats.append(None))
    whole = np.minimum(distance_transform_edt(~grid, sampling=0.05), 2.0)
    assert np.abs(field - whole).max() < 1e-6
    assert len(beats) == 6


def test_a_distance_field_needs_a_grid_and_a_reach() -> None:
    with pytest.raises(ValueError, match="at least 1 x 1"):
        distance_to(np.zeros((0, 4), np.bool_), 0.05, 1.0)
    with pytest.raises(ValueError, match="reach"):
        distance_to(np.zeros((4, 4), np.bool_), 0.05, 0.0)


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(0, 1), st.floats(0, 1))
def test_interpolation_is_exact_for_planes_inside_the_grid(a: float, b: float, u: float, v: float) -> None:
    rows, columns = np.mgrid[:6, :8]
    x, y = 3.0 + (columns + 0.5) * 0.1, -1.0 + (rows + 0.5) * 0.1
    point = np.array([[3.05 + 0.7 * u, -0.95 + 0.5 * v]])
    value = interpolate((a * x + b * y).astype(np.float32), (3.0, -1.0), 0.1, point)
    assert value[0] == pytest.approx(a * point[0, 0] + b * point[0, 1], abs=1e-5)


@settings(deadline=None)
@given(grids(), st.randoms(use_true_random=False))
def test_grid_paths_are_as_cheap_as_scipys_dijkstra_finds_them(grid: BoolArray, random: object) -> None:
    cell_m = 0.5
    free = ~grid
    cost = traversal_cost(distance_to(grid, cell_m, 5.0), free, safe_m=0.3, comfort_m=1.5, weight=2.0)
    cells = [(int(row), int(column)) for row, column in np.argwhere(free)]
    if not cells:
        return
    start = cells[random.randrange(len(cells))]  # type: ignore[attr-defined]
    number = {cell: i for i, cell in enumerate(cells)}
    edges = [
        (number[r, c], number[r + dr, c + dc], np.hypot(dr, dc) * cell_m * (cost[r, c] + cost[r + dr, c + dc]) / 2)
        for r, c in cells
        for dr in (-1, 0, 1)
        for dc in (-1, 0, 1)
        if (dr or dc) and (r + dr, c + dc) in number
    ]
    i, j, w = zip(*edges, strict=True) if edges else ((), (), ())
    graph = coo_array((w, (i, j)), shape=(len(cells), len(cells))).tocsr()
    expected = dijkstra(graph, indices=[number[start]])[0]
    found = search(cost, start, cell_m)
    for cell in cells:
        assert found.cost[cell] == pytest.approx(expected[number[cell]], rel=1e-9)
        if np.isfinite(found.cost[cell]):
            path = np.array(found.path_to(cell), np.int64)
            assert tuple(path[0]) == start
            assert tuple(path[-1]) == cell
            assert (np.abs(np.diff(path, axis=0)).max(axis=1, initial=0) <= 1).all()
            steps = np.linalg.norm(np.diff(path, axis=0), axis=1) * cell_m
            along = cost[path[:, 0], path[:, 1]]
            assert (steps * (along[:-1] + along[1:]) / 2).sum() == pytest.approx(found.cost[cell], abs=1e-9)
        else:
            with pytest.raises(ValueError, match="cannot be reached"):
                found.path_to(cell)


def test_a_search_with_a_goal_finds_the_same_path_as_one_without() -> None:
    cost = np.ones((30, 30))
    cost[5:25, 15] = np.inf
    assert search(cost, (15, 2), 0.1, (15, 28)).cost_to((15, 28)) == search(cost, (15, 2), 0.1).cost_to((15, 28))


def test_a_search_in_a_window_speaks_of_the_maps_cells_and_stays_inside() -> None:
    window = window_around((40, 50), (10, 20), (12, 22), 3)
    assert window == (slice(7, 16), slice(17, 26))
    found = search(np.ones((9, 9)), (10, 20), 1.0, window=window)
    assert found.path_to((12, 22)) == [(10, 20), (11, 21), (12, 22)]
    assert found.cost_to((12, 22)) == pytest.approx(2 * np.sqrt(2))
    assert found.cost_to((30, 40)) == found.cost_to((6, 20)) == np.inf
    with pytest.raises(ValueError, match="cannot be reached"):
        found.path_to((6, 20))
    assert window_around((40, 50), (39, 0), (0, 49), 1e9) == (slice(0, 40), slice(0, 50))
