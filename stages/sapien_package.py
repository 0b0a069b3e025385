"""SAPIEN's Python package, beside Blender's in one process.

Both bring a library OpenImageDenoise under one name, and the linker takes whichever was first for both. SAPIEN's is the
older one, with which Blender does not load; SAPIEN is content with Blender's, or with none.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nimbusd.stages.errors import BackendUnavailable

_DENOISER = Path("lib", "libOpenImageDenoise.so.2")


def import_sapien(user: str, way_out: str) -> Any:
    """The package. It draws only where there is a device for Vulkan, and simulates anywhere.

    user, way_out: who needs it, and what to do without it, for the message. Raises BackendUnavailable.
    """
    _prefer_blenders_denoiser()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it misses Vulkan, also where nothing is drawn
            sapien = importlib.import_module("sapien")
            for part in ("physx", "render"):
                importlib.import_module(f"sapien.{part}")
    except ImportError as error:
        raise BackendUnavailable(f"{user} needs SAPIEN 3 ({error}): {way_out}") from error
    return sapien


def _prefer_blenders_denoiser() -> None:
    blender = None if "bpy" in sys.modules else find_spec("bpy")
    if blender is None or blender.origin is None:
        return
    library = Path(blender.origin).parent / _DENOISER
    if library.is_file():
        ctypes.CDLL(str(library))
