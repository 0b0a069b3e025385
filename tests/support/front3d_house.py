"""Small furnished houses in 3D-FRONT's format, written from scratch: `python -m tests.support.front3d_house FOLDER`.

Plan of the house (world x to the right, y up the page; metres; walls 0.2 thick, ceiling at 2.8):

    7.2 +--------------+
        |  DiningRoom  |            rooms=3 adds this one
    4.2 +------[ ]-----+
    4.0 +------[ ]-----+---------------+
        |  LivingRoom    [] MasterBedroom
    0.0 +--[window]----+---------------+
        0            5.0 5.2          9.2
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

HEIGHT_M = 2.8
DOOR_TOP_M = 2.1

Box = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Lowest corner and size, model frame with y up, base centre at the origin."""

MODELS: dict[str, tuple[str, tuple[Box, ...]]] = {
    "demo-bed": (
        "King-size Bed",
        (
            ((-0.9, 0.1, -1.0), (1.8, 0.4, 2.0)),
            ((-0.95, 0.0, -1.08), (1.9, 1.0, 0.08)),
            ((-0.75, 0.5, -0.95), (0.65, 0.12, 0.4)),
            ((0.1, 0.5, -0.95), (0.65, 0.12, 0.4)),
        ),
    ),
    "demo-wardrobe": (
        "Wardrobe",
        (((-0.8, 0.0, -0.3), (1.6, 2.1, 0.6)), ((-0.03, 0.8, 0.3), (0.06, 0.3, 0.03))),
    ),
    "demo-nightstand": ("Nightstand", (((-0.22, 0.0, -0.2), (0.44, 0.5, 0.4)),)),
    "demo-sofa": (
        "Three-seat / Multi-seat Sofa",
        (
            ((-1.0, 0.08, -0.4), (2.0, 0.34, 0.8)),
            ((-1.0, 0.42, -0.4), (2.0, 0.4, 0.2)),
            ((-1.0, 0.42, -0.2), (0.18, 0.2, 0.6)),
            ((0.82, 0.42, -0.2), (0.18, 0.2, 0.6)),
        ),
    ),
    "demo-coffee-table": (
        "Coffee Table",
        (
            ((-0.5, 0.38, -0.3), (1.0, 0.05, 0.6)),
            *((((x, 0.0, z), (0.05, 0.38, 0.05))) for x in (-0.5, 0.45) for z in (-0.3, 0.25)),
        ),
    ),
    "demo-tv-stand": (
        "TV Stand",
        (((-0.8, 0.0, -0.2), (1.6, 0.45, 0.4)), ((-0.6, 0.5, -0.05), (1.2, 0.7, 0.05))),
    ),
    "demo-table": (
        "Dining Table",
        (
            ((-0.7, 0.71, -0.4), (1.4, 0.05, 0.8)),
            *((((x, 0.0, z), (0.06, 0.71, 0.06))) for x in (-0.7, 0.64) for z in (-0.4, 0.34)),
        ),
    ),
    "demo-chair": (
        "Dining Chair",
        (
            ((-0.22, 0.44, -0.22), (0.44, 0.05, 0.44)),
            ((-0.22, 0.49, -0.22), (0.44, 0.45, 0.04)),
            *((((x, 0.0, z), (0.04, 0.44, 0.04))) for x in (-0.22, 0.18) for z in (-0.22, 0.18)),
        ),
    ),
    "demo-lamp": (
        "Pendant Lamp",
        (((-0.01, 0.25, -0.01), (0.02, 0.35, 0.02)), ((-0.2, 0.0, -0.2), (0.4, 0.25, 0.4))),
    ),
}

ROOMS: dict[str, tuple[float, float, float, float]] = {
    "LivingRoom": (0.0, 0.0, 5.0, 4.0),
    "MasterBedroom": (5.2, 0.0, 9.2, 4.0),
    "DiningRoom": (0.0, 4.2, 5.0, 7.2),
}
"""Room type → low x, low y, high x, high y."""

