"""Distance fields and grid search against slower ways to the same answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from nimbusd.stages.plan.astar import search, traversal_cost
from nimbusd.stages.plan.esdf import interpolate, signed_distance
from nimbusd.stages.types import BoolArray


@st.composite
def grids(draw: st.DrawFn) -> BoolArray:
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    bits = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    return np.array(bits, np.bool_).reshape(height, width)


@given(grids(), st.sampled_from([0.05, 0.1, 1.0]))
def test_the_distance_field_is_the_distance_to_the_nearest_cell_of_the_other_kind(
    grid: BoolArray, cell_m: float
) -> None:
    field = signed_distance(grid, cell_m)
    cells = np.argwhere(np.ones_like(grid))
    for row, column in cells:
        others = np.argwhere(grid != grid[row, column])
        offsets = others - [row, column] if len(others) else np.array([grid.shape])
        far = np.linalg.norm(offsets, axis=1).min()
        assert field[row, column] == pytest.approx((-far if grid[row, column] else far) * cell_m, rel=1e-5)


def test_a_distance_field_needs_a_grid() -> None:
    with pytest.raises(ValueError, match="at least 1 x 1"):
        signed_distance(np.zeros((0, 4), np.bool_), 0.05)


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(0, 1), st.floats(0, 1))
def test_interpolation_is_exact_for_planes_inside_the_grid(a: float, b: float, u: float, v: float) -> None:
    rows, columns = np.mgrid[:6, :8]
    x, y = 3.0 + (columns + 0.5) * 0.1, -1.0 + (rows + 0.5) * 0.1
    point = np.array([[3.05 + 0.7 * u, -0.95 + 0.5 * v]])
    value = interpolate((a * x + b * y).astype(np.float32), (3.0, -1.0), 0.1, point)
    assert value[0] == pytest.approx(a * point[0, 0] + b * point[0, 1], abs=1e-5)


@settings(deadline=None)
@given(grids(), st.randoms(use_true_random=False))
def test_grid_paths_are_as_cheap_as_dijkstra_finds_them(grid: BoolArray, random: object) -> None:
    cell_m = 0.5
    free = ~grid
    cost = traversal_cost(signed_distance(grid, cell_m), free, safe_m=0.3, comfort_m=1.5, weight=2.0)
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
    assert search(cost, (15, 2), 0.1, (15, 28)).cost[15, 28] == search(cost, (15, 2), 0.1).cost[15, 28]
