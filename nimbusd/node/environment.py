"""What a node is made of, and how busy it is: what it tells the master of itself."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import psutil

from nimbusd.machine import gpus
from nimbusd.makers.arithmetic import arithmetic
from nimbusd.stages.store.made_with import packages_hash
from nimbusd.transport.messages.control import Load

_PACKAGES = [
    "nimbusd",
    "numpy",
    "scipy",
    "scikit-image",
    "shapely",
    "mapbox-earcut",
    "DracoPy",
    "meshopt",
    "ompl",
    "toppra",
    "fast-simplification",
    "moderngl",
    "bpy",
    "embreex",
    "mujoco",
    "sapien",
    "isaacsim",
    "usd-core",
    "numba",
    "gsplat",
    "nvidia-curobo",
    "torch",
    "av",
    "pillow",
    "pyarrow",
]
"""Whose versions decide plans and pixels. Packages that bring components are added to them."""
LOAD_EVERY_S = 1.0


@cache
def packages() -> Mapping[str, str]:
    """Version by package, of all installed ones that decide what this node makes; Python's, the C library's and the GPU
    driver's, and the instructions that makers compute with (see `arithmetic`).
    """
    providers = {point.dist.name for point in metadata.entry_points(group="nimbusd.components") if point.dist}
    found = {"python": platform.python_version(), "machine": platform.machine()}
    found["arithmetic"] = arithmetic(os.environ)
    if libc := " ".join(platform.libc_ver()).strip():  # NumPy's functions and Python's `math` are the C library's
        found["libc"] = libc
    for name in sorted({*_PACKAGES, *providers}):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if "isaacsim" not in found and (isaacsim := _isaacsim_of_container()):
        found["isaacsim"] = isaacsim
    if driver := gpus.driver_version():
        found["gpu driver"] = driver
    return found


def _isaacsim_of_container() -> str:
    """Isaac Sim's version where pip did not install it: its containers set ISAAC_PATH. Empty where there is none."""
    folder = os.environ.get("ISAAC_PATH")
    try:
        return (Path(folder) / "VERSION").read_text().partition("\n")[0].strip() if folder else ""
    except OSError:
        return ""


def environment_hash() -> str:
    """SHA-256 (hex) of `packages`: nodes with the same one make the same episodes."""
    return packages_hash(packages())


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