PLACEMENTS: dict[str, tuple[tuple[str, float, float, float, float], ...]] = {
    "LivingRoom": (
        ("demo-sofa", 2.0, 3.5, 0.0, 0.0),
        ("demo-coffee-table", 2.0, 2.4, 0.0, 0.0),
        ("demo-tv-stand", 2.0, 0.3, 0.0, 180.0),
        ("demo-lamp", 2.5, 2.0, 2.2, 0.0),
    ),
    "MasterBedroom": (
        ("demo-bed", 7.4, 2.8, 0.0, 0.0),
        ("demo-nightstand", 8.75, 3.7, 0.0, 0.0),
        ("demo-wardrobe", 8.8, 1.0, 0.0, -90.0),
    ),
    "DiningRoom": (
        ("demo-table", 1.6, 5.9, 0.0, 0.0),
        ("demo-chair", 1.6, 6.75, 0.0, 0.0),
        ("demo-chair", 1.6, 5.05, 0.0, 180.0),
        ("demo-lamp", 1.6, 5.9, 2.2, 0.0),
    ),
}
"""Room type → (model, world x, y, z, yaw in degrees about world z)."""


@dataclass(frozen=True)
class Door:
    """A doorway through a wall. low, high: its box in the plan (x, y)."""

    low: tuple[float, float]
    high: tuple[float, float]
    rooms: tuple[str, str]


DOORS = (
    Door((5.0, 0.6), (5.2, 1.6), ("LivingRoom", "MasterBedroom")),
    Door((3.6, 4.0), (4.6, 4.2), ("LivingRoom", "DiningRoom")),
)
WINDOW = (1.4, 2.6, 1.0, 2.0)
"""In the living room's lower wall: from x, to x, from z, to z."""


@dataclass(frozen=True)
class HousePaths:
    """The paths that BProc3DFrontLoader needs: the house file, the models' folder, the textures' folder."""

    house: Path
    furniture: Path
    textures: Path


def write_house(folder: Path, *, rooms: int = 3, furnished: bool = True, seed: int = 0) -> HousePaths:
    """A house of two or three rooms with doors, a window, textures and furniture; all below `folder`.

    The same arguments write the same bytes.
    """
    if rooms not in (2, 3):
        raise ValueError(f"a house has 2 or 3 rooms, not {rooms}")
    rng = np.random.default_rng(seed)
    names = list(ROOMS)[:rooms]
    doors = [door for door in DOORS if set(door.rooms) <= set(names)]
    paths = HousePaths(folder / "house.json", folder / "models", folder / "textures")
    for jid, (_, boxes) in MODELS.items():
        write_model(paths.furniture / jid, boxes, rng.integers(60, 210, 3))
    (paths.furniture / "model_info.json").write_text(
        json.dumps([{"model_id": jid, "category": category} for jid, (category, _) in MODELS.items()], indent=1)
    )
    write_texture(paths.textures / "tex-floor" / "texture.png", (150, 105, 65))
    paths.house.write_text(json.dumps(house_json(names, doors, furnished), indent=1))
    return paths


def house_json(names: Sequence[str], doors: Sequence[Door], furnished: bool) -> dict[str, Any]:
    """The house as 3D-FRONT writes it."""
    meshes: list[dict[str, Any]] = []
    scene_rooms = []
    for name in names:
        children = []
        for kind, quads in room_surfaces(name, doors):
            uid = f"{len(meshes)}/{name}"
            meshes.append(mesh_entry(uid, kind, quads))
            children.append(child(uid, f"mesh/{len(meshes)}"))
        for k, (jid, x, y, z, yaw) in enumerate(PLACEMENTS[name] if furnished else ()):
            children.append(child(f"{jid}/model", f"furniture/{name}{k}", (x, z, -y), yaw))
        scene_rooms.append({"type": name, "instanceid": f"{name}-1", "empty": 0, "children": children})
    return {
        "uid": "demo-house",
        "design_version": "0.1",
        "furniture": [
            {"uid": f"{jid}/model", "jid": jid, "title": category, "category": category, "valid": True}
            for jid, (category, _) in MODELS.items()
        ],
        "mesh": meshes,
        "material": [
            {"uid": "m-floor", "jid": "tex-floor", "texture": "http://example.invalid/tex-floor/texture.png",
             "color": [255, 255, 255, 255], "UVTransform": [1, 0, 0, 0, 1, 0, 0, 0, 1]},
            {"uid": "m-wall", "jid": "", "texture": "", "color": [225, 220, 205, 255]},
            {"uid": "m-door", "jid": "", "texture": "", "color": [130, 90, 60, 255]},
        ],
        "scene": {"ref": "0", "pos": [0, 0, 0], "rot": [0, 0, 0, 1], "scale": [1, 1, 1], "room": scene_rooms},
    }  # fmt: skip


