"""Deterministic randomness: one independent stream per job seed, scene, number and purpose.

The same job makes the same episodes whatever the number of nodes, the order, the crashes or the retries,
because no stream depends on anything but these four.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np

Purpose = Literal["randomize", "plan", "render"]
_PURPOSES: dict[Purpose, int] = {"randomize": 1, "plan": 2, "render": 3}


def scene_key(scene: str) -> tuple[int, int]:
    """Two 32-bit words of the scene name's SHA-256, stable across machines and Python versions."""
    digest = hashlib.sha256(scene.encode()).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")


def stream(job_seed: int, scene: str, number: int, purpose: Purpose) -> np.random.Generator:
    """The generator for `number` (an episode index, or a variant for `randomize`) of a scene."""
    spawn_key = (*scene_key(scene), number, _PURPOSES[purpose])
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(job_seed, spawn_key=spawn_key)))
