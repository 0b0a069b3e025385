"""Slots: places for compute workers on this machine, and the environment that a worker in one gets."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nimbusd.config import SLOTS_PER_GPU, ConfigError
from nimbusd.machine import gpus
from nimbusd.machine.cores import node_cores
from nimbusd.machine.gpus import Gpu
from nimbusd.makers.arithmetic import maker_environment

MOST_CPU_SLOTS = 8
"""Unless more are asked for: every compute worker takes memory for its scene."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one compute worker."""

    name: str
    """`cpu:<number>`, or `gpu:<board>.<number>`."""
    cpus: tuple[int, ...]
    """The cores that the worker runs on."""
    device: str = "auto"
    """For the worker's renderer: `auto`, `cpu`, or `cuda:0`, which is the only GPU that the worker sees."""
    renders: bool = True
    """False where there is no device for that, and workers only plan."""
    gpu: int | None = None
    """The board, as nvidia-smi counts."""
    gpu_uuid: str = ""


def discover(
    workers: int | None = None,
    slots_per_gpu: int = SLOTS_PER_GPU,
    chosen: Sequence[int] | None = None,
    *,
    library: Any = None,
    cores: Sequence[int] | None = None,
) -> tuple[Slot, ...]:
    """Find the slots of this machine: some for each NVIDIA GPU, named `gpu:<index>.<number>`, then CPU slots.

    The MIG instances of a GPU that is divided count as GPUs: its slots are numbered through.

    Beside GPU slots, CPU slots are for planning. Without GPUs they are all there is, and do everything.
    workers: CPU slots; by default one for every core that no GPU slot needs, at most 8. chosen: GPUs as nvidia-smi
    counts; none for an empty sequence; by default those of CUDA_VISIBLE_DEVICES, or all. library: NVML, to be used
    instead of the machine's. cores: that are to be dealt out; by default `node_cores`. Raises ConfigError for a GPU
    that is not there, or if no slot is left.
    """
    cores = node_cores().cores if cores is None else cores
    found = () if chosen is not None and not chosen else _choose(gpus.present(library), chosen)
    numbers = {gpu.index: itertools.count() for gpu in found}
    places = [(gpu, next(numbers[gpu.index])) for gpu in found for _ in range(slots_per_gpu)]
    number = min(max(len(cores) - len(places), 1), MOST_CPU_SLOTS) if workers is None else workers
    if not places and not number:
        raise ConfigError("this node would have no slot: it has no GPU to use, and `workers` is 0. Set `workers`.")
    near = [[core for core in cores if core in gpu.cores] or cores for gpu, _ in places]
    shares = _dealt([*near, *[cores] * number])
    on_gpus = [
        Slot(f"gpu:{gpu.index}.{number}", cpus, "cuda:0", gpu=gpu.index, gpu_uuid=gpu.uuid)
        for (gpu, number), cpus in zip(places, shares, strict=False)
    ]
    device = "cpu" if places or chosen is not None else "auto"
    rest = shares[len(places) :]
    on_cpus = [Slot(f"cpu:{index}", cpus, device, renders=not places) for index, cpus in enumerate(rest)]
    return (*on_gpus, *on_cpus)


def cpu_slots(workers: int | None = None) -> tuple[Slot, ...]:
    """`workers` slots that share this process's cores; by default one for every core, at most 8.

    One core per worker keeps every core busy while another worker plans, loads or stores. With more workers
    than cores, cores are shared.
    """
    cores = node_cores().cores
    shares = _dealt([cores] * (workers or min(len(cores), MOST_CPU_SLOTS)))
    return tuple(Slot(f"cpu:{index}", cpus) for index, cpus in enumerate(shares))


def typical(slots: Sequence[Slot]) -> Slot:
    """A slot like most of those that render: what a process without a slot is started for."""
    rendering = [slot for slot in slots if slot.renders] or slots
    return max(rendering, key=lambda slot: sum(len(other.cpus) == len(slot.cpus) for other in rendering))


def environment(slot: Slot) -> Mapping[str, str]:
    """The environment of a worker in `slot`: ours, and what the slot changes in it."""
    return maker_environment({**os.environ, **environment_of_place(slot)})


def environment_of_place(slot: Slot) -> Mapping[str, str]:
    """The variables that depend on the slot: its GPU, and as many threads of OpenMP as it has cores."""
    own = {"OMP_NUM_THREADS": str(len(slot.cpus))}
    if slot.gpu_uuid:
        own["CUDA_VISIBLE_DEVICES"] = slot.gpu_uuid
    elif slot.device == "cpu":
        own["CUDA_VISIBLE_DEVICES"] = "-1"  # an empty one is taken for unset by some libraries
    return own


def _dealt(wants: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Cores for each slot, out of those that it could use: each core goes to the slot that has fewest so far.

    Who gets none because there are more slots than cores shares one.
    """
    dealt: list[list[int]] = [[] for _ in wants]
    for core in sorted({core for cores in wants for core in cores}):
        takers = [mine for mine, cores in zip(dealt, wants, strict=True) if core in cores]
        min(takers, key=len).append(core)
    return [
        tuple(mine) or (cores[place % len(cores)],)
        for place, (mine, cores) in enumerate(zip(dealt, wants, strict=True))
    ]


def _choose(found: Sequence[Gpu], chosen: Sequence[int] | None) -> list[Gpu]:
    """The GPUs to use, in the order of their indexes."""
    if chosen is None:
        return _visible(found)
    present = sorted({gpu.index for gpu in found})
    for index in chosen:
        if index not in present:
            there = ", ".join(map(str, present)) or "none"
            raise ConfigError(f"`gpus` names GPU {index}, but of this node NVML knows {there} (see `nvidia-smi -L`)")
    return [gpu for gpu in found if gpu.index in chosen]


def _visible(found: Sequence[Gpu]) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES names, by index or by the beginning of a UUID; all where it is not set.

    Of a board that is divided by MIG, its own name stands for its first instance.
    """
    text = os.environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return list(found)
    visible: list[Gpu] = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        named = [gpu for gpu in found if gpu.uuid.startswith(word)] or [
            gpu for gpu in found if str(gpu.index) == word or gpu.board.startswith(word)
        ]
        if len({gpu.board for gpu in named}) != 1 or (len(named) > 1 and named[0].uuid.startswith(word)):
            break  # as CUDA has it: what comes after one that is not there does not count
        visible.append(named[0])
    return sorted(set(visible), key=found.index)
