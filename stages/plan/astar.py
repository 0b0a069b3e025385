"""Cheapest paths on a grid, where a metre near an obstacle costs more than a metre in the open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nimbusd.stages.types import F32, F64, BoolArray

Cell = tuple[int, int]
"""Row (along y) and column (along x)."""


def clearance_penalty(clearance_m: F64, safe_m: float, comfort_m: float) -> F64:
    """0 where the clearance is comfortable, rising as a parabola to 1 at `safe_m`, the closest allowed."""
    lack = (comfort_m - clearance_m) / max(comfort_m - safe_m, 1e-9)
    return np.asarray(np.clip(lack, 0.0, 1.0) ** 2)


def traversal_cost(esdf: F32, free: BoolArray, safe_m: float, comfort_m: float, weight: float) -> F64:
    """(H, W) cost per metre: 1 in the open, up to 1 + weight beside obstacles, infinite where not free."""
    cost = 1.0 + weight * clearance_penalty(esdf.astype(np.float64), safe_m, comfort_m)
    return np.where(free, cost, np.inf)


@dataclass(frozen=True)
class Search:
    """All cheapest paths from one cell. cost: (H, W) metres x cost per metre, infinite where unreachable."""

    cost: F64
    _mcp: Any

    def path_to(self, goal: Cell) -> list[Cell]:
        """Cells from start to goal, both included, each beside or diagonal to the one before.

        Raises ValueError where the goal is unreachable.
        """
        if not np.isfinite(self.cost[goal]):
            raise ValueError(f"cell {goal} cannot be reached; look at Search.cost first")
        return [(int(r), int(c)) for r, c in self._mcp.traceback(goal)]


def search(cost_per_m: F64, start: Cell, cell_m: float, goal: Cell | None = None) -> Search:
    """Cheapest paths over 8-connected cells: a step costs its length times the mean cost of its two cells.

    With no goal it reaches everything: one search then serves to choose a goal by its distance and to get
    the path, which is cheaper than A* with a heuristic for each candidate. With a goal it stops there.
    cost_per_m: (H, W), infinite where blocked.
    """
    from skimage.graph import MCP_Geometric

    mcp = MCP_Geometric(cost_per_m, sampling=(cell_m, cell_m))
    cost, _ = mcp.find_costs([start], None if goal is None else [goal])
    return Search(np.asarray(cost, np.float64), mcp)
