"""The environment of processes that make episodes: one arithmetic for all of them, so that a seed decides every bit.

Numeric libraries choose among implementations by what the processor has, and their last bits differ. NumPy even
chooses by where an array lies: a function that has AVX-512 vectors takes the C library's scalar one where the memory
that a strided input spans reaches the output's, so that equal inputs give unequal results in one and the same process.
So makers have no instructions but those of a level that all usual machines share: x86-64-v3 (AVX2 and FMA: Haswell,
Zen and later), elsewhere what NumPy was built to require. Libraries read this when they are loaded, hence it must be
in the environment that a process starts with.

Sources: NPY_DISABLE_CPU_FEATURES in NumPy's "CPU/SIMD optimizations"; OPENBLAS_CORETYPE in OpenBLAS's README; MKL_CBWR
in MKL's "Specifying code branches", of which COMPATIBLE alone is the same on every maker's processors;
ATEN_CPU_CAPABILITY of PyTorch; ONEDNN_MAX_CPU_ISA in oneDNN's "CPU dispatcher control".
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

MAKER_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONHASHSEED": "0",
    "SVT_LOG": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""Of every process that makes episodes, whatever the user has set.

Strings have the same hashes everywhere: what goes through a set of them comes in one order. The AV1 encoder, which
otherwise writes a page per video to standard error, keeps to errors. Linear algebra has one thread: how many add up
decides over the last bits of a sum, and episodes must not depend on a slot's cores.
"""

LESS, ONLY = "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES"
"""NumPy's variables: instructions to do without, and those to have no others than. It takes one of the two."""

_V3 = "x86-64-v3"
_SHARED = {
    "x86_64": frozenset({"SSSE3", "SSE41", "POPCNT", "SSE42", "AVX", "F16C", "FMA3", "AVX2", "X86_V2", "X86_V3"})
}
"""Instructions beyond its baseline that NumPy may use, by machine; none where it is not listed, so no SVE of ARM.

X86_V2 and X86_V3 are names since NumPy 2.4."""
_ALWAYS = frozenset({"SSE", "SSE2", "SSE3"})
_MOST_SHOWN = 20
"""Characters of what a user has chosen: a fact of a node is short."""


@dataclass(frozen=True, slots=True)
class Simd:
    """Groups of instructions as the NumPy that is installed names them."""

    machine: str
    baseline: tuple[str, ...]
    """Those that NumPy was built to require."""
    found: tuple[str, ...]
    """Others that this process uses."""
    missing: tuple[str, ...]
    """Those that NumPy has code for and does not use: the processor lacks them, or NPY_* variables rule them out."""

    @property
    def shared(self) -> frozenset[str]:
        """The instructions that makers may use beyond the baseline on this kind of machine."""
        return _SHARED.get(self.machine, frozenset())


@cache
def simd() -> Simd:
    """Of this process, by NumPy's own lists: which names there are depends on its release and on who built it."""
    import numpy as np

    show: Any = np.show_config  # whose types lack `mode` in NumPy 1
    groups = show(mode="dicts").get("SIMD Extensions", {})
    baseline, found, missing = (tuple(groups.get(key, ())) for key in ("baseline", "found", "not found"))
    return Simd(platform.machine(), baseline, found, missing)


def maker_environment(environ: Mapping[str, str], here: Simd | None = None) -> dict[str, str]:
    """The environment of a process that makes episodes, given ours. here: by default `simd`.

    What a user has NumPy do without, makers do without, too; libraries keep what a user has chosen for them.
    `arithmetic` tells of both.
    """
    here = here or simd()
    # All other names that NumPy has code for, also those that this processor lacks: of them it does not complain, while
    # one of the baseline keeps it from being imported, and one that it does not know is worth a warning.
    off = [name for name in (*here.found, *here.missing) if name not in here.shared & {*here.found}]
    made = {**environ, **MAKER_ENVIRONMENT, LESS: " ".join(off)}
    made.pop(ONLY, None)  # `found` is what it left
    for name, value in _libraries(here).items():
        made[name] = environ.get(name) or value
    return made


def arithmetic(environ: Mapping[str, str], here: Simd | None = None) -> str:
    """The instructions that makers compute with, in words to compare: `x86-64-v3`, and differences from that.

    These are what is lacking, what the baseline has beyond it, and what the user has chosen.
    """
    here = here or simd()
    level = _V3 if here.machine == "x86_64" else " ".join(here.baseline) or "the least"
    said = [level, *(f"no {name}" for name in here.missing if name in here.shared)]
    if here.machine == "x86_64":  # built for newer processors alone
        said += [name for name in here.baseline if name not in here.shared | _ALWAYS]
    for name, value in _libraries(here).items():
        if (chosen := environ.get(name) or value) != value:
            said.append(f"{name}={chosen[:_MOST_SHOWN]}")
    return ", ".join(said)


def _libraries(here: Simd) -> dict[str, str]:
    """The variables by which other libraries keep to the same instructions."""
    full = {"AVX2", "X86_V3"} & {*here.found, *here.baseline}
    match here.machine:
        case "x86_64":
            kernel, torch, onednn = ("Haswell", "avx2", "AVX2") if full else ("Prescott", "default", "SSE41")
            return {
                "OPENBLAS_CORETYPE": kernel,
                "MKL_CBWR": "COMPATIBLE",
                "ATEN_CPU_CAPABILITY": torch,
                "ONEDNN_MAX_CPU_ISA": onednn,
            }
        case "aarch64":
            return {"OPENBLAS_CORETYPE": "ARMV8", "ATEN_CPU_CAPABILITY": "default"}
        case _:
            return {}
