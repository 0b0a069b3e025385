"""Cheapest paths on a grid, where a metre near an obstacle costs more than a metre in the open.

The search is Dijkstra's, in compiled code, and only over the window of the map that can matter: an A* that calls
back into Python for its heuristic, or for each cell, is slower by far than not having to look at most of the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nimbusd.stages.types import F32, F64, BoolArray

Cell = tuple[int, int]
"""Row (along y) and column (along x)."""

Window = tuple[slice, slice]
"""The rows and columns of a part of a map."""


def clearance_penalty(clearance_m: F64, safe_m: float, comfort_m: float) -> F64:
    """0 where the clearance is comfortable, rising as a parabola to 1 at `safe_m`, the closest allowed."""
    lack = (comfort_m - clearance_m) / max(comfort_m - safe_m, 1e-9)
    return np.asarray(np.clip(lack, 0.0, 1.0) ** 2)


def traversal_cost(esdf: F32, free: BoolArray, safe_m: float, comfort_m: float, weight: float) -> F64:
    """(H, W) cost per metre: 1 in the open, up to 1 + weight beside obstacles, infinite where not free."""
    cost = 1.0 + weight * clearance_penalty(esdf.astype(np.float64), safe_m, comfort_m)
    return np.where(free, cost, np.inf)


def window_around(shape: tuple[int, int], low: Cell, high: Cell, reach_cells: float) -> Window:
    """The part of a map of `shape` that holds the cells from `low` to `high` and all within reach of them."""
    reach = int(np.ceil(min(reach_cells, sum(shape))))
    rows, columns = (
        slice(max(min(a, b) - reach, 0), min(max(a, b) + reach + 1, size))
        for a, b, size in zip(low, high, shape, strict=True)
    )
    return rows, columns


@dataclass(frozen=True)
class Search:
    """All cheapest paths from one cell inside a window of the map.

    cost: (h, w) metres x cost per metre for the window's cells, infinite where unreachable inside of it.
    """

    cost: F64
    window: Window
    _mcp: Any

    def cost_to(self, cell: Cell) -> float:
        """Cost to a cell of the map; infinite outside the window."""
        row, column = cell[0] - self.window[0].start, cell[1] - self.window[1].start
        height, width = self.cost.shape
        return float(self.cost[row, column]) if 0 <= row < height and 0 <= column < width else float("inf")

    def path_to(self, goal: Cell) -> list[Cell]:
        """Cells of the map from start to goal, both included, each beside or diagonal to the one before.

        Raises ValueError where the goal is unreachable.
        """
        if not np.isfinite(self.cost_to(goal)):
            raise ValueError(f"cell {goal} cannot be reached; look at Search.cost_to first")
        row, column = self.window[0].start, self.window[1].start
        return [(int(r) + row, int(c) + column) for r, c in self._mcp.traceback((goal[0] - row, goal[1] - column))]


def search(
    cost_per_m: F64, start: Cell, cell_m: float, goal: Cell | None = None, window: Window | None = None
) -> Search:
    """Cheapest paths over 8-connected cells: a step costs its length times the mean cost of its two cells.

    cost_per_m: (h, w) of the window, infinite where blocked. start, goal: cells of the map. window: which part of
    the map that is, all of it by default. With no goal it reaches everything: one search then serves to choose a
    goal by its distance and to get the path. With a goal it stops there.
    """
    from skimage.graph import MCP_Geometric

    height, width = cost_per_m.shape
    window = window or (slice(0, height), slice(0, width))
    first = np.array([window[0].start, window[1].start])
    mcp = MCP_Geometric(cost_per_m, sampling=(cell_m, cell_m))
    cost, _ = mcp.find_costs([np.array(start) - first], None if goal is None else [np.array(goal) - first])
    return Search(np.asarray(cost, np.float64), window, mcp)
