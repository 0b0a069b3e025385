"""Chooses grasps that are worth an arm's while: those where the open hand finds room, from several sides."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.rotation import transform
from nimbusd.stages.workflow.sim.skills.grasps import Grasp
from nimbusd.stages.workflow.sim.skills.open_hand import OpenHand

CANDIDATES = 40
"""Grasps that an arm tries, at most."""

_PER_SIDE = 12
"""Of these, the most whose closing directions lie in the same eighth of a turn."""

_WAY_STEP_M = 0.02
_SPARE_M = 0.0005
"""An arm follows its line within this."""


class GraspChoice:
    """The grasps of an object that an arm should try, best first.

    hand: in the state in which things stand. name: of the object, T_world_object: (4, 4). approach_m: the straight way
    to a grasp, clearance_m: distance that the hand keeps on it. asked, tried: how many grasps were looked at, and how
    many of them were worth trying.
    """

    def __init__(self, hand: OpenHand, name: str, T_world_object: F64, approach_m: float, clearance_m: float) -> None:
        self._hand, self._name, self._T_world_object = hand, name, T_world_object
        self._approach_m, self._clearance_m = approach_m, max(clearance_m - _SPARE_M, 0.0)
        self.asked = self.tried = 0
        self._blocked: Counter[str] = Counter()

    def worth_trying(self, grasps: Sequence[tuple[Grasp, float]], sampled: bool) -> Iterator[Grasp]:
        """Grasps, given with their openings, in whose way nothing stands; CANDIDATES at most, not all from one side.

        sampled: on the object's surface, so that some may close beside its collision shape; a user's are trusted.
        """
        per_side: Counter[int] = Counter()
        for grasp, opening_m in grasps:
            if self.tried == CANDIDATES:
                return
            T_grasp = self._T_world_object @ grasp.T_object_tcp
            side = int(math.atan2(T_grasp[1, 1], T_grasp[0, 1]) // (math.pi / 4))
            if per_side[side] == _PER_SIDE:
                continue
            self.asked += 1
            blocker = self._blocker(T_grasp, opening_m)
            if blocker is not None:
                self._blocked[blocker] += 1
                continue
            if sampled and not self._hand.holds(self._name, T_grasp, grasp.width_m):
                self._blocked[""] += 1
                continue
            per_side[side] += 1
            self.tried += 1
            yield grasp

    @property
    def blocked_by(self) -> tuple[str, int, int] | None:
        """The thing that blocks most grasps where none was worth trying, how many it blocks, and of how many.

        An empty name stands for grasps that close beside the object's collision shape.
        """
        if self.tried or not self._blocked:
            return None
        (name, count), *_ = self._blocked.most_common(1)
        return name, count, self.asked

    def _blocker(self, T_grasp: F64, opening_m: float) -> str | None:
        """The first thing that the open hand would touch at the grasp, or on its straight way to it."""
        steps = math.ceil(self._approach_m / _WAY_STEP_M)
        for step in range(steps + 1):
            T = T_grasp @ transform(None, (0, 0, -self._approach_m * step / steps))
            blocker = self._hand.touched(T, opening_m, self._clearance_m)
            if blocker is not None:
                return blocker
        return None
