"""Meshes of hollow things, closed and facing outwards: mugs, bowls, boxes without lid; and ways to spoil them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from nimbusd.stages.types import F64, I32

Mesh = tuple[F64, I32]


def revolved(profile: list[tuple[float, float]], around: int = 32) -> Mesh:
    """The body that a profile of (radius, z) sweeps around z; it starts and ends on the axis, metres."""
    angle = np.arange(around) * (2 * np.pi / around)
    points: list[list[float]] = []
    rings: list[list[int]] = []
    for radius, z in profile:
        if radius == 0:
            rings.append([len(points)] * around)
            points.append([0.0, 0.0, z])
        else:
            rings.append(list(range(len(points), len(points) + around)))
            points += [[radius * np.cos(a), radius * np.sin(a), z] for a in angle]
    faces = []
    for low, high in pairwise(rings):
        for i in range(around):
            j = (i + 1) % around
            if low[i] != low[j]:
                faces.append([low[i], low[j], high[j]])
            if high[i] != high[j]:
                faces.append([low[i], high[j], high[i]])
    return np.array(points, np.float64), np.array(faces, np.int32)


def cup(radius: float = 0.03, height: float = 0.09, wall: float = 0.004, around: int = 32) -> Mesh:
    """A cup without handle, standing on z = 0."""
    inner = radius - wall
    return revolved([(0, 0), (radius, 0), (radius, height), (inner, height), (inner, wall), (0, wall)], around)


def handle(radius: float, height: float, thick: float = 0.005, around: int = 24) -> Mesh:
    """A ring beside a cup, in the plane of x and z, whose inner end lies in the cup's wall."""
    big, ring = 0.3 * height, []
    middle = np.array([radius + 0.6 * big, 0.0, height / 2])
    for a in np.arange(around) * (2 * np.pi / around):
        out = np.array([np.cos(a), 0.0, np.sin(a)])
        across = [np.cos(b) * out + np.sin(b) * np.array([0.0, 1.0, 0.0]) for b in np.arange(8) * (2 * np.pi / 8)]
        ring += [middle + big * out + thick * direction for direction in across]
    faces = []
    for i in range(around):
        for k in range(8):
            here, beside = i * 8 + k, i * 8 + (k + 1) % 8
            there, over = (here + 8) % (8 * around), (beside + 8) % (8 * around)
            faces += [[here, beside, over], [here, over, there]]
    vertices, indices = np.array(ring), np.array(faces, np.int32)
    return (vertices, indices) if volume((vertices, indices)) > 0 else (vertices, indices[:, ::-1])


def together(*meshes: Mesh) -> Mesh:
    """One mesh of several."""
    first = np.cumsum([0, *(len(vertices) for vertices, _ in meshes)])
    faces = [faces + start for (_, faces), start in zip(meshes, first, strict=False)]
    return np.concatenate([vertices for vertices, _ in meshes]), np.concatenate(faces).astype(np.int32)


def mug(radius: float = 0.03, height: float = 0.09) -> Mesh:
    """A cup with a handle: two closed bodies that overlap."""
    return together(cup(radius, height), handle(radius, height))


def bowl(radius: float = 0.07, height: float = 0.05, wall: float = 0.004) -> Mesh:
    """An open bowl, wider than grippers open."""
    outer = [(radius * np.sin(a), height * (1 - np.cos(a))) for a in np.linspace(0, np.pi / 2, 9)]
    inner = [((radius - wall) * np.sin(a), height - (height - wall) * np.cos(a)) for a in np.linspace(np.pi / 2, 0, 9)]
    return revolved([(float(r), float(z)) for r, z in [*outer, *inner[:-1], (0.0, wall)]])


def slab(low: tuple[float, float, float], high: tuple[float, float, float]) -> Mesh:
    """A block between two corners."""
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float64)
    faces = [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
             [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]]  # fmt: skip
    return np.array(low) + corners * (np.array(high) - np.array(low)), np.array(faces, np.int32)


def open_box(x: float = 0.12, y: float = 0.10, z: float = 0.06, wall: float = 0.004) -> Mesh:
    """A box without lid, of five closed slabs."""
    return together(
        slab((0, 0, 0), (x, y, wall)),
        slab((0, 0, wall), (wall, y, z)), slab((x - wall, 0, wall), (x, y, z)),
        slab((wall, 0, wall), (x - wall, wall, z)), slab((wall, y - wall, wall), (x - wall, y, z)),
    )  # fmt: skip


def inside_out(mesh: Mesh) -> Mesh:
    """The same with every face turned over."""
    return mesh[0], mesh[1][:, ::-1].copy()


def mirrored(mesh: Mesh) -> Mesh:
    """Mirrored at x, as by a negative scale, which leaves the faces looking inwards."""
    return mesh[0] * [-1.0, 1.0, 1.0], mesh[1]


def mixed(mesh: Mesh, share: float = 0.5, seed: int = 0) -> Mesh:
    """A share of the faces, drawn, turned over."""
    faces = mesh[1].copy()
    wrong = np.random.default_rng(seed).random(len(faces)) < share
    faces[wrong] = faces[wrong][:, ::-1]
    return mesh[0], faces


def volume(mesh: Mesh) -> float:
    """Signed volume, m³; positive where faces look outwards."""
    a, b, c = np.moveaxis(mesh[0][mesh[1]], 1, 0)
    return float(np.einsum("ij,ij->", a, np.cross(b, c))) / 6


def write_obj(path: Path, mesh: Mesh) -> Path:
    """An .obj in metres, z up."""
    lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in mesh[0].tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (mesh[1] + 1).tolist()]
    path.write_text("\n".join(lines) + "\n")
    return path


def dense_block(level: int) -> Mesh:
    """A rounded block of 20 * 4**level triangles with a fine relief, as a scan has it."""
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=level, radius=1.0)
    points = np.asarray(ball.vertices, np.float64)
    points = np.sign(points) * np.abs(points) ** 0.4 * np.array([0.02, 0.025, 0.03])
    relief = 1 + 0.02 * np.sin(points[:, [0]] * 200) * np.sin(points[:, [2]] * 200)
    return points * relief, np.asarray(ball.faces, np.int32)
