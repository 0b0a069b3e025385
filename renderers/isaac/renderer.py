"""`IsaacSimRenderer`: shows planned sequences with NVIDIA Isaac Sim, several time steps in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Several
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from nimbusd.renderers.frames import FrameArrays, with_motion
from nimbusd.renderers.isaac.app import start_app, version
from nimbusd.renderers.isaac.geometry import Spacing, spacing
from nimbusd.renderers.isaac.read import depth_tile, instance_tile, rgb_tile
from nimbusd.renderers.isaac.stage import StageScene, aim
from nimbusd.renderers.scratch import Scratch
from nimbusd.renderers.stacked import Shot, Tile, grid_offsets, render_stacked
from nimbusd.stages.base import BaseRenderer, ComponentArgs
from nimbusd.stages.categories import label_table
from nimbusd.stages.errors import RenderError
from nimbusd.stages.types import F32, F64, U16, Camera, Observation, Scene, Sequence

__all__ = ["IsaacArgs", "IsaacSimRenderer"]

_RGB, _DEPTH, _IDS = "rgb", "distance_to_image_plane", "instance_id_segmentation_fast"
_WARM_UP = 16
"""Passes that may come back empty before the first picture of new render products."""
_MOST_UPDATES = 3000
"""Updates of the application until textures and files of a stage must be there."""
_RENDER_SETTINGS = {
    # Without it, opacity between 0 and 1 is drawn as solid; each kind of renderer has one of its own.
    "/rtx/raytracing/fractionalCutoutOpacity": True,
    "/rtx/pathtracing/fractionalCutoutOpacity": True,
    "/rtx/post/dlss/execMode": 2,  # quality: the default, performance, frays edges of pictures below 600 pixels
}
"""Settings that SimulationApp does not take at its start."""


class IsaacArgs(ComponentArgs):
    """Arguments of IsaacSimRenderer.

    depth, segmentation: read them back besides RGB. stack: time steps per pass, each in a copy of the scene of its own.
    mode: RTX's renderer. subframes: how often a pass is rendered before it is read, so that what moved leaves no
    trace. samples: per pixel and subframe, with PathTracing. lumens_per_watt: RTX's lights are photometric, ours are
    in watts.
    """

    depth: bool = True
    segmentation: bool = True
    stack: int = Field(default=4, ge=1, le=64)
    mode: Literal["RaytracedLighting", "RealTimePathTracing", "PathTracing"] = "RaytracedLighting"
    subframes: int = Field(default=8, ge=1, le=1024)
    samples: int = Field(default=32, ge=1, le=4096)
    lumens_per_watt: float = Field(default=179.0, gt=0)


class IsaacSimRenderer(BaseRenderer[IsaacArgs]):
    """Replays the poses of a sequence in a USD stage made from the scene. One configuration per process.

    Isaac Sim runs until its process ends; `close` empties the stage and gives back the render products.
    """

    args_model: ClassVar[type[ComponentArgs]] = IsaacArgs
    version = "1.1.0"
    requires = ("isaacsim",)
    motion = "poses"

    def __init__(self, args: IsaacArgs) -> None:
        super().__init__(args)
        self._device = "auto"
        self._app: Any = None
        self._scratch: Scratch | None = None
        self._scene: Scene | None = None
        self._view: IsaacView | None = None

    def open(self, device: str) -> None:
        settings = {"renderer": self.args.mode, "samples_per_pixel_per_frame": self.args.samples}
        self._app = start_app(device, settings)
        self._device = device
        self._scratch = Scratch()

    def load(self, scene: Scene) -> None:
        if self._scratch is None:
            self.open("auto")
        assert self._scratch is not None
        if self._scene is not None and self._scene.content_hash == scene.content_hash:
            return
        self._unload()
        import omni.usd

        context = omni.usd.get_context()
        context.new_stage()
        self._app.update()
        self._set_up_rendering()
        self.beat()
        args = self.args
        authored = StageScene(context.get_stage(), scene, args.stack, self._scratch.path, args.lumens_per_watt)
        self._view = IsaacView(authored, args, self._settle, self._beat)
        self._scene = scene
        self._app.update()
        self.beat()

    def gen_obs(self, seq: Sequence) -> Observation:
        if self._scene is None or self._view is None:
            raise RenderError("no scene is loaded: call load(scene) before gen_obs(seq)")
        seq = with_motion(self, seq, self._scene)
        labels = label_table(self._scene.objects)
        frames = FrameArrays(seq.cameras, len(seq), depth=self.args.depth, segmentation=self.args.segmentation)
        distances = spacing(self._scene, seq)
        self._view.begin(seq, distances)
        no_qpos = np.empty((len(seq), 0))  # a shot's row says which poses it shows
        for row, name, tile in render_stacked(
            self._view, no_qpos, seq.cameras, seq.T_world_camera, self.args.stack, self.beat, distances.stride_m
        ):
            frames.put(name, row, tile.rgb, tile.depth_m, tile.instance)
            self.beat()
        return Observation(frames.finish(labels), labels, self._facts())

    def close(self) -> None:
        if self._scene is not None:
            self._unload()
            import omni.usd

            omni.usd.get_context().new_stage()
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None
        self._app = None

    def _unload(self) -> None:
        if self._view is not None:
            self._view.close()
        self._view = self._scene = None

    def _beat(self) -> None:
        self.beat()

    def _set_up_rendering(self) -> None:
        """Set what a new stage has taken back: render mode, samples, and our own settings."""
        import carb.settings

        self._app.reset_render_settings()
        for key, value in _RENDER_SETTINGS.items():
            carb.settings.get_settings().set(key, value)

    def _settle(self) -> bool:
        """Wait until textures and files are there. Returns whether it had to. Raises RenderError if they never are."""
        import omni.usd

        context = omni.usd.get_context()
        for update in range(_MOST_UPDATES):
            if not (context.get_stage_streaming_status() or context.get_stage_loading_status()[2]):
                return update > 0
            self._app.update()
            self.beat()
        raise RenderError(
            f"Isaac Sim still loads textures after {_MOST_UPDATES} updates; see its log, and whether the GPU's memory "
            "is full"
        )

    def _facts(self) -> dict[str, Any]:
        return {"backend": "isaacsim", "isaacsim": version(), "device": self._device} | self.args.model_dump()


class IsaacView:
    """Draws the shots of a pass: one render product per copy and camera, all rendered by one orchestrator step.

    Where the scene has glass, depth and ids are read from a second step without it.
    settle: waits until all that is seen is loaded, and returns whether it had to.
    """

    def __init__(
        self, authored: StageScene, args: IsaacArgs, settle: Callable[[], bool], beat: Callable[[], None]
    ) -> None:
        import omni.replicator.core as rep

        self._rep = rep
        self._authored = authored
        self._args = args
        self._settle = settle
        self._beat = beat
        self._poses: Mapping[str, F64] = {}
        self._far_m = 0.0
        self._built: tuple[tuple[Camera, ...], float, int] | None = None
        self._eyes: dict[tuple[int, str], _Eye] = {}
        rep.orchestrator.set_capture_on_play(False)

    def begin(self, seq: Sequence, distances: Spacing) -> None:
        """Show the poses of `seq` from now on, by its cameras, in as many copies as it fills."""
        copies = min(self._authored.copies, len(seq))
        self._poses, self._far_m = seq.T_world_object, distances.far_m
        self._authored.place_copies(grid_offsets(copies, distances.stride_m))
        key = (tuple(seq.cameras), distances.far_m, copies)
        if self._built == key:
            return
        self.close()
        annotators = [_RGB, *([_DEPTH] if self._args.depth else []), *([_IDS] if self._args.segmentation else [])]
        for copy in range(copies):
            for number, camera in enumerate(seq.cameras):
                path, pose = self._authored.add_camera(copy, number, camera, distances.far_m)
                self._eyes[copy, camera.name] = _Eye(self._rep, path, pose, camera, annotators)
        for copy in range(copies):
            for camera in seq.cameras:
                aim(self._eyes[copy, camera.name].pose, seq.T_world_camera[camera.name][0], (0.0, 0.0, 0.0))
        for _ in range(_WARM_UP):
            self._step()
            if all(eye.ready() for eye in self._eyes.values()):
                self._built = key
                return
        raise RenderError(f"Isaac Sim returned empty pictures in {_WARM_UP} passes; see its log for the reason")

    def render(self, shots: Several[Shot]) -> list[Tile]:
        """Draw every shot in one pass (two where there is glass)."""
        for shot in shots:
            self._authored.place_objects(shot.copy, {name: T[shot.row] for name, T in self._poses.items()})
            aim(self._eyes[shot.copy, shot.camera.name].pose, shot.T_world_camera, shot.offset_m)
        eyes = [self._eyes[shot.copy, shot.camera.name] for shot in shots]
        self._step()
        colors = [eye.rgb() for eye in eyes]
        if self._authored.has_glass and (self._args.depth or self._args.segmentation):
            self._authored.show_glass(False)
            try:
                self._step()
                return self._tiles(eyes, colors)
            finally:
                self._authored.show_glass(True)
        return self._tiles(eyes, colors)

    def close(self) -> None:
        """Give back the render products and the cameras."""
        for eye in self._eyes.values():
            eye.close()
        self._eyes.clear()
        self._built = None
        self._authored.remove_cameras()

    def _tiles(self, eyes: Several[_Eye], colors: Several[Any]) -> list[Tile]:
        return [
            Tile(
                rgb=color,
                depth_m=eye.depth_m(self._far_m) if self._args.depth else None,
                instance=eye.instance() if self._args.segmentation else None,
            )
            for eye, color in zip(eyes, colors, strict=True)
        ]

    def _step(self) -> None:
        """Draw once; again, where what came into sight was not loaded yet."""
        for _ in range(_WARM_UP):
            self._rep.orchestrator.step(rt_subframes=self._args.subframes, delta_time=0.0, pause_timeline=True)
            self._beat()
            if not self._settle():
                return
        raise RenderError(f"Isaac Sim still had textures to load after each of {_WARM_UP} passes; see its log")


class _Eye:
    """A camera of one copy: its render product and the annotators on it."""

    def __init__(self, rep: Any, path: str, pose: Any, camera: Camera, annotators: Several[str]) -> None:
        self.pose = pose
        self._size = (camera.width, camera.height)
        self._product = rep.create.render_product(path, self._size)
        self._annotators: dict[str, Any] = {}
        for name in annotators:
            settings = {"init_params": {"colorize": False}} if name == _IDS else {}
            self._annotators[name] = rep.AnnotatorRegistry.get_annotator(name, **settings)
            self._annotators[name].attach([self._product])

    def ready(self) -> bool:
        """True where every annotator has a picture."""
        return all(np.size(_pixels(annotator.get_data())) > 0 for annotator in self._annotators.values())

    def rgb(self) -> Any:
        return rgb_tile(_pixels(self._annotators[_RGB].get_data()), *self._size)

    def depth_m(self, far_m: float) -> F32:
        return depth_tile(_pixels(self._annotators[_DEPTH].get_data()), *self._size, far_m)

    def instance(self) -> U16:
        found = self._annotators[_IDS].get_data()
        return instance_tile(found["data"], found["info"]["idToLabels"], *self._size)

    def close(self) -> None:
        for annotator in self._annotators.values():
            annotator.detach()
        self._product.destroy()


def _pixels(found: Any) -> Any:
    """The array of what an annotator returned: alone, or beside its facts."""
    return found["data"] if isinstance(found, dict) else found
