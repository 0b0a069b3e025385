"""The packages and the load of a node, as it tells them its master."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

import psutil

from nimbusd.core.environments import Environment, canonical, environment_of, names_that_count
from nimbusd.job import Job
from nimbusd.machine import gpus
from nimbusd.makers.arithmetic import arithmetic
from nimbusd.stages.errors import NimbusError
from nimbusd.transport.messages.control import Load

MOST_PACKAGES = 1_900
"""That are told to a master."""
LOAD_EVERY_S = 1.0
_MOST_CHARACTERS = 200
"""Of a name or a version: `Packages` in the messages has the bounds."""


@cache
def packages() -> Mapping[str, str]:
    """Version by name of everything that is installed here and may decide what a job makes.

    All installed packages; Python, the C library and the GPU's driver; the machine, and the instructions that makers
    compute with (see `arithmetic`). Names are canonical. Raises NimbusError where more is installed than can be told.
    """
    found: dict[str, str] = {}
    for installed in metadata.distributions():
        name, version = installed.metadata["Name"], installed.version
        if _is_fact(name) and _is_fact(version):  # what a broken installation left behind may have neither
            found.setdefault(canonical(name), version)  # the first one on the path is the one that is imported
    if "isaacsim" not in found and (isaacsim := _isaacsim_of_container()):
        found["isaacsim"] = isaacsim
    if len(found) > MOST_PACKAGES:
        raise NimbusError(
            f"{len(found):,} packages are installed in {sys.prefix}, more than the {MOST_PACKAGES:,} that a node can "
            "tell its master: install nimbusd and what its components need into an environment of their own"
        )
    found |= {"python": platform.python_version(), "machine": platform.machine(), "arithmetic": arithmetic(os.environ)}
    if libc := " ".join(platform.libc_ver()).strip():  # NumPy's functions and Python's `math` are the C library's
        found["libc"] = libc
    if driver := gpus.driver_version():
        found["gpu driver"] = driver
    return found


def _is_fact(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= _MOST_CHARACTERS and text.isprintable()


def _isaacsim_of_container() -> str:
    """Isaac Sim's version where pip did not install it: its containers set ISAAC_PATH. Empty where there is none."""
    folder = os.environ.get("ISAAC_PATH")
    try:
        return (Path(folder) / "VERSION").read_text().partition("\n")[0].strip() if folder else ""
    except OSError:
        return ""


def environment() -> Environment:
    """All `packages` of this node: nodes with the same hash make the same episodes of every job."""
    return environment_of(packages(), None)


def environment_for(job: Job, began_with: Mapping[str, str] = MappingProxyType({})) -> Environment:
    """The part of `packages` that counts for a job. began_with: the packages that the job began with, if known."""
    return environment_of(packages(), names_that_count(job.requires, began_with))


class LoadMeter:
    """Measures what processors, memory and GPUs do, at most once a second however often it is asked."""

    def __init__(self) -> None:
        self._measured_at = -LOAD_EVERY_S
        self._load = Load(0.0, 0, 0)
        psutil.cpu_percent(None)  # the first call has nothing to compare with

    def load(self) -> Load:
        """The load over the last second or more."""
        now = time.monotonic()
        if now - self._measured_at >= LOAD_EVERY_S:
            memory = psutil.virtual_memory()
            cpu = psutil.cpu_percent(None) / 100
            self._load = Load(cpu, int(memory.total - memory.available), int(memory.total), gpus.loads())
            self._measured_at = now
        return self._load
