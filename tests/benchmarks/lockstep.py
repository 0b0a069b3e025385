"""The baseline of `tests.benchmarks.nav_mesh`: a pipeline as one is usually first written.

One process; each trajectory loads its scene, is planned, rendered and stored before the next one begins; every
pass goes through a file on disk; storing holds up rendering. Trajectories, formats, resolution, samples and
bounces are the same as ours. The denoiser and the choice of lights to aim at are either Blender's own defaults
(`stock`), or our settings, so that only the way of working differs.

It gets depth and segmentation as passes of the colour render, which jitters them within the pixel: cheaper than
our exact ones, and not as good.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nimbusd.job import Job
from nimbusd.renderers.blender.renderer import BlenderProcRenderer
from nimbusd.stages.types import F32, F64, U8, U16, Camera, Observation, Scene, Sequence
from tests.benchmarks.lockstep_loop import serve


class DiskPassRenderer(BlenderProcRenderer):
    """Writes colour, depth and object index of each frame to files and reads them back; keeps nothing warm."""

    stock = False

    def load(self, scene: Scene) -> None:
        super().load(scene)
        self._folder = Path(tempfile.mkdtemp(prefix="passes-"))
        blender_scene = self._bpy.context.scene
        blender_scene.render.use_persistent_data = False
        if self.stock:
            use_stock_settings(self._bpy)
        blender_scene.render.image_settings.file_format = "PNG"
        layer = self._bpy.context.view_layer
        layer.use_pass_z = layer.use_pass_object_index = True
        for obj in scene.objects:
            self._bpy.data.objects[obj.name].pass_index = obj.instance_id
        blender_scene.use_nodes = blender_scene.render.use_compositing = True
        tree = blender_scene.node_tree
        tree.nodes.clear()
        layers = tree.nodes.new("CompositorNodeRLayers")
        tree.links.new(layers.outputs["Image"], tree.nodes.new("CompositorNodeComposite").inputs["Image"])
        for name in ("Depth", "IndexOB"):
            sink = tree.nodes.new("CompositorNodeOutputFile")
            sink.base_path = str(self._folder)
            sink.format.file_format = "OPEN_EXR"
            sink.format.color_depth = "32"
            sink.file_slots[0].path = name
            tree.links.new(layers.outputs[name], sink.inputs[0])

    @property
    def _wants_rays(self) -> bool:
        return False

    def _frame(self, camera: Camera, T_world_camera: F64, poses: Mapping[str, F64]) -> tuple[U8, F32, U16]:
        super()._frame(camera, T_world_camera, poses)
        shape = (camera.height, camera.width)
        depth = self._read_pass("Depth", shape)
        ids = self._read_pass("IndexOB", shape)
        rgb = np.asarray(Image.open(self._folder / "frame.png").convert("RGB"))
        return rgb, np.where(depth < 1e6, depth, 0).astype(np.float32), ids.astype(np.uint16)

    def _render(self, camera: Camera, T_world_camera: F64) -> U8:
        from mathutils import Matrix

        from nimbusd.renderers.blender.scene import set_camera

        set_camera(self._bpy, self._camera_object, camera)
        self._camera_object.matrix_world = Matrix(T_world_camera.tolist())
        self._bpy.context.scene.render.filepath = str(self._folder / "frame.png")
        self._bpy.ops.render.render(write_still=True)
        return np.empty(0, np.uint8)

    def _read_pass(self, name: str, shape: tuple[int, int]) -> F32:
        (path,) = self._folder.glob(f"{name}*.exr")
        image = self._bpy.data.images.load(str(path))
        pixels = np.empty(shape[0] * shape[1] * image.channels, np.float32)
        image.pixels.foreach_get(pixels)
        self._bpy.data.images.remove(image)
        path.unlink()
        return np.asarray(pixels.reshape(*shape, -1)[::-1, :, 0])


def use_stock_settings(bpy: Any) -> None:
    """Put back what Blender comes with, where we chose otherwise: denoiser quality and lights to aim at."""
    cycles = bpy.context.scene.cycles
    cycles.denoising_quality, cycles.denoising_prefilter = "HIGH", "ACCURATE"
    for material in bpy.data.materials:
        material.cycles.emission_sampling = "AUTO"


def render(job: Job, scene: Scene, seq: Sequence, *, stock: bool) -> Observation:
    """By a renderer that is opened for this sequence alone."""
    renderer = DiskPassRenderer(job.make("render").args)
    renderer.stock = stock
    renderer.open("auto")
    renderer.load(scene)
    observation = renderer.gen_obs(seq)
    renderer.close()
    return observation


if __name__ == "__main__":
    serve(__doc__, render)
