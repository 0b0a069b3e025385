"""Puts a `Scene` into a SAPIEN scene: entities with render bodies, lamps and cameras; no physics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nimbusd.stages import sapien_package
from nimbusd.stages.errors import RenderError
from nimbusd.stages.types import F32, F64, U8, Camera, Light, Material, Scene, SceneObject

OURS_FROM_SAPIEN = np.array([[0, -1, 0, 0], [0, 0, 1, 0], [-1, 0, 0, 0], [0, 0, 0, 1]], np.float64)
"""SAPIEN's cameras and lamps look along +x, y left, z up; ours along -z, x right, y up."""

_MOST = {"RenderDirectionalLightComponent": 3, "RenderPointLightComponent": 10, "RenderSpotLightComponent": 10}
"""Lamps of a kind that the arrays of the `default` shader pack hold."""
_MOST_SHADOWS = {"RenderDirectionalLightComponent": 1, "RenderPointLightComponent": 3, "RenderSpotLightComponent": 10}
"""Of these, how many it has shadow maps for. One more is an error."""
_NEAREST_SHADOW_M = 0.01

_AREA_LAMP_FOV = 3.0


def import_sapien() -> Any:
    """The package, for drawing. Raises BackendUnavailable that says what to install."""
    return sapien_package.import_sapien("SapienRenderer", "pip install 'nimbusd[sapien]', where a GPU has Vulkan")


def rigid(name: str, T: F64) -> tuple[F64, F64]:
    """A pose without its scale, and the scale per axis (3,). Raises RenderError for a sheared pose."""
    scale = np.linalg.norm(T[:3, :3], axis=0)
    if np.linalg.det(T[:3, :3]) < 0:
        scale = scale * [-1, 1, 1]
    if not np.abs(scale).min() > 0:
        raise RenderError(f"object {name!r} has a pose of scale 0: leave it out of the scene")
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = T[:3, :3] / scale, T[:3, 3]
    if not np.allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-4):
        raise RenderError(f"object {name!r} has a sheared pose, which SAPIEN has no place for: bake it in")
    return pose, np.asarray(scale, np.float64)


def pose_of(sapien: Any, T: F64) -> Any:
    return sapien.Pose(np.ascontiguousarray(T, np.float32))


def corner_arrays(obj: SceneObject, faces: Any, scale: F64) -> tuple[F32, F32, F32]:
    """(3F, 3) corners, (3F, 3) normals and (3F, 2) texture coordinates of some faces of a scaled object."""
    points = obj.vertices.astype(np.float64) * scale
    order = obj.faces[:, ::-1] if scale.prod() < 0 else obj.faces  # a mirrored mesh turns inside out
    corners = points[order]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    if obj.smooth:
        summed = np.zeros_like(points)
        np.add.at(summed, order.ravel(), np.repeat(normals, 3, axis=0))
        each = summed[order]
    else:
        each = np.repeat(normals[:, None], 3, axis=1)
    each = each / np.maximum(np.linalg.norm(each, axis=-1, keepdims=True), 1e-20)
    uvs = np.zeros((len(order), 3, 2)) if obj.uvs is None else obj.uvs
    uvs = uvs[:, ::-1] if scale.prod() < 0 else uvs
    return tuple(np.ascontiguousarray(a[faces].reshape(-1, a.shape[-1]), np.float32) for a in (corners, each, uvs))  # type: ignore[return-value]


def tinted(material: Material) -> U8:
    """(H, W, 4) texture times base colour, which the shaders would leave out; row 0 at v = 0, as Vulkan has it."""
    assert material.texture is not None
    srgb = material.texture[::-1] / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4) * material.base_color
    again = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
    alpha = np.full((*srgb.shape[:2], 1), material.opacity)
    return np.ascontiguousarray(np.rint(np.clip(np.concatenate([again, alpha], -1), 0, 1) * 255), np.uint8)


@dataclass(frozen=True)
class Ball:
    """A ball that everything lies in, in the world."""

    centre: F64
    radius_m: float


