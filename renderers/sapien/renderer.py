"""`SapienRenderer`: rasterizes scenes with SAPIEN 3 (Vulkan), depth and segmentation from the same pass as RGB."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from nimbusd.renderers.frames import FrameArrays, with_motion
from nimbusd.renderers.sapien.scene import OURS_FROM_SAPIEN, SapienScene, import_sapien, pose_of, reach, rigid
from nimbusd.renderers.scratch import Scratch
from nimbusd.stages.base import BaseRenderer, ComponentArgs
from nimbusd.stages.categories import label_table
from nimbusd.stages.errors import BackendUnavailable, RenderError
from nimbusd.stages.types import F32, F64, U8, U16, Camera, Observation, Scene, Sequence

__all__ = ["SapienRenderer", "SapienRendererArgs"]

NEAR_M, FAR_M = 0.01, 1000.0


class SapienRendererArgs(ComponentArgs):
    """Arguments of SapienRenderer. depth, segmentation: read them back besides RGB.

    shadows: the strongest sun, three point lamps and ten area lamps cast them.
    """

    depth: bool = True
    segmentation: bool = True
    shadows: bool = True


class SapienRenderer(BaseRenderer[SapienRendererArgs]):
    """Renders sequences with SAPIEN's `default` shader pack. It needs a Vulkan device that SAPIEN supports.

    Rays that leave the scene see the sky's colour; the sky lights surfaces as ambient light.
    """

    args_model: ClassVar[type[ComponentArgs]] = SapienRendererArgs
    version = "1.1.0"
    requires = ("sapien",)
    motion = "poses"

    def __init__(self, args: SapienRendererArgs) -> None:
        super().__init__(args)
        self._sapien: Any = None
        self._device = ""
        self._system: Any = None
        self._surroundings: Any = None
        self._scratch: Scratch | None = None
        self._scene: Scene | None = None
        self._loaded: SapienScene | None = None

    def open(self, device: str) -> None:
        sapien = import_sapien()
        sapien.render.set_camera_shader_dir("default")
        sapien.render.set_msaa(1)  # several samples would blend positions at edges
        try:
            # Without a name SAPIEN takes the first device that can render.
            self._system = sapien.render.RenderSystem(*([] if device == "auto" else [device]))
        except RuntimeError as error:
            raise BackendUnavailable(
                f"SAPIEN found no Vulkan device to render on for {device!r} ({error}): it needs a GPU with a Vulkan "
                "driver (on NVIDIA the driver's own, with the container's `graphics` capability). "
                "Of software drivers SAPIEN 3.0.3 takes SwiftShader (scripts/software_vulkan.sh), not Mesa 22.3's."
            ) from error
        self._sapien, self._device = sapien, device
        # SAPIEN filters a cube map when it is first seen, and makes one for each scene that has none.
        self._scratch = Scratch()
        black = str(self._scratch.path / "black.png")
        Image.new("RGB", (8, 8)).save(black)
        self._surroundings = sapien.render.RenderCubemap(*[black] * 6)

    def load(self, scene: Scene) -> None:
        if self._sapien is None:
            self.open("auto")
        if self._scene is not None and self._scene.content_hash == scene.content_hash:
            return
        self._unload()
        if self._system is None:
            self._system = self._sapien.render.RenderSystem(*([] if self._device == "auto" else [self._device]))
        self._loaded = SapienScene(self._sapien, self._system, scene, self.args.shadows, self._surroundings)
        self._scene = scene
        self.beat()

    def gen_obs(self, seq: Sequence) -> Observation:
        if self._scene is None or self._loaded is None:
            raise RenderError("no scene is loaded: call load(scene) before gen_obs(seq)")
        seq = with_motion(self, seq, self._scene)
        labels = label_table(self._scene.objects)
        frames = FrameArrays(seq.cameras, len(seq), depth=self.args.depth, segmentation=self.args.segmentation)
        self._loaded.cast_shadows(reach(self._scene, seq.T_world_object))
        eyes = {camera.name: self._loaded.add_camera(camera, NEAR_M, FAR_M) for camera in seq.cameras}
        try:
            for t in range(len(seq)):
                self._loaded.place({name: T[t] for name, T in seq.T_world_object.items()})
                for camera in seq.cameras:
                    T = seq.T_world_camera[camera.name][t]
                    frames.put(camera.name, t, *self._shot(eyes[camera.name], camera, T))
                    self.beat()
        except RuntimeError as error:
            raise RenderError(f"SAPIEN could not render scene {self._scene.name!r}: {error}") from error
        finally:
            for eye in eyes.values():
                self._loaded.remove(eye)
        return Observation(frames.finish(labels), labels, self._facts())

    def close(self) -> None:
        self._unload()
        self._system = self._sapien = self._surroundings = None
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None

    def _unload(self) -> None:
        # A render system belongs to its scene; the next scene gets one of its own.
        if self._loaded is not None:
            self._loaded.close()
            self._system = None
        self._loaded = self._scene = None

    def _shot(self, eye: Any, camera: Camera, T_world_camera: F64) -> tuple[U8, F32 | None, U16 | None]:
        assert self._loaded is not None
        eye.set_pose(pose_of(self._sapien, camera_pose(T_world_camera)))
        component = eye.components[0]
        self._loaded.picture(component)
        rgb = srgb_bytes(component.get_picture("Color"))
        if not (self.args.depth or self.args.segmentation):
            return rgb, None, None
        if self._loaded.has_glass:
            self._loaded.show_glass(False)
            try:
                self._loaded.picture(component)
            finally:
                self._loaded.show_glass(True)
        entities = component.get_picture("Segmentation")[..., 1]
        ids = instances(entities, self._loaded.instance_of)
        return rgb, depth_metres(component.get_picture("Position"), ids), ids

    def _facts(self) -> dict[str, Any]:
        assert self._loaded is not None
        return {
            "backend": "sapien",
            "sapien": self._sapien.__version__,
            "device": self._device,
            "shader": "default",
            "shadows": self.args.shadows,
            "lights_left_out": self._loaded.lights_left_out,
            "lights_without_shadow": self._loaded.lights_without_shadow,
        }


def camera_pose(T_world_camera: F64) -> F64:
    """(4, 4) pose of a SAPIEN camera that sees what our camera sees."""
    return rigid("camera", T_world_camera @ OURS_FROM_SAPIEN)[0]


def srgb_bytes(color: Any) -> U8:
    """(H, W, 3) uint8 of SAPIEN's `Color`, which is gamma-encoded RGBA, in floats or in bytes by shader pack."""
    rgb = np.asarray(color)[..., :3]
    if rgb.dtype == np.uint8:
        return np.ascontiguousarray(rgb)
    return np.asarray(np.rint(np.clip(np.nan_to_num(rgb), 0, 1) * 255), np.uint8)


def depth_metres(position: Any, ids: U16) -> F32:
    """(H, W) metres along the optical axis of SAPIEN's `Position`: x, y, z in the axes of OpenGL; 0 without a hit."""
    return np.asarray(np.where(ids > 0, -np.asarray(position)[..., 2], 0), np.float32)


def instances(entities: Any, instance_of: Mapping[int, int]) -> U16:
    """(H, W) our instance ids of SAPIEN's entity ids; entities that are no object become background."""
    numbers = np.asarray(entities).astype(np.int64)
    table = np.zeros(max([*instance_of, int(numbers.max(initial=0))], default=0) + 1, np.uint16)
    for entity, instance in instance_of.items():
        table[entity] = instance
    return np.asarray(table[numbers], np.uint16)
