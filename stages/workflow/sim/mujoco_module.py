"""Importing MuJoCo, which looks at the environment for the way it is to draw before it does anything else."""

from __future__ import annotations

import os
from typing import Any

from nimbusd.stages.errors import BackendUnavailable

_THROUGH_EGL = "MuJoCo is drawn through EGL here (on Mesa where there is no GPU): unset it, or set it to egl"
_DRAWN = ("", "egl", "glfw", "glx", "enable", "enabled", "on", "true", "1", "disable", "disabled", "off", "false", "0")
"""Values of MUJOCO_GL with which the package can be imported and EGL be used beside."""


def environment_fault() -> str:
    """The fault of the variables that MuJoCo and PyOpenGL read; empty without one."""
    word = os.environ.get("MUJOCO_GL", "")
    if word.lower().strip() not in _DRAWN:
        return f"the environment variable MUJOCO_GL is {word!r}; {_THROUGH_EGL}"
    platform = os.environ.get("PYOPENGL_PLATFORM", "")
    if platform.lower() not in ("", "egl"):
        return f"the environment variable PYOPENGL_PLATFORM is {platform!r}; {_THROUGH_EGL}"
    return ""


def import_mujoco() -> Any:
    """The mujoco module. Raises BackendUnavailable where it is not installed, or the environment is against it."""
    if fault := environment_fault():
        raise BackendUnavailable(fault)
    try:
        import mujoco
    except ImportError as error:
        raise BackendUnavailable(f"MuJoCo is not installed here ({error}): pip install 'nimbusd[mujoco]'") from error
    return mujoco
