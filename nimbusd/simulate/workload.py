"""Jobs of a simulation: the cost of each episode, and what becomes of it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from enum import Enum
from statistics import NormalDist
from typing import Protocol

from nimbusd.core.master.facts import JobPlan, ScenePlan

_NORMAL = NormalDist()
_DRAWS = float(1 << 64)


class Fate(Enum):
    """The end of an episode, always the same unless something else comes in between."""

    MADE = "made"
    UNPLANNABLE = "unplannable"
    BROKEN = "broken"
    """It fails for good: a missing asset, say."""
    POISON = "poison"
    """It kills its worker."""


class Workload(Protocol):
    """The episodes of a job. Deterministic: a second attempt is like the first."""

    @property
    def plan(self) -> JobPlan:
        """The job as the scheduler is told."""

    def cost_s(self, scene: str, index: int) -> float:
        """Seconds of a slot of speed 1, without loading the scene."""

    def load_s(self, scene: str) -> float:
        """Seconds that a worker takes to load the scene, unless it was its last one."""

    def fate(self, scene: str, index: int) -> Fate:
        """The end of the episode."""


def draw(*key: object) -> float:
    """A number in (0, 1) that depends on the key alone."""
    text = "/".join(map(str, key)).encode()
    return (int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") + 0.5) / _DRAWS


def lognormal(mean: float, sigma: float, *key: object) -> float:
    """A lognormal number with this mean, and this standard deviation of its logarithm."""
    return mean * math.exp(sigma * _NORMAL.inv_cdf(draw(*key)) - sigma * sigma / 2) if sigma else mean


@dataclass(slots=True)
class DrawnWorkload:
    """A workload drawn from a seed.

    mean_s: an episode's cost; scene_spread, episode_spread: standard deviations of its logarithm between scenes and
    within one. hint_spread: how wrong the hints of the plan are, which `scenes_of` makes.
    """

    plan: JobPlan
    seed: int = 0
    mean_s: float = 1.0
    scene_spread: float = 0.0
    episode_spread: float = 0.0
    scene_load_s: float = 0.0
    unplannable: float = 0.0
    broken: float = 0.0
    poison: float = 0.0
    _costs: dict[tuple[str, int], float] = field(default_factory=dict)
    _scene_costs: dict[str, float] = field(default_factory=dict)

    def scene_cost_s(self, scene: str) -> float:
        """Mean cost of the scene's episodes."""
        cost_s = self._scene_costs.get(scene)
        if cost_s is None:
            cost_s = self._scene_costs[scene] = lognormal(self.mean_s, self.scene_spread, self.seed, "scene", scene)
        return cost_s

    def cost_s(self, scene: str, index: int) -> float:
        cost_s = self._costs.get((scene, index))
        if cost_s is None:
            mean_s = self.scene_cost_s(scene)
            cost_s = lognormal(mean_s, self.episode_spread, self.seed, "episode", scene, index)
            self._costs[scene, index] = cost_s
        return cost_s

    def load_s(self, scene: str) -> float:
        return self.scene_load_s

    def fate(self, scene: str, index: int) -> Fate:
        if not (self.unplannable or self.broken or self.poison):
            return Fate.MADE
        number = draw(self.seed, "fate", scene, index)
        for fate, share in (
            (Fate.UNPLANNABLE, self.unplannable),
            (Fate.BROKEN, self.broken),
            (Fate.POISON, self.poison),
        ):
            if number < share:
                return fate
            number -= share
        return Fate.MADE


def scenes_of(count: int, wanted: int, exact: bool = True, most_tried: int = 0) -> tuple[ScenePlan, ...]:
    """Plans of equal scenes, without hints. most_tried: by default three times what is wanted."""
    digits = len(str(max(0, count - 1)))
    return tuple(ScenePlan(f"s{number:0{digits}}", wanted, exact, most_tried or 3 * wanted) for number in range(count))
