"""`MujocoRenderer`: shows recorded simulator states from a layout's cameras, with exact depth and segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from nimbusd.renderers.frames import FrameArrays
from nimbusd.renderers.mujoco.gl import context_fault
from nimbusd.renderers.mujoco.view import MujocoView, ViewSettings
from nimbusd.renderers.stacked import render_stacked
from nimbusd.stages.base import BaseRenderer, Component, ComponentArgs
from nimbusd.stages.errors import RenderError
from nimbusd.stages.types import SIMULATION_QPOS, Observation, Scene, Sequence
from nimbusd.stages.workflow.sim.layout.labels import label_rows
from nimbusd.stages.workflow.sim.layout.layout import Layout
from nimbusd.stages.workflow.sim.layout.style import Style, styled
from nimbusd.stages.workflow.sim.mujoco_module import environment_fault

__all__ = ["MujocoRenderer", "MujocoRendererArgs", "Style"]


class MujocoRendererArgs(ComponentArgs):
    """Arguments of MujocoRenderer.

    depth, segmentation: keep them besides RGB. shadows: cast them. tolerance_m: how far a robot's simplified
    surface may be from its finely tessellated one; 0 draws the latter, which takes most of a frame's time on a CPU.
    style: other materials and lights for the same states. A shifted view is none of a renderer's, since a sequence says
    where its cameras are: style the layout before planning, or the sequence (see `stages.workflow.sim.layout.style`).
    """

    depth: bool = True
    segmentation: bool = True
    shadows: bool = True
    tolerance_m: float = Field(default=0.001, ge=0, le=0.01)
    style: Style = Style()

    @field_validator("style")
    @classmethod
    def _no_view(cls, value: Style) -> Style:
        if value.view_m or value.view_rad:
            raise ValueError(
                "a renderer shows what the sequence's cameras see; view_m and view_rad belong to the workflow"
            )
        return value


class MujocoRenderer(BaseRenderer[MujocoRendererArgs]):
    """Replays the states that planning recorded, never the actions: what was simulated is what is shown.

    The scene must carry its layout in `provenance["layout"]`, the sequence its states in `states["simulation.qpos"]`.
    """

    args_model: ClassVar[type[ComponentArgs]] = MujocoRendererArgs
    version = "1.1.0"
    requires = ("mujoco", "moderngl")
    may_use = ("DracoPy", "fast_simplification", "mapbox_earcut", "meshopt", "scipy")
    motion = "states"

    def __init__(self, args: MujocoRendererArgs) -> None:
        super().__init__(args)
        self._device = "auto"
        self._view: MujocoView | None = None
        self._layout: Layout | None = None

    def unfit(self, stages: Mapping[str, Component[Any]]) -> list[str]:
        fault = environment_fault() or context_fault()
        return [fault] if fault else []

    def open(self, device: str) -> None:
        self._device = device

    def load(self, scene: Scene) -> None:
        written = scene.provenance.get("layout")
        if written is None:
            raise RenderError(
                f"scene {scene.name!r} has no layout in its provenance: MujocoRenderer shows manipulation tasks only"
            )
        layout = styled(Layout.from_json(written), self.args.style)
        if layout == self._layout:
            return
        if self._view is not None:
            self._view.close()
        settings = ViewSettings(self.args.depth, self.args.segmentation, self.args.shadows, self.args.tolerance_m)
        self._view = MujocoView(layout, self._device, settings)
        self._layout = layout
        self.beat()

    def gen_obs(self, seq: Sequence) -> Observation:
        if self._view is None or self._layout is None:
            raise RenderError("no scene is loaded: call load(scene) before gen_obs(seq)")
        if SIMULATION_QPOS not in seq.states:
            raise RenderError(f"the sequence carries no {SIMULATION_QPOS!r}: it was not recorded by the simulator")
        qpos = np.asarray(seq.states[SIMULATION_QPOS].values, np.float64)
        labels = label_rows(self._layout)
        frames = FrameArrays(seq.cameras, len(qpos), depth=self.args.depth, segmentation=self.args.segmentation)
        for row, name, tile in render_stacked(self._view, qpos, seq.cameras, seq.T_world_camera, 1, self.beat):
            frames.put(name, row, tile.rgb, tile.depth_m, tile.instance)
        return Observation(frames.finish(labels), labels, self._facts())

    def close(self) -> None:
        if self._view is not None:
            self._view.close()
        self._view = self._layout = None

    def _facts(self) -> dict[str, Any]:
        import mujoco

        return {
            "backend": "mujoco",
            "mujoco": mujoco.__version__,
            "device": self._device,
            "opengl": self._view.driver if self._view is not None else "",
            "style": self.args.style.model_dump(mode="json"),
        }
