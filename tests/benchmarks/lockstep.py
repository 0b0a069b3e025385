"""The baseline of `tests.benchmarks.nav_mesh`: a pipeline as one is usually first written.

One process; each trajectory loads its scene, is planned, rendered and stored before the next one begins; every
pass goes through a file on disk; storing holds up rendering. Trajectories, formats, resolution, samples and
bounces are the same as ours. The denoiser and the choice of lights to aim at are either Blender's own defaults
(`stock`), or our settings, so that only the way of working differs.

It gets depth and segmentation as passes of the colour render, which jitters them within the pixel: cheaper than
our exact ones, and not as good.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from PIL import Image

from nimbusd.job import Job
from nimbusd.renderers.blender import BlenderProcRenderer
from nimbusd.stages.seeds import stream
from nimbusd.stages.types import F32, F64, U8, U16, Camera, Episode, EpisodeRequest, Scene


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

        from nimbusd.renderers.blender_scene import set_camera

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


def run_lockstep(job: Job, episodes: list[tuple[str, int]], output: Path, *, stock: bool) -> dict[str, Any]:
    """Make the episodes one after another. Returns seconds by stage, frames and the whole time."""
    (output / ".pieces").mkdir(parents=True)
    began = time.perf_counter()
    seconds: defaultdict[str, float] = defaultdict(float)
    frames = 0

    def timed(stage: str, call: Any, *args: Any) -> Any:
        started = time.perf_counter()
        result = call(*args)
        seconds[stage] += time.perf_counter() - started
        return result

    pieces = []
    for scene_name, index in episodes:
        loader, planner, writer = job.make("load"), job.make("plan"), job.make("store")
        scene = timed("load", loader.load_asset, job.scene_config(scene_name))
        sequence = timed("plan", planner.gen_sequence, scene, stream(job.seed, scene_name, index, "plan"))
        renderer = DiskPassRenderer(job.make("render").args)
        renderer.stock = stock

        def render(renderer: Any = renderer, scene: Any = scene, sequence: Any = sequence) -> Any:
            renderer.open("auto")
            renderer.load(scene)
            observation = renderer.gen_obs(sequence)
            renderer.close()
            return observation

        observation = timed("render", render)
        episode = Episode(EpisodeRequest(job.name, scene_name, index), output, scene=scene, sequence=sequence)
        pieces.append(timed("store", writer.save_data, sequence, observation, episode))
        frames += len(sequence)
    timed("publish", writer.publish, output, pieces, {"name": job.name, "seed": job.seed}, True)
    return {"seconds": dict(seconds), "frames": frames, "wall_s": time.perf_counter() - began}


def main() -> None:
    """Run the job of a JSON file on standard input; the result goes to the file named first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path)
    args = parser.parse_args()
    order = orjson.loads(sys.stdin.buffer.read())
    episodes = [(str(scene), int(index)) for scene, index in order["episodes"]]
    result = run_lockstep(Job.from_dict(order["job"]), episodes, Path(order["output"]), stock=order["stock"])
    args.result.write_bytes(orjson.dumps(result))


if __name__ == "__main__":
    main()
