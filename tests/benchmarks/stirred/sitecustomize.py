"""Runs at the start of each Python process that has this folder on its path, for `tests.benchmarks.same_bits`.

STIR_MEMORY: at each of Python's garbage collections (some hundreds per second of work) blocks are taken and given back
at random, so that what is allocated next lies elsewhere, unlike in any other process. ALL_INSTRUCTIONS: NumPy and
OpenBLAS, which are loaded after this, use all that the processor has, whatever makers are told.
"""

import gc
import os
import random
from typing import Any

_SIZES = range(520, 9000, 8)  # above Python's own small blocks, below what gets a mapping of its own
_MOST_HELD = 400
_draw = random.SystemRandom()
_held: list[bytearray] = []


def _stir(phase: str, _info: dict[str, Any]) -> None:
    if phase == "stop":
        _held.extend(bytearray(_draw.choice(_SIZES)) for _ in range(4))
        while len(_held) > _MOST_HELD or (_held and _draw.random() < 0.75):
            del _held[_draw.randrange(len(_held))]


if "STIR_MEMORY" in os.environ:
    gc.callbacks.append(_stir)
if "ALL_INSTRUCTIONS" in os.environ:
    for name in ("NPY_DISABLE_CPU_FEATURES", "OPENBLAS_CORETYPE"):
        os.environ.pop(name, None)
