"""Slots: places for compute workers on this machine, and the environment that a worker in one gets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one compute worker. cpus: cores it runs on. device: what its renderer is told to use."""

    name: str
    cpus: tuple[int, ...]
    device: str = "auto"


def cpu_slots(workers: int | None = None) -> tuple[Slot, ...]:
    """`workers` slots that share this process's cores; by default one for every core, at most 8.

    One core per worker keeps every core busy while another worker plans, loads or stores. With more workers
    than cores, cores are shared.
    """
    cores = sorted(os.sched_getaffinity(0))
    number = workers or min(len(cores), 8)
    shares = [tuple(cores[slot::number]) or (cores[slot % len(cores)],) for slot in range(number)]
    return tuple(Slot(f"cpu:{index}", cpus) for index, cpus in enumerate(shares))


def environment(slot: Slot) -> Mapping[str, str]:
    """The environment of a worker in `slot`.

    Numeric libraries start as many threads as it has cores; the AV1 encoder, which otherwise writes a page per
    video to standard error, keeps to errors.
    """
    threads = str(len(slot.cpus))
    own = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
    return {**os.environ, **own, "PYTHONUNBUFFERED": "1", "SVT_LOG": "1"}
