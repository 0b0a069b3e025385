"""The cores that this node may use: those of its affinity, as many as its control groups give time for."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nimbusd.machine.limits import ROOT, CpuLimit, cpu_limit


@dataclass(frozen=True, slots=True)
class NodeCores:
    """The cores of this node."""

    cores: tuple[int, ...]
    """To be dealt out to slots."""
    allowed: int
    """The number of cores in the affinity."""
    limit: CpuLimit | None
    """Of processor time, if there is one."""

    def __str__(self) -> str:
        if self.limit is None or self.limit.cores >= self.allowed:
            return f"{self.allowed} by affinity"
        return f"{len(self.cores)} of {self.allowed}, with the time of {self.limit.cores:g} by {self.limit.source}"


def node_cores(root: Path = ROOT) -> NodeCores:
    """The cores of this process. root: of the file system, for a machine other than this."""
    allowed = sorted(os.sched_getaffinity(0))
    limit = cpu_limit(root)
    number = number_of_cores(len(allowed), limit)
    return NodeCores(in_a_row(allowed, number, random.randrange(len(allowed))), len(allowed), limit)


def number_of_cores(allowed: int, limit: CpuLimit | None) -> int:
    """The number of cores that are worth using: part of one counts as one, and there is at least one."""
    return allowed if limit is None else min(allowed, max(1, math.ceil(limit.cores)))


def in_a_row(cores: Sequence[int], number: int, start: int) -> tuple[int, ...]:
    """Take `number` neighbours of `cores`, in order, beginning at `start`.

    Nodes in containers begin at different places, and get out of each other's way: a limit of time does not say which
    cores it is for.
    """
    if number == len(cores):
        return tuple(cores)
    return tuple(sorted(cores[(start + step) % len(cores)] for step in range(number)))
