"""Pictures of recorded states from the cameras of a layout, drawn by a rasterizer of our own as MuJoCo draws them.

One `MujocoView` holds the compiled world and a framebuffer. `render` draws state after state, each from all cameras, so
that no bit depends on how many states come in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nimbusd.renderers.mujoco.detail import simplify_visible
from nimbusd.renderers.mujoco.gl import Device, open_device
from nimbusd.renderers.mujoco.lamps import frustum, lamps_of
from nimbusd.renderers.mujoco.raster import Look, Raster
from nimbusd.renderers.mujoco.surfaces import visible_surfaces
from nimbusd.renderers.stacked import Shot, Tile
from nimbusd.stages.errors import RenderError
from nimbusd.stages.types import F32, F64, I32, U8, U16, Camera
from nimbusd.stages.workflow.sim.layout.layout import Layout
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco
from nimbusd.stages.workflow.sim.rotation import inverse
from nimbusd.stages.workflow.sim.world.bodies import VISIBLE_GROUP
from nimbusd.stages.workflow.sim.world.world import NEAR_M, World, build_world


@dataclass(frozen=True)
class ViewSettings:
    """Choices of what is read back besides RGB. shadows: cast them. tolerance_m: see `simplify_visible`."""

    depth: bool = True
    segmentation: bool = True
    shadows: bool = True
    tolerance_m: float = 0.001


class MujocoView:
    """Draws states of one layout. Not for several threads: it owns an OpenGL context that is current in its own.

    driver: of OpenGL, in its own words.
    """

    def __init__(self, layout: Layout, device: str = "auto", settings: ViewSettings | None = None) -> None:
        self._mujoco = import_mujoco()
        self._device: Device | None = open_device(device)
        self.driver = self._device.driver
        self._settings = settings or ViewSettings()
        self.world: World = _coarser(build_world(layout), self._settings.tolerance_m)
        self._data = self._mujoco.MjData(self.world.model)
        self.set_state(self.world.start)
        self._raster, self._geoms = raster_of(
            self._device.gl, self.world.model, self._data, self.world.instance, self._settings.shadows
        )

    def set_state(self, qpos: F64) -> None:
        """Place every body where a recorded state has it. qpos: (nq,)."""
        if len(qpos) != self.world.nq:
            raise RenderError(
                f"the recorded state has {len(qpos)} coordinates, but the world of layout "
                f"{self.world.layout.task!r} has {self.world.nq}: it was recorded in another layout"
            )
        self._data.qpos[:] = qpos
        self._mujoco.mj_kinematics(self.world.model, self._data)
        self._mujoco.mj_comPos(self.world.model, self._data)
        self._mujoco.mj_camlight(self.world.model, self._data)

    def render(self, shots: Sequence[Shot]) -> list[Tile]:
        """Draw every shot: state after state, all cameras of a state at once. Copies need no places of their own."""
        assert self._device is not None
        self._device.make_current()
        tiles: dict[int, Tile] = {}
        for number in dict.fromkeys(shot.copy for shot in shots):
            mine = [(index, shot) for index, shot in enumerate(shots) if shot.copy == number]
            heights = [shot.camera.height for _, shot in mine]
            rows = np.cumsum([0, *heights[:-1]]).tolist()
            self.set_state(mine[0][1].qpos)
            self._raster.place(places_of(self._data, self._geoms))
            self._raster.begin(max(shot.camera.width for _, shot in mine), sum(heights))
            self._raster.draw(
                [look(shot.camera, shot.T_world_camera, row) for (_, shot), row in zip(mine, rows, strict=True)]
            )
            read = self._raster.read()
            tiles.update((index, self._tile(shot, row, *read)) for (index, shot), row in zip(mine, rows, strict=True))
        return [tiles[index] for index in range(len(shots))]

    def close(self) -> None:
        """Free what is on the device, and the OpenGL context."""
        if self._device is not None:
            self._device.make_current()
            self._raster.close()
            self._device.close()
            self._device = None

    def _tile(self, shot: Shot, row: int, color: U8, ids: U16, depth: F32) -> Tile:
        def cut(image: Any) -> Any:
            image = image[row : row + shot.camera.height, : shot.camera.width][::-1]  # OpenGL's first row is the lowest
            return np.ascontiguousarray(image)

        return Tile(
            rgb=cut(color[..., :3]),
            depth_m=cut(depth) if self._settings.depth else None,
            instance=cut(ids) if self._settings.segmentation else None,
        )


def raster_of(gl: Any, model: Any, data: Any, instance: U16, shadows: bool) -> tuple[Raster, I32]:
    """A rasterizer of a model's visible geoms under its lamps as they are in `data`, and which geoms its parts are.

    instance: (ngeom,) ids. Raises RenderError for geoms of kinds that are not drawn.
    """
    mujoco = import_mujoco()
    option, scene = mujoco.MjvOption(), mujoco.MjvScene(model, maxgeom=model.ngeom + 8)
    option.geomgroup[:], option.sitegroup[:], option.flags[:] = 0, 0, 0
    option.geomgroup[VISIBLE_GROUP] = 1
    option.flags[mujoco.mjtVisFlag.mjVIS_TEXTURE] = option.flags[mujoco.mjtVisFlag.mjVIS_STATIC] = 1
    everything = mujoco.mjtCatBit.mjCAT_ALL.value
    mujoco.mjv_updateScene(model, data, option, None, mujoco.MjvCamera(), everything, scene)
    surfaces = visible_surfaces(model, list(scene.geoms[: scene.ngeom]))
    geoms = np.array([part.geom for part in surfaces.parts], np.int32)
    lamps = lamps_of(model, list(scene.lights[: scene.nlight]), shadows)
    return Raster(gl, surfaces, instance[geoms], lamps, int(model.vis.quality.shadowsize)), geoms


def places_of(data: Any, geoms: I32) -> F64:
    """(N, 4, 4) where geoms are in the world."""
    places = np.tile(np.eye(4), (len(geoms), 1, 1))
    places[:, :3, :3] = data.geom_xmat[geoms].reshape(-1, 3, 3)
    places[:, :3, 3] = data.geom_xpos[geoms]
    return places


def look(camera: Camera, T_world_camera: F64, row: int) -> Look:
    """A pinhole camera with any principal point, drawn into the image from a row on."""
    left, right = -camera.cx / camera.fx * NEAR_M, (camera.width - camera.cx) / camera.fx * NEAR_M
    bottom, top = -(camera.height - camera.cy) / camera.fy * NEAR_M, camera.cy / camera.fy * NEAR_M
    projection = frustum(left, right, bottom, top) @ inverse(T_world_camera)
    return Look(projection, np.asarray(T_world_camera[:3, 3]), (0, row, camera.width, camera.height))


def _coarser(world: World, tolerance_m: float) -> World:
    """The world with a model of its own, whose robots have fewer triangles."""
    model = copy(world.model)
    simplify_visible(model, VISIBLE_GROUP, tolerance_m)
    return replace(world, model=model)