Quad = list[tuple[float, float, float]]
"""Four world corners, counter-clockwise from the side that is seen."""


def room_surfaces(name: str, doors: Sequence[Door]) -> list[tuple[str, list[Quad]]]:
    """Mesh type and quads of a room: floor, ceiling, four inner walls with openings, its doors, its window."""
    x0, y0, x1, y1 = ROOMS[name]
    floor = [[(x0, y0, 0.0), (x1, y0, 0.0), (x1, y1, 0.0), (x0, y1, 0.0)]]
    ceiling = [[(x, y, HEIGHT_M) for x, y, _ in reversed(floor[0])]]
    surfaces = [("Floor", floor), ("Ceiling", ceiling)]
    # Each wall runs with the room to its left, so that its face looks into the room.
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
        surfaces.append(("WallInner", wall(start, end, openings(name, start, end, doors))))
    surfaces += [("Door", jambs(door)) for door in doors if door.rooms[0] == name]
    if name == "LivingRoom":
        u0, u1, z0, z1 = WINDOW
        surfaces.append(("Window", [[(u1, y0, z0), (u0, y0, z0), (u0, y0, z1), (u1, y0, z1)]]))
    return surfaces


def openings(
    name: str, start: tuple[float, float], end: tuple[float, float], doors: Sequence[Door]
) -> list[tuple[float, float, float, float]]:
    """Holes of a wall: from u, to u (metres along it), from z, to z."""
    along = 0 if start[1] == end[1] else 1
    level = start[1 - along]
    sign = 1 if end[along] > start[along] else -1
    holes = []
    for door in doors:
        touches = name in door.rooms and level in (door.low[1 - along], door.high[1 - along])
        if touches and door.high[1 - along] - door.low[1 - along] < 0.3:
            u = sorted(sign * (edge - start[along]) for edge in (door.low[along], door.high[along]))
            holes.append((u[0], u[1], 0.0, DOOR_TOP_M))
    if name == "LivingRoom" and start == (0.0, 0.0):
        holes.append(WINDOW)
    return holes


def wall(
    start: tuple[float, float], end: tuple[float, float], holes: Sequence[tuple[float, float, float, float]]
) -> list[Quad]:
    """A wall from start to end, seen from its left, around at most one hole per stretch."""
    length = float(np.hypot(end[0] - start[0], end[1] - start[1]))
    dx, dy = (end[0] - start[0]) / length, (end[1] - start[1]) / length

    def quad(u0: float, u1: float, z0: float, z1: float) -> Quad:
        left = (start[0] + u0 * dx, start[1] + u0 * dy)
        right = (start[0] + u1 * dx, start[1] + u1 * dy)
        return [(*right, z0), (*left, z0), (*left, z1), (*right, z1)]

    quads, at = [], 0.0
    for u0, u1, z0, z1 in sorted(holes):
        quads.append(quad(at, u0, 0.0, HEIGHT_M))
        quads.append(quad(u0, u1, z1, HEIGHT_M))
        if z0 > 0:
            quads.append(quad(u0, u1, 0.0, z0))
        at = u1
    quads.append(quad(at, length, 0.0, HEIGHT_M))
    return quads


