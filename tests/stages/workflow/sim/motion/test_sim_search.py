"""The search for a way: around an obstacle, the same for the same seed, and without an end that depends on time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("ompl", reason="the mujoco extra is not installed")

from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.motion.search import Search, find_path

BOUNDS = (np.zeros(2), np.ones(2))
START, GOAL = np.array([0.1, 0.1]), np.array([0.9, 0.1])


def beside_the_wall(joints: F64) -> bool:
    return not (0.4 < joints[0] < 0.6 and joints[1] < 0.8)


def way(seed: int, search: Search | None = None) -> F64 | None:
    rng = np.random.default_rng(seed)
    return find_path(START, GOAL, BOUNDS, beside_the_wall, 0.01, rng, search or Search(range_rad=0.3))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_a_way_leads_around_the_wall_from_end_to_end(seed: int) -> None:
    path = way(seed)
    assert path is not None
    np.testing.assert_array_equal(path[[0, -1]], [START, GOAL])
    for a, b in pairwise(path):
        # Edges are sampled every 0.01: a corner may be cut by less than that.
        for share in np.linspace(0, 1, 200):
            x, y = a + share * (b - a)
            assert not (0.41 < x < 0.59 and y < 0.79)


def test_the_same_seed_gives_the_same_way_whatever_was_searched_between() -> None:
    first = way(3)
    assert first is not None
    other = way(4)
    assert other is None or other.shape != first.shape or (other != first).any()
    again = way(3)
    assert again is not None
    np.testing.assert_array_equal(again, first)


def test_where_there_is_no_way_the_search_ends_by_its_count() -> None:
    asked = 0

    def walled(joints: F64) -> bool:
        nonlocal asked
        asked += 1
        return not 0.4 < joints[0] < 0.6

    def count() -> int:
        nonlocal asked
        asked = 0
        assert find_path(START, GOAL, BOUNDS, walled, 0.05, np.random.default_rng(1), Search(0.3, 200)) is None
        return asked

    assert count() == count() > 200
