"""What a node is made of, and how busy it is: what it tells the master of itself."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata

import orjson
import psutil

from nimbusd.transport.control import Load

_PACKAGES = (
    "nimbusd",
    "numpy",
    "scipy",
    "bpy",
    "embreex",
    "trimesh",
    "mujoco",
    "gsplat",
    "torch",
    "av",
    "pillow",
    "pyarrow",
)
"""Whose versions decide plans and pixels. Packages that bring components are added to them."""


@cache
def packages() -> Mapping[str, str]:
    """Version by package, of all installed ones that decide what this node makes; and Python's."""
    providers = {point.dist.name for point in metadata.entry_points(group="nimbusd.components") if point.dist}
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in sorted({*_PACKAGES, *providers}):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def environment_hash() -> str:
    """SHA-256 (hex) of `packages`: nodes with the same one make the same episodes."""
    return hashlib.sha256(orjson.dumps(dict(packages()), option=orjson.OPT_SORT_KEYS)).hexdigest()


def load() -> Load:
    """What the processors and the memory do; since the last call, as for the processors."""
    memory = psutil.virtual_memory()
    return Load(psutil.cpu_percent(None) / 100, int(memory.total - memory.available), int(memory.total))
