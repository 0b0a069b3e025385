"""The choice of the device that Blender's Cycles renders on, and clear words for a machine where it cannot run."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from nimbusd.stages.errors import BackendUnavailable

DeviceChoice = Literal["auto", "optix", "cuda", "cpu"]

# The shared libraries that the bpy wheel expects from the system, and the Debian packages that hold them.
DEBIAN_PACKAGES = {
    "libX11.so.6": "libx11-6",
    "libXrender.so.1": "libxrender1",
    "libXfixes.so.3": "libxfixes3",
    "libXi.so.6": "libxi6",
    "libXext.so.6": "libxext6",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libSM.so.6": "libsm6",
    "libICE.so.6": "libice6",
    "libGL.so.1": "libgl1",
}

_MISSING_LIBRARY = re.compile(r"(lib[\w.+-]+\.so[\w.]*): cannot open shared object file")


@dataclass(frozen=True, slots=True)
class Device:
    """kind: what Cycles computes with. name: the hardware's name, for logs and metadata."""

    kind: Literal["OPTIX", "CUDA", "CPU"]
    name: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.name})"


def import_bpy() -> ModuleType:
    """Import `bpy`. Raises BackendUnavailable with one sentence that says what to install."""
    try:
        return importlib.import_module("bpy")
    except ImportError as error:
        raise BackendUnavailable(_why(error)) from error


def _why(error: ImportError) -> str:
    library = _MISSING_LIBRARY.search(str(error))
    if library:
        package = DEBIAN_PACKAGES.get(library[1])
        way_out = f"apt-get install {package}" if package else f"install the package that holds {library[1]}"
        return f"Blender cannot start: the system library {library[1]} is missing ({way_out})."
    if isinstance(error, ModuleNotFoundError):
        return "The Blender renderer needs the Python package bpy (pip install 'nimbusd[blender]', Python 3.11)."
    return f"The Python package bpy does not load: {error}. Reinstall it: pip install 'nimbusd[blender]'."


def choose_device(bpy: Any, slot_device: str, choice: DeviceChoice) -> Device:
    """Probe for OptiX, then CUDA, then the CPU, and point Cycles' preferences at what was found.

    slot_device: what the worker's slot offers: `auto`, `cpu`, or `cuda:<n>` for the n-th visible GPU.
    choice: what the job's arguments ask for; `auto` takes the fastest there is. Raises BackendUnavailable
    when the slot or the job insists on a GPU that is not there.
    """
    preferences = bpy.context.preferences.addons["cycles"].preferences
    slot, _, number = slot_device.partition(":")
    if slot not in ("auto", "cpu", "cuda", "optix") or not (number or "0").isdigit():
        raise BackendUnavailable(f"Blender knows no device {slot_device!r}: use auto, cpu, cuda:<n> or optix:<n>.")
    wanted = _wanted_kinds(slot, choice)
    for kind in wanted:
        found = [entry for entry in preferences.get_devices_for_type(kind) if entry.type == kind]
        if int(number or 0) < len(found):
            preferences.compute_device_type = kind
            for entry in preferences.devices:
                entry.use = False
            found[int(number or 0)].use = True
            return Device(kind, found[int(number or 0)].name)
    if slot in ("auto", "cpu") and choice in ("auto", "cpu"):
        preferences.compute_device_type = "NONE"
        names = [entry.name for entry in preferences.get_devices_for_type("CPU") if entry.type == "CPU"]
        return Device("CPU", names[0] if names else "unknown processor")
    raise BackendUnavailable(
        f"Blender finds no {' or '.join(wanted) or 'GPU'} device for {slot_device!r} with device={choice!r}: "
        "check the driver with nvidia-smi, or set the renderer's device to cpu."
    )


def _wanted_kinds(slot: str, choice: DeviceChoice) -> list[Literal["OPTIX", "CUDA"]]:
    if slot == "cpu" or choice == "cpu":
        return []
    if choice != "auto":
        return ["OPTIX"] if choice == "optix" else ["CUDA"]
    return ["OPTIX"] if slot == "optix" else ["OPTIX", "CUDA"]