def reach(scene: Scene, T_world_object: Mapping[str, F64]) -> Ball:
    """The ball around a scene whose objects take poses T_world_object (name → (T, 4, 4)), and stand still otherwise."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for obj in scene.objects:
        T = T_world_object.get(obj.name, obj.T_world_object[None])
        points = _corners(obj) @ T[:, :3, :3].transpose(0, 2, 1) + T[:, None, :3, 3]
        low, high = np.minimum(low, points.min(axis=(0, 1))), np.maximum(high, points.max(axis=(0, 1)))
    if not np.isfinite(low).all():
        return Ball(np.zeros(3), 1.0)
    return Ball((low + high) / 2, max(float(np.linalg.norm(high - low)) / 2, 0.1))


def _corners(obj: SceneObject) -> F64:
    """(8, 3) corners of an object's box, in its frame."""
    if not len(obj.vertices):
        return np.zeros((1, 3))
    sides = np.stack([obj.vertices.min(axis=0), obj.vertices.max(axis=0)]).astype(np.float64)
    return np.asarray(np.stack(np.meshgrid(*sides.T), axis=-1).reshape(-1, 3), np.float64)


@dataclass(frozen=True)
class _Lamp:
    """A lamp of the scene, its component and its entity in SAPIEN."""

    light: Light
    component: Any
    entity: Any


