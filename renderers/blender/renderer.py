"""The Blender renderer: Cycles for RGB, exact ray casting for depth and segmentation, in one process."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nimbusd.renderers.blender.device import Device, choose_device, import_bpy
from nimbusd.renderers.blender.scene import BlenderScene, set_camera
from nimbusd.renderers.blender.settings import BlenderArgs, apply_settings, quality
from nimbusd.renderers.frames import FrameArrays, with_motion
from nimbusd.renderers.raycast import RayCaster, import_embree
from nimbusd.renderers.scratch import Scratch
from nimbusd.stages.base import BaseRenderer
from nimbusd.stages.categories import label_table
from nimbusd.stages.errors import RenderError
from nimbusd.stages.types import F32, F64, U8, U16, Camera, Observation, Scene, Sequence

__all__ = ["BlenderArgs", "BlenderProcRenderer"]


class BlenderProcRenderer(BaseRenderer[BlenderArgs]):
    """Renders sequences with Blender's Cycles (`bpy`); RGB, depth and segmentation share one camera model.

    Blender is one per process, so only one instance may be open at a time in a process.
    """

    args_model: ClassVar[type[BlenderArgs]] = BlenderArgs
    requires = ("bpy",)
    motion = "poses"

    def __init__(self, args: BlenderArgs) -> None:
        super().__init__(args)
        self._bpy: Any = None
        self._device: Device | None = None
        self._scratch: Scratch | None = None
        self._loaded: BlenderScene | None = None
        self._scene: Scene | None = None
        self._caster: RayCaster | None = None
        self._camera_object: Any = None
        self._pool: ThreadPoolExecutor | None = None

    def needs(self) -> tuple[str, ...]:
        return (*self.requires, "embreex") if self._wants_rays else self.requires

    @property
    def device_name(self) -> str:
        """The device that Cycles renders on, such as `OPTIX (NVIDIA L40)`; empty before open()."""
        return str(self._device) if self._device else ""

    def open(self, device: str) -> None:
        bpy = import_bpy()
        if self._wants_rays:
            import_embree()
        self._scratch = Scratch(self.args.scratch)
        # Blender's own clean-up at exit deadlocks while a handler of ours is still registered.
        atexit.register(self.close)
        try:
            bpy.ops.wm.read_factory_settings(use_empty=True)
            bpy.context.preferences.filepaths.temporary_directory = str(self._scratch.path)
            self._bpy = bpy
            self._device = choose_device(bpy, device, self.args.device)
            apply_settings(bpy.context.scene, self.args, self._device)
            self._camera_object = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
            bpy.context.scene.collection.objects.link(self._camera_object)
            bpy.context.scene.camera = self._camera_object
            bpy.app.handlers.render_stats.append(self._on_progress)
            self._pool = ThreadPoolExecutor(1, "raycast")
        except BaseException:
            self.close()
            raise

    def load(self, scene: Scene) -> None:
        if self._bpy is None:
            self.open("auto")
        if self._scene is not None and self._scene.content_hash == scene.content_hash:
            return
        self._unload()
        self._loaded = BlenderScene(self._bpy, scene)
        self._caster = RayCaster(scene)
        self._scene = scene
        self.beat()

    def gen_obs(self, seq: Sequence) -> Observation:
        if self._scene is None or self._caster is None:
            raise RenderError("no scene is loaded: call load(scene) before gen_obs(seq)")
        seq = with_motion(self, seq, self._scene)
        if self._wants_rays:
            self._caster.prepare(frozenset(seq.T_world_object))
        self.beat()
        labels = label_table(self._scene.objects)
        frames = FrameArrays(seq.cameras, len(seq), depth=self.args.depth, segmentation=self.args.segmentation)
        for t in range(len(seq)):
            poses = {name: T[t] for name, T in seq.T_world_object.items()}
            for camera in seq.cameras:
                rgb, depth, ids = self._frame(camera, seq.T_world_camera[camera.name][t], poses)
                frames.put(camera.name, t, rgb, depth, ids)
                self.beat()
        return Observation(frames.finish(labels), labels, self._facts())

    def close(self) -> None:
        atexit.unregister(self.close)
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        if self._bpy is not None:
            self._unload()
            handlers = self._bpy.app.handlers.render_stats
            if self._on_progress in handlers:
                handlers.remove(self._on_progress)
            if self._camera_object is not None:
                self._bpy.data.batch_remove([self._camera_object, self._camera_object.data])
            self._camera_object = self._bpy = None
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None

    @property
    def _wants_rays(self) -> bool:
        return self.args.depth or self.args.segmentation

    def _unload(self) -> None:
        if self._loaded is not None:
            # Switching it off frees what Cycles keeps between frames. It knows images by their address, and
            # would show the old scene's texture on a new image that was put where the old one lay.
            render = self._bpy.context.scene.render
            render.use_persistent_data = False
            self._loaded.remove()
            render.use_persistent_data = True
        self._loaded = self._scene = self._caster = None

    def _frame(
        self, camera: Camera, T_world_camera: F64, poses: Mapping[str, F64]
    ) -> tuple[U8, F32 | None, U16 | None]:
        assert self._loaded is not None
        assert self._caster is not None
        assert self._pool is not None
        hits: Future[tuple[F32, U16]] | None = None
        if self._wants_rays:
            hits = self._pool.submit(self._caster.cast, camera, T_world_camera, poses)
        self._loaded.place(poses)
        rgb = self._render(camera, T_world_camera)
        return (rgb, *hits.result()) if hits else (rgb, None, None)

    def _render(self, camera: Camera, T_world_camera: F64) -> U8:
        from mathutils import Matrix

        assert self._scratch is not None
        bpy, target = self._bpy, self._scratch.path / "frame.bmp"
        set_camera(bpy, self._camera_object, camera)
        self._camera_object.matrix_world = Matrix(T_world_camera.tolist())
        bpy.context.scene.render.filepath = str(target)
        target.unlink(missing_ok=True)
        try:
            with _silent_stdout():
                bpy.ops.render.render(write_still=True)
            return read_bmp(target, camera.width, camera.height)
        except (RuntimeError, OSError) as error:
            raise RenderError(f"Blender could not render camera {camera.name!r}: {error}") from error

    def _on_progress(self, *_: object) -> None:
        self.beat()

    def _facts(self) -> dict[str, Any]:
        return {
            "backend": "blender",
            "blender": self._bpy.app.version_string,
            "device": self.device_name,
            "preset": self.args.preset,
            **quality(self.args).model_dump(),
            "view_transform": self.args.view_transform,
            "exposure": self.args.exposure,
            "seed": self.args.seed,
        }


def read_bmp(path: Path, width: int, height: int) -> U8:
    """(height, width, 3) uint8 RGB of an uncompressed 24-bit BMP. Raises OSError for anything else."""
    content = path.read_bytes()
    start, stride = int.from_bytes(content[10:14], "little"), (width * 3 + 3) // 4 * 4
    size = (int.from_bytes(content[18:22], "little"), int.from_bytes(content[22:26], "little", signed=True))
    bits = int.from_bytes(content[28:30], "little")
    if content[:2] != b"BM" or size != (width, height) or bits != 24 or len(content) < start + stride * height:
        raise OSError(f"{path} is not an uncompressed {width}x{height} BMP of 24 bits")
    rows = np.frombuffer(content, np.uint8, stride * height, start).reshape(height, stride)
    return rows[::-1, : width * 3].reshape(height, width, 3)[..., ::-1]


@contextlib.contextmanager
def _silent_stdout() -> Iterator[None]:
    """Send file descriptor 1 to /dev/null: Cycles prints several lines per frame and has no switch for it.

    Errors go to stderr, which stays as it is.
    """
    sys.stdout.flush()
    saved, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(null)
