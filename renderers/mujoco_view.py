"""What the cameras of a layout see in recorded states, by MuJoCo's own rasterizer.

One `MujocoView` holds the compiled world and a framebuffer. `render` draws K states per pass: each as a copy of the
scene at a place of its own (see `stacked`), each seen by its own camera, all read back at once. K = 1 is the plain
case.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nimbusd.renderers.mujoco_detail import simplify_visible
from nimbusd.renderers.mujoco_gl import driver, open_context
from nimbusd.renderers.stacked import Shot, Tile
from nimbusd.stages.errors import RenderError
from nimbusd.stages.types import F32, F64, U8, U16, Camera
from nimbusd.stages.workflow.sim.bodies import VISIBLE_GROUP
from nimbusd.stages.workflow.sim.layout import Layout
from nimbusd.stages.workflow.sim.world import FAR_M, NEAR_M, World, build_world, import_mujoco

SAMPLES = 4
"""Samples per pixel of RGB."""


@dataclass(frozen=True)
class ViewSettings:
    """What to read back besides RGB. shadows: cast them. tolerance_m: see `simplify_visible`."""

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
        self._gl = open_context(device)
        self.driver = driver()
        self._settings = settings or ViewSettings()
        self.world: World = _coarser(build_world(layout), self._settings.tolerance_m)
        self._data = self._mujoco.MjData(self.world.model)
        self._option = self._mujoco.MjvOption()
        self._option.geomgroup[:] = 0
        self._option.geomgroup[VISIBLE_GROUP] = 1
        self._option.sitegroup[:] = 0
        self._option.flags[:] = 0
        self._option.flags[self._mujoco.mjtVisFlag.mjVIS_TEXTURE] = 1
        self._option.flags[self._mujoco.mjtVisFlag.mjVIS_STATIC] = 1
        self._scene: Any = None
        self._plain: Any = None
        self._exact: Any = None
        self._lights: list[F64] = []
        self._copies = 0
        self._sizes = (0, 0)

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
        """Draw every shot in one pass. The copies stand at the shots' offsets; shots may share a copy."""
        places = sorted({(shot.copy, shot.offset_m) for shot in shots})
        width = max(shot.camera.width for shot in shots)
        heights = [shot.camera.height for shot in shots]
        self._prepare(len(places), width, sum(heights))
        states = {shot.copy: shot.qpos for shot in shots}
        self._scene.ngeom = 0
        for number, offset in places:
            self.set_state(states[number])
            self._add_copy(np.asarray(offset))
        color = self._draw(shots, segment=False)[0]
        ids: U8 | None = None
        depth: F32 | None = None
        if self._settings.depth or self._settings.segmentation:
            ids, depth = self._draw(shots, segment=True)
        return [
            self._tile(shot, row, color, ids, depth)
            for shot, row in zip(shots, np.cumsum([0, *heights[:-1]]).tolist(), strict=True)
        ]

    def close(self) -> None:
        """Free the framebuffer and the OpenGL context."""
        self._free()
        if self._gl is not None:
            self._gl.free()
            self._gl = None

    def _free(self) -> None:
        for context in (self._plain, self._exact):
            if context is not None:
                self._gl.make_current()
                context.free()
        self._plain = self._exact = None

    def _prepare(self, copies: int, width: int, height: int) -> None:
        """A scene for so many copies and a framebuffer at least so large."""
        mujoco, model = self._mujoco, self.world.model
        if copies > self._copies:
            self._scene = mujoco.MjvScene(model, maxgeom=copies * model.ngeom + 8)
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = self._settings.shadows
            self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = False
            self._scene.flags[mujoco.mjtRndFlag.mjRND_HAZE] = False
            self._copies = copies
            self._light()
        if self._plain is None or width > self._sizes[0] or height > self._sizes[1]:
            self._free()
            self._gl.make_current()
            self._sizes = (max(width, self._sizes[0]), max(height, self._sizes[1]))
            model.vis.global_.offwidth, model.vis.global_.offheight = self._sizes
            # Averaging several samples would blend ids and depths at edges, so these have a framebuffer of their own.
            model.vis.quality.offsamples = SAMPLES
            self._plain = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
            model.vis.quality.offsamples = 0
            self._exact = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
            for context in (self._plain, self._exact):
                context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR

    def _light(self) -> None:
        """Put the layout's lamps into the scene; none of them moves."""
        mujoco = self._mujoco
        self.set_state(self.world.start)
        camera = mujoco.MjvCamera()
        mujoco.mjv_defaultCamera(camera)
        mujoco.mjv_updateScene(self.world.model, self._data, self._option, None, camera, 0, self._scene)
        self._lights = [np.array(lamp.pos, np.float64) for lamp in self._scene.lights[: self._scene.nlight]]

    def _add_copy(self, offset: F64) -> None:
        mujoco, scene = self._mujoco, self._scene
        first = scene.ngeom
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_addGeoms(self.world.model, self._data, self._option, mujoco.MjvPerturb(), everything, scene)
        for geom in scene.geoms[first : scene.ngeom]:
            # MuJoCo paints segid + 1; an id of -1 is not drawn in this pass.
            geom.segid = int(self.world.instance[geom.objid]) - 1
            if offset.any():
                geom.pos[:] += offset

    def _draw(self, shots: Sequence[Shot], segment: bool) -> tuple[U8, F32]:
        mujoco, scene = self._mujoco, self._scene
        context = self._exact if segment else self._plain
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = segment
        scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = segment
        row = 0
        for shot in shots:
            intrinsics, offset = shot.camera, np.asarray(shot.offset_m)
            _aim(scene, intrinsics, shot.T_world_camera, offset)
            for lamp, position in zip(scene.lights[: scene.nlight], self._lights, strict=True):
                lamp.pos[:] = position + offset
            rectangle = mujoco.MjrRect(0, row, intrinsics.width, intrinsics.height)
            mujoco.mjr_render(rectangle, scene, context)
            row += intrinsics.height
        width = max(shot.camera.width for shot in shots)
        color = np.empty((row, width, 3), np.uint8)
        depth = np.empty((row, width), np.float32)
        mujoco.mjr_readPixels(color, depth if segment else None, mujoco.MjrRect(0, 0, width, row), context)
        return color, depth

    def _tile(self, shot: Shot, row: int, color: U8, ids: U8 | None, depth: F32 | None) -> Tile:
        height, width = shot.camera.height, shot.camera.width

        def cut(image: Any) -> Any:
            return image[row : row + height, :width][::-1]  # OpenGL's first row is the lowest

        instance: U16 | None = None
        metres: F32 | None = None
        if ids is not None and depth is not None:
            painted = cut(ids).astype(np.uint32)
            instance = (painted[..., 0] + (painted[..., 1] << 8)).astype(np.uint16)
            metres = np.where(instance > 0, _metres(cut(depth)), np.float32(0))
        return Tile(
            rgb=np.ascontiguousarray(cut(color)),
            depth_m=metres if self._settings.depth else None,
            instance=instance if self._settings.segmentation else None,
        )


