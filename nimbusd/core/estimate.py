"""Expected cost of episodes, learned while the job runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Mean:
    """A running mean whose memory fades, so that it follows a drift. value: seconds."""

    count: int = 0
    value: float = 0.0

    def add(self, sample: float, memory: int = 50) -> None:
        """Take in a sample; it weighs at least 1 / memory."""
        self.count += 1
        self.value += (sample - self.value) / min(self.count, memory)


class Estimates:
    """Cost per episode of one job's scenes, in seconds of a slot of a node of mean speed.

    A scene that has not been measured is estimated by its hint: the ratio of measured cost to hint over the
    job's measured scenes, times its own.
    """

    def __init__(self) -> None:
        self._scenes: dict[str, Mean] = {}
        self._per_hint = Mean()

    def add(self, scene: str, hint: float, cost_s: float, speed: float = 1.0) -> None:
        """An episode of `scene` took a slot of a node with this speed `cost_s` seconds."""
        own_s = cost_s * speed
        self._scenes.setdefault(scene, Mean()).add(own_s)
        self._per_hint.add(own_s / hint, memory=500)

    def known(self) -> bool:
        """True once anything was measured."""
        return self._per_hint.count > 0

    def measured(self, scene: str) -> float | None:
        """Measured seconds per episode of the scene, or None."""
        mean = self._scenes.get(scene)
        return None if mean is None else mean.value

    def cost_s(self, scene: str, hint: float) -> float:
        """Expected seconds per episode: measured, else by its hint; the hint itself before any measurement."""
        mean = self._scenes.get(scene)
        if mean is not None:
            return mean.value
        return hint * self._per_hint.value if self._per_hint.count else hint
