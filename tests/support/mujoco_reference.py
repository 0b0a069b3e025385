"""MuJoCo's own drawing of a model: the reference for our rasterizer."""

from __future__ import annotations

from typing import Any

import numpy as np

from nimbusd.stages.types import F32, F64, U8, U16, Camera
from nimbusd.stages.workflow.sim.world.bodies import VISIBLE_GROUP
from nimbusd.stages.workflow.sim.world.world import FAR_M, NEAR_M


class Reference:
    """MuJoCo's pictures of a model: four samples per pixel in colour, one for ids and depth.

    size: width and height of the largest picture. instance: (ngeom,) ids.
    """

    def __init__(self, model: Any, instance: U16, size: tuple[int, int], shadows: bool = True) -> None:
        import mujoco
        from mujoco.egl import GLContext

        self._mujoco, self._model, self._instance = mujoco, model, instance
        self._gl = GLContext(16, 16)
        self._gl.make_current()
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = self._option.sitegroup[:] = self._option.flags[:] = 0
        self._option.geomgroup[VISIBLE_GROUP] = 1
        self._option.flags[mujoco.mjtVisFlag.mjVIS_TEXTURE] = self._option.flags[mujoco.mjtVisFlag.mjVIS_STATIC] = 1
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + 8)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        for flag in ("REFLECTION", "SKYBOX", "HAZE"):
            self._scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = False
        model.vis.global_.offwidth, model.vis.global_.offheight = size
        self._contexts = []
        for samples in (4, 0):
            model.vis.quality.offsamples = samples
            self._contexts.append(mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50))
            self._contexts[-1].readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR

    def draw(self, data: Any, camera: Camera, T_world_camera: F64, exact: bool = True) -> tuple[U8, U16, F32]:
        """Colour (H, W, 3), ids (H, W), metres along the optical axis (H, W) of the state in `data`.

        exact: ids and metres too, else they are 0.
        """
        mujoco, scene = self._mujoco, self._scene
        self._gl.make_current()
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self._model, data, self._option, None, mujoco.MjvCamera(), everything, scene)
        for geom in scene.geoms[: scene.ngeom]:
            geom.segid = int(self._instance[geom.objid]) - 1  # painted as one more; -1 is not drawn
        left, right = -camera.cx / camera.fx * NEAR_M, (camera.width - camera.cx) / camera.fx * NEAR_M
        for eye in scene.camera:
            eye.pos[:], eye.forward[:], eye.up[:] = (
                T_world_camera[:3, 3], -T_world_camera[:3, 2], T_world_camera[:3, 1],
            )  # fmt: skip
            eye.frustum_center, eye.frustum_width = (left + right) / 2, (right - left) / 2
            eye.frustum_bottom = -(camera.height - camera.cy) / camera.fy * NEAR_M
            eye.frustum_top = camera.cy / camera.fy * NEAR_M
            eye.frustum_near, eye.frustum_far, eye.orthographic = NEAR_M, FAR_M, 0
        colour, _ = self._pass(camera, 0)
        if not exact:
            return colour, np.zeros(colour.shape[:2], np.uint16), np.zeros(colour.shape[:2], np.float32)
        painted, depth = self._pass(camera, 1)
        ids = (painted[..., 0].astype(np.uint16) + (painted[..., 1].astype(np.uint16) << 8)).astype(np.uint16)
        metres = NEAR_M * FAR_M / (NEAR_M + depth.astype(np.float64) * (FAR_M - NEAR_M))
        return colour, ids, np.where(ids > 0, metres, 0).astype(np.float32)

    def close(self) -> None:
        self._gl.make_current()
        for context in self._contexts:
            context.free()
        self._gl.free()

    def _pass(self, camera: Camera, which: int) -> tuple[U8, F32]:
        mujoco, scene, context = self._mujoco, self._scene, self._contexts[which]
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = which
        rectangle = mujoco.MjrRect(0, 0, camera.width, camera.height)
        mujoco.mjr_render(rectangle, scene, context)
        colour = np.empty((camera.height, camera.width, 3), np.uint8)
        depth = np.empty((camera.height, camera.width), np.float32)
        mujoco.mjr_readPixels(colour, depth if which else None, rectangle, context)
        return colour[::-1], depth[::-1]


def psnr(a: U8, b: U8) -> float:
    """Peak signal-to-noise ratio of two pictures, decibels."""
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def worst_iou(a: U16, b: U16, least_px: int) -> float:
    """The least overlap of the masks of an id, of those with at least so many pixels."""
    found = [1.0]
    for number in np.unique(a):
        mine, other = a == number, b == number
        if mine.sum() >= least_px:
            found.append(float((mine & other).sum() / (mine | other).sum()))
    return min(found)