def _coarser(world: World, tolerance_m: float) -> World:
    """The world with a model of its own, whose robots have fewer triangles."""
    model = copy(world.model)
    simplify_visible(model, VISIBLE_GROUP, tolerance_m)
    return replace(world, model=model)


def _metres(depth: F32) -> F32:
    """Metres along the optical axis from MuJoCo's reversed depth buffer (1 at the near plane, 0 at the far)."""
    near, far = float(NEAR_M), float(FAR_M)
    return np.asarray(near * far / (near + depth.astype(np.float64) * (far - near)), np.float32)


def _aim(scene: Any, camera: Camera, T_world_camera: F64, offset: F64) -> None:
    """Make a pinhole camera with any principal point the scene's camera."""
    left, right = -camera.cx / camera.fx * NEAR_M, (camera.width - camera.cx) / camera.fx * NEAR_M
    bottom, top = -(camera.height - camera.cy) / camera.fy * NEAR_M, camera.cy / camera.fy * NEAR_M
    for eye in scene.camera:
        eye.pos[:] = T_world_camera[:3, 3] + offset
        eye.forward[:], eye.up[:] = -T_world_camera[:3, 2], T_world_camera[:3, 1]
        eye.frustum_center, eye.frustum_width = (left + right) / 2, (right - left) / 2
        eye.frustum_bottom, eye.frustum_top = bottom, top
        eye.frustum_near, eye.frustum_far = NEAR_M, FAR_M
        eye.orthographic = 0