def jambs(door: Door) -> list[Quad]:
    """The lining of a doorway: threshold, lintel and the two sides that close the wall's thickness."""
    (x0, y0), (x1, y1) = door.low, door.high
    top = DOOR_TOP_M
    threshold = [(x0, y0, 0.0), (x1, y0, 0.0), (x1, y1, 0.0), (x0, y1, 0.0)]
    lintel = [(x, y, top) for x, y, _ in reversed(threshold)]
    if x1 - x0 < y1 - y0:
        sides = [
            [(x1, y0, 0.0), (x0, y0, 0.0), (x0, y0, top), (x1, y0, top)],
            [(x0, y1, 0.0), (x1, y1, 0.0), (x1, y1, top), (x0, y1, top)],
        ]
    else:
        sides = [
            [(x0, y0, 0.0), (x0, y1, 0.0), (x0, y1, top), (x0, y0, top)],
            [(x1, y1, 0.0), (x1, y0, 0.0), (x1, y0, top), (x1, y1, top)],
        ]
    return [threshold, lintel, *sides]


def mesh_entry(uid: str, kind: str, quads: Sequence[Quad]) -> dict[str, Any]:
    """A `mesh` element: flat arrays, y up. Texture coordinates are metres."""
    corners = np.array([corner for quad in quads for corner in quad], np.float64)
    front = corners[:, [0, 2, 1]] * (1, 1, -1)
    edges = corners.reshape(-1, 4, 3)
    normals = np.cross(edges[:, 1] - edges[:, 0], edges[:, 2] - edges[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    flat = np.abs(normals[:, 2]) > 0.5
    uv = np.where(np.repeat(flat, 4)[:, None], corners[:, :2], np.stack([corners[:, :2].sum(1), corners[:, 2]], 1))
    first = 4 * np.arange(len(quads))[:, None]
    return {
        "uid": uid,
        "jid": "",
        "type": kind,
        "material": {"Floor": "m-floor", "Door": "m-door"}.get(kind, "m-wall"),
        "xyz": front.ravel().tolist(),
        "normal": np.repeat(normals[:, [0, 2, 1]] * (1, 1, -1), 4, axis=0).ravel().tolist(),
        "uv": uv.ravel().tolist(),
        "faces": (first + np.array([[0, 1, 2, 0, 2, 3]])).ravel().tolist(),
    }


def child(ref: str, instanceid: str, pos: Sequence[float] = (0, 0, 0), yaw_deg: float = 0.0) -> dict[str, Any]:
    """A `children` element; yaw about the up axis as a quaternion x, y, z, w."""
    half = np.deg2rad(yaw_deg) / 2
    rot = [0.0, float(np.sin(half)), 0.0, float(np.cos(half))]
    return {"ref": ref, "instanceid": instanceid, "pos": list(pos), "rot": rot, "scale": [1, 1, 1]}


def write_model(folder: Path, boxes: Sequence[Box], color: npt.ArrayLike) -> None:
    """A 3D-FUTURE model: raw_model.obj of boxes (y up, metres), model.mtl, texture.png."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["mtllib model.mtl", "usemtl surface"]
    lines += [f"vt {u} {v}" for u, v in ((0, 0), (1, 0), (1, 1), (0, 1))]
    # Corner k of a box takes the high side of axis i where bit i of k is set; faces are outward.
    faces = ((0, 4, 6, 2), (1, 3, 7, 5), (0, 1, 5, 4), (2, 6, 7, 3), (0, 2, 3, 1), (4, 5, 7, 6))
    for number, (low, size) in enumerate(boxes):
        for k in range(8):
            lines.append("v " + " ".join(f"{low[i] + size[i] * (k >> i & 1):.4f}" for i in range(3)))
        lines += ["f " + " ".join(f"{8 * number + k + 1}/{c}" for c, k in enumerate(face, 1)) for face in faces]
    (folder / "raw_model.obj").write_text("\n".join(lines) + "\n")
    (folder / "model.mtl").write_text("newmtl surface\nKd 1 1 1\nNs 20\nmap_Kd ./texture.png\n")
    write_texture(folder / "texture.png", color)


def write_texture(path: Path, color: npt.ArrayLike, size_px: int = 64) -> None:
    """A striped picture around `color` (sRGB bytes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stripes = 12 * ((np.arange(size_px) // 8) % 2)[:, None, None]
    pixels = np.clip(np.asarray(color) + stripes - 6 + np.zeros((size_px, size_px, 3)), 0, 255)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


if __name__ == "__main__":
    print(write_house(Path(sys.argv[1])).house)