class SapienScene:
    """The entities that one `Scene` owns in SAPIEN. instance_of: SAPIEN's entity id → our instance id.

    surroundings: the cube map that shines from outside.
    """

    def __init__(self, sapien: Any, system: Any, scene: Scene, shadows: bool, surroundings: Any) -> None:
        self._sapien = sapien
        self._shadows = shadows
        self._scene = sapien.Scene([system])
        self._rest = {obj.name: obj.T_world_object for obj in scene.objects}
        self._scale: dict[str, F64] = {}
        self._entities: dict[str, list[Any]] = {}
        self._moved: set[str] = set()
        self._glass: list[Any] = []
        self._materials: dict[tuple[object, ...], Any] = {}
        self._lamps: list[_Lamp] = []
        self._lamps_of_kind: dict[str, int] = {}
        self.instance_of: dict[int, int] = {}
        self.lights_left_out = self.lights_without_shadow = 0
        for obj in scene.objects:
            self._add_object(obj)
        for light in sorted(scene.lights, key=lambda light: -light.power_w):
            self._add_light(light)
        system.cubemap = surroundings
        system.ambient_light = [float(value * scene.sky_strength) for value in scene.sky_color]

    @property
    def has_glass(self) -> bool:
        return bool(self._glass)

    def place(self, T_world_object: Mapping[str, F64]) -> None:
        """Move the objects named here ((4, 4) poses); objects moved before and not named go back."""
        back = {name: self._rest[name] for name in self._moved - set(T_world_object)}
        for name, T in {**back, **T_world_object}.items():
            pose, scale = rigid(name, T)
            if not np.allclose(scale, self._scale[name], rtol=1e-4):
                raise RenderError(f"the sequence changes the size of {name!r}, which SapienRenderer cannot show")
            for entity in self._entities[name]:
                entity.set_pose(pose_of(self._sapien, pose))
        self._moved = set(T_world_object)

    def cast_shadows(self, ball: Ball) -> None:
        """Let shadows reach through a ball: SAPIEN's own 10 m leave what is farther from a lamp in the dark.

        A lamp takes these distances when it comes into the scene, and not later.
        """
        for lamp in self._lamps:
            lamp.entity.remove_from_scene()
            if lamp.light.kind == "sun":
                T = np.array(lamp.light.T_world_light, np.float64)
                T[:3, 3] = ball.centre + ball.radius_m * T[:3, 2] / np.linalg.norm(T[:3, 2])
                lamp.entity.set_pose(self._lamp_pose(lamp.light.name, T))
                lamp.component.shadow_half_size = ball.radius_m
                near_m, far_m = 0.0, 2 * ball.radius_m
            else:
                away_m = float(np.linalg.norm(lamp.light.T_world_light[:3, 3] - ball.centre))
                near_m, far_m = away_m - ball.radius_m, away_m + ball.radius_m
            lamp.component.shadow_near = max(near_m, _NEAREST_SHADOW_M)
            lamp.component.shadow_far = 1.01 * far_m
            self._scene.add_entity(lamp.entity)

    def picture(self, component: Any) -> None:
        """Let a camera take its picture of the scene as it stands."""
        self._scene.update_render()
        component.take_picture()

    def show_glass(self, shown: bool) -> None:
        """Surfaces below half opacity: shown for RGB, hidden for depth and segmentation."""
        for body in self._glass:
            body.visibility = 1.0 if shown else 0.0

    def add_camera(self, camera: Camera, near_m: float, far_m: float) -> Any:
        """An entity with one camera. Its pixels' centres lie at +0.5, as ours do."""
        component = self._sapien.render.RenderCameraComponent(camera.width, camera.height)
        component.set_perspective_parameters(near_m, far_m, camera.fx, camera.fy, camera.cx, camera.cy, 0.0)
        return self._add(camera.name, component)

    def remove(self, entity: Any) -> None:
        entity.remove_from_scene()

    def close(self) -> None:
        for entity in list(self._scene.entities):
            entity.remove_from_scene()
        self._entities.clear()
        self._lamps.clear()
        self._materials.clear()
        self._glass.clear()

    def _add(self, name: str, component: Any) -> Any:
        entity = self._sapien.Entity()
        entity.set_name(name)
        entity.add_component(component)
        self._scene.add_entity(entity)
        return entity

    def _add_object(self, obj: SceneObject) -> None:
        pose, self._scale[obj.name] = rigid(obj.name, obj.T_world_object)
        self._entities[obj.name] = []
        opacity = np.array([material.opacity for material in obj.materials])[obj.face_material]
        for glass in (False, True):
            chosen = (opacity < 0.5) == glass
            if not chosen.any():
                continue
            body = self._sapien.render.RenderBodyComponent()
            for slot in np.unique(obj.face_material[chosen]).tolist():
                self._attach(body, obj, chosen & (obj.face_material == slot), obj.materials[slot])
            entity = self._add(obj.name, body)
            entity.set_pose(pose_of(self._sapien, pose))
            self.instance_of[int(entity.per_scene_id)] = obj.instance_id
            self._entities[obj.name].append(entity)
            if glass:
                self._glass.append(body)

    def _attach(self, body: Any, obj: SceneObject, faces: Any, material: Material) -> None:
        corners, normals, uvs = corner_arrays(obj, faces, self._scale[obj.name])
        triangles = np.arange(len(corners), dtype=np.uint32).reshape(-1, 3)
        look = self._material(material)
        body.attach(self._sapien.render.RenderShapeTriangleMesh(corners, triangles, normals, uvs, look))

    def _material(self, material: Material) -> Any:
        look = (material.base_color, material.roughness, material.metallic, material.emission, material.opacity)
        key = (*look, id(material.texture))
        if key not in self._materials:
            render = self._sapien.render
            glow = [float(value * material.emission) for value in material.base_color]
            made = render.RenderMaterial(
                emission=[*glow, 1.0],
                base_color=[*(float(value) for value in material.base_color), float(material.opacity)],
                specular=0.5,
                roughness=float(material.roughness),
                metallic=float(material.metallic),
            )
            if material.texture is not None:
                made.base_color_texture = render.RenderTexture2D(tinted(material), "R8G8B8A8Unorm", srgb=True)
            self._materials[key] = made
        return self._materials[key]

    def _add_light(self, light: Light) -> None:
        render = self._sapien.render
        # Watts become W/sr: evenly into the sphere, or along the normal of a surface that follows Lambert's law.
        kind, per_watt = {
            "point": ("RenderPointLightComponent", 1 / (4 * np.pi)),
            "area": ("RenderSpotLightComponent", 1 / np.pi),
            "sun": ("RenderDirectionalLightComponent", 1.0),
        }[light.kind]
        before = self._lamps_of_kind.get(kind, 0)
        if before == _MOST[kind]:
            self.lights_left_out += 1
            return
        self._lamps_of_kind[kind] = before + 1
        lamp = getattr(render, kind)()
        lamp.color = [float(value * light.power_w * per_watt) for value in light.color]
        lamp.shadow = self._shadows and before < _MOST_SHADOWS[kind]
        self.lights_without_shadow += self._shadows and not lamp.shadow
        if light.kind == "area":
            lamp.inner_fov, lamp.outer_fov = _AREA_LAMP_FOV - 0.5, _AREA_LAMP_FOV
        entity = self._add(light.name, lamp)
        entity.set_pose(self._lamp_pose(light.name, light.T_world_light))
        self._lamps.append(_Lamp(light, lamp, entity))

    def _lamp_pose(self, name: str, T_world_light: F64) -> Any:
        return pose_of(self._sapien, rigid(name, T_world_light @ OURS_FROM_SAPIEN)[0])
