"""An OpenGL context without a window: EGL, on a GPU or on Mesa's software rasterizer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from nimbusd.stages.errors import BackendUnavailable

_PACKAGES = "libegl1 libopengl0 libgl1-mesa-dri"

_VERSION = 430
"""OpenGL 4.3: the first with storage buffers and several draws in one call."""


@dataclass(frozen=True)
class Device:
    """An EGL context and its functions. gl: moderngl's context. driver: OpenGL's version and renderer, as it says."""

    egl: Any
    gl: Any
    driver: str

    def make_current(self) -> None:
        self.egl.make_current()

    def close(self) -> None:
        """Free the context."""
        self.gl.release()
        self.egl.free()


class _Functions:
    """The place where moderngl finds OpenGL's functions."""

    def load_opengl_function(self, name: str) -> int:
        from OpenGL import EGL

        return int(EGL.eglGetProcAddress(name.encode()) or 0)

    def release(self) -> None:
        """Nothing: the EGL context has an owner."""


def open_device(device: str) -> Device:
    """A current EGL context. device: `auto`, `cpu`, or `cuda:N`.

    Raises BackendUnavailable that names the Debian packages where EGL or its driver is missing or too old.
    """
    if device.startswith("cuda:"):
        os.environ["MUJOCO_EGL_DEVICE_ID"] = device.removeprefix("cuda:")
    try:
        import moderngl
        from mujoco.egl import GLContext
    except (ImportError, AttributeError) as error:
        raise BackendUnavailable(
            f"MuJoCo's worlds cannot be drawn here without EGL ({error}): pip install 'nimbusd[mujoco]', "
            f"and on Debian: sudo apt-get install {_PACKAGES}"
        ) from error
    try:
        egl = GLContext(16, 16)  # everything is drawn into framebuffers of its own; this size does not matter
        egl.make_current()
        functions: Any = _Functions()
        gl = moderngl.create_context(require=_VERSION, context=functions)
    except Exception as error:
        raise BackendUnavailable(
            f"no context of OpenGL {_VERSION / 100:.1f} could be made through EGL on device {device!r} "
            f"({type(error).__name__}: {error}); on Debian: sudo apt-get install {_PACKAGES}"
        ) from error
    return Device(egl, gl, f"{gl.info['GL_VERSION']}, {gl.info['GL_RENDERER']}")


def context_fault() -> str:
    """The reason that no context can be made here, by making one; empty where it can."""
    try:
        made = open_device("auto")
    except BackendUnavailable as error:
        return str(error)
    made.close()
    return ""
