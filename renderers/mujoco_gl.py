"""An OpenGL context without a window, for MuJoCo: EGL, on a GPU or on Mesa's software rasterizer."""

from __future__ import annotations

import os
from typing import Any

from nimbusd.stages.errors import BackendUnavailable

_PACKAGES = "libegl1 libopengl0 libgl1-mesa-dri"


def open_context(device: str) -> Any:
    """A current EGL context. device: `auto`, `cpu`, or `cuda:N`.

    Raises BackendUnavailable that names the Debian packages where EGL or its driver is missing.
    """
    if device.startswith("cuda:"):
        os.environ["MUJOCO_EGL_DEVICE_ID"] = device.removeprefix("cuda:")
    try:
        from mujoco.egl import GLContext
    except (ImportError, AttributeError) as error:
        raise BackendUnavailable(
            f"MuJoCo cannot render here without EGL ({error}): pip install 'nimbusd[mujoco]', "
            f"and on Debian: sudo apt-get install {_PACKAGES}"
        ) from error
    try:
        context = GLContext(16, 16)  # MuJoCo draws into a framebuffer of its own; this size does not matter
        context.make_current()
    except Exception as error:
        raise BackendUnavailable(
            f"no OpenGL context could be made through EGL on device {device!r} ({type(error).__name__}: {error}); "
            f"on Debian: sudo apt-get install {_PACKAGES}"
        ) from error
    return context


def context_fault() -> str:
    """Why no context can be made here, by making one; empty where it can."""
    try:
        context = open_context("auto")
    except BackendUnavailable as error:
        return str(error)
    context.free()
    return ""


def driver() -> str:
    """The version and the renderer of the current context's driver: `4.5 … Mesa 22.3.6, llvmpipe (LLVM 15.0.6, …)`."""
    from OpenGL import GL

    said = (GL.glGetString(name) or b"" for name in (GL.GL_VERSION, GL.GL_RENDERER))
    return ", ".join(text.decode(errors="replace") for text in said)
