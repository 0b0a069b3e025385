"""Scenes whose images are known in closed form, and the cameras that look at them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nimbusd.stages.types import F64, I32, Camera, Light, Material, Scene, SceneObject, Sequence

WHITE_LAMP = Material("white lamp", base_color=(1.0, 1.0, 1.0), emission=1.0, roughness=1.0)
"""Its pixels are white under the Standard view transform at exposure 0, whatever the lights."""

GREY = Material("grey", base_color=(0.5, 0.5, 0.5), roughness=1.0)

ODD_CAMERA = Camera("odd", width=160, height=120, fx=150.0, fy=118.0, cx=67.3, cy=71.8)
"""Off-centre principal point and pixels that are not square."""


def look_at(eye: tuple[float, float, float], target: tuple[float, float, float]) -> F64:
    """(4, 4) T_world_camera of a level camera at `eye` that sees `target` at its principal point."""
    back = np.subtract(eye, target) / np.linalg.norm(np.subtract(eye, target))
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    T = np.eye(4)
    T[:3, :4] = np.column_stack([right, np.cross(back, right), back, eye])
    return T


def moved(x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw: float = 0.0) -> F64:
    """(4, 4) pose: turned about the vertical, then shifted."""
    T = np.eye(4)
    T[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    T[:3, 3] = x, y, z
    return T


def made(name: str, number: int, vertices: F64, faces: I32, material: Material, T: F64) -> SceneObject:
    return SceneObject(
        name=name,
        category=name.split("_")[0],
        instance_id=number,
        vertices=vertices.astype(np.float32),
        faces=faces.astype(np.int32),
        materials=(material,),
        face_material=np.zeros(len(faces), np.int32),
        T_world_object=T,
    )


def plane(number: int = 1, half_m: float = 8.0, material: Material = GREY, name: str = "floor") -> SceneObject:
    """The square z = 0."""
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * half_m
    return made(name, number, corners, np.array([[0, 1, 2], [0, 2, 3]]), material, np.eye(4))


def box_corners(size: tuple[float, float, float]) -> F64:
    """(8, 3) corners of a box about the origin."""
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    return np.asarray(signs * np.array(size) / 2)


def box(
    number: int, size: tuple[float, float, float], T: F64, material: Material = GREY, name: str = "box"
) -> SceneObject:
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([f for a, b, c, d in quads for f in ((a, b, c), (a, c, d))])
    return made(name, number, box_corners(size), faces, material, T)


def sphere(number: int, radius_m: float, T: F64, material: Material = GREY, name: str = "object") -> SceneObject:
    """A globe of 160 x 80 quads: its surface lies within 0.2 mm of a sphere of half a metre."""
    turns, rings = 160, 80
    longitude, latitude = np.meshgrid(np.arange(turns) * 2 * np.pi / turns, np.arange(rings + 1) * np.pi / rings)
    points = np.stack(
        [np.sin(latitude) * np.cos(longitude), np.sin(latitude) * np.sin(longitude), np.cos(latitude)], -1
    )
    ring, turn = (array.ravel() for array in np.meshgrid(np.arange(rings), np.arange(turns), indexing="ij"))
    after = (turn + 1) % turns
    a, b, c, d = ring * turns + turn, (ring + 1) * turns + turn, (ring + 1) * turns + after, ring * turns + after
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])
    # At the poles one triangle of each quad has no area.
    flat = points.reshape(-1, 3)
    area = np.linalg.norm(
        np.cross(flat[faces[:, 1]] - flat[faces[:, 0]], flat[faces[:, 2]] - flat[faces[:, 0]]), axis=1
    )
    return made(name, number, flat * radius_m, faces[area > 1e-9], material, T)


def plane_depth(start: F64, rays: F64, half_m: float = 8.0) -> F64:
    """(N,) ray parameter where rays from `start` (3,) meet plane(), infinite where they do not."""
    t = -start[2] / rays[:, 2]
    away = np.abs(start[:2] + t[:, None] * rays[:, :2]).max(axis=1)
    return np.where((t > 0) & (away <= half_m), t, np.inf)


def box_depth(start: F64, rays: F64, size: tuple[float, float, float], T: F64) -> F64:
    """(N,) ray parameter where rays enter the box, infinite where they miss it."""
    start, rays = (start - T[:3, 3]) @ T[:3, :3], rays @ T[:3, :3]
    with np.errstate(divide="ignore"):
        one, other = (-np.array(size) / 2 - start) / rays, (np.array(size) / 2 - start) / rays
    enter, leave = np.minimum(one, other).max(axis=1), np.maximum(one, other).min(axis=1)
    return np.where((enter < leave) & (enter > 0), enter, np.inf)


def sphere_depth(start: F64, rays: F64, radius_m: float, T: F64) -> F64:
    """(N,) ray parameter where rays enter the sphere, infinite where they miss it."""
    offset = start - T[:3, 3]
    a, b, c = (rays**2).sum(axis=1), rays @ offset, offset @ offset - radius_m**2
    root = b**2 - a * c
    return np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)


def project(camera: Camera, T_world_camera: F64, points: F64) -> F64:
    """(N, 2) pixels u, v of world points (N, 3)."""
    seen = (points - T_world_camera[:3, 3]) @ T_world_camera[:3, :3]
    u = camera.cx + camera.fx * seen[:, 0] / -seen[:, 2]
    v = camera.cy - camera.fy * seen[:, 1] / -seen[:, 2]
    return np.stack([u, v], axis=-1)


def shot(camera: Camera, *poses: F64, T_world_object: Mapping[str, F64] | None = None) -> Sequence:
    """A sequence of one camera that stands at each of `poses` for a frame."""
    return Sequence(
        fps=10.0,
        task="look",
        cameras=(camera,),
        T_world_camera={camera.name: np.stack(poses)},
        T_base_camera={camera.name: np.eye(4)},
        states={},
        actions={},
        T_world_object=T_world_object or {},
    )


def lit(name: str, *objects: SceneObject, sky_strength: float = 1.0) -> Scene:
    """A scene under an even sky and one lamp."""
    lamp = Light("lamp", "area", moved(z=4.0), power_w=100.0, size_m=(1.0, 1.0))
    return Scene(name, objects, lights=(lamp,), sky_strength=sky_strength)
