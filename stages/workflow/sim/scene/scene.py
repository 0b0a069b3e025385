"""`scene_of`: a layout as a `Scene`, so that stages, writers and renderers can name and show what is in it.

Every body that can be seen is an object with a mesh in its own frame. An instance with joints (a robot, a cabinet)
consists of several, which share its instance id: `robot/arm/link3` and `robot/arm/gripper/leftfinger` are parts of
`robot/arm`, `drawer/tray` is one of `drawer`, whose case is called `drawer`. `object_poses` says where they are in
recorded states; any renderer that moves objects shows an episode by these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nimbusd.stages.types import F64, Label, Light, Material, Scene, SceneObject
from nimbusd.stages.workflow.sim.layout.labels import label_rows
from nimbusd.stages.workflow.sim.layout.layout import Layout
from nimbusd.stages.workflow.sim.rotation import inverse, look_at, matrix_of
from nimbusd.stages.workflow.sim.scene.materials import Looks
from nimbusd.stages.workflow.sim.scene.surfaces import geom_surface
from nimbusd.stages.workflow.sim.world.bodies import VISIBLE_GROUP
from nimbusd.stages.workflow.sim.world.poses import BodyPoses
from nimbusd.stages.workflow.sim.world.world import World, build_world

SUN_W_PER_M2 = 4.0
"""Power of a sun lamp whose MuJoCo brightness is 1, for renderers that count in watts."""

_WORLD = 0


@dataclass(frozen=True)
class _Part:
    """The visible part of one body of one instance. moves: True where its pose depends on the state."""

    name: str
    label: Label
    body: int
    geoms: tuple[int, ...]
    moves: bool


def scene_of(layout: Layout) -> Scene:
    """The scene of a layout at its start. provenance: {"layout": Layout.to_json()}."""
    world = build_world(layout)
    poses, looks = BodyPoses(world, world.start[None]), Looks(world.model)
    frames = {region.name: region.pose.matrix() for region in layout.regions}
    movable = {entry.name for entry in layout.objects if not entry.fixed}
    ambient = float(np.mean([np.mean(lamp.ambient) for lamp in layout.lights])) if layout.lights else 0.0
    return Scene(
        name=layout.task,
        objects=tuple(
            _scene_object(world.model, part, looks, poses.of(part.body)[0], frames.get(part.name), movable)
            for part in _parts(world)
        ),
        lights=tuple(_light(lamp) for lamp in layout.lights),
        sky_color=layout.sky,
        sky_strength=ambient,
        provenance={"layout": layout.to_json()},
    )


def object_poses(layout: Layout, qpos: F64) -> dict[str, F64]:
    """Name of each object of `scene_of(layout)` that can move → its (T, 4, 4) `T_world_object`.

    qpos: (T, nq) recorded states. Raises ValueError for states of another layout.
    """
    world = build_world(layout)
    if qpos.ndim != 2 or qpos.shape[1] != world.nq:
        raise ValueError(
            f"states of shape {qpos.shape} are not of layout {layout.task!r}, whose states have {world.nq} coordinates"
        )
    poses = BodyPoses(world, qpos)
    return {part.name: poses.of(part.body) for part in _parts(world) if part.moves}


def _parts(world: World) -> list[_Part]:
    """All parts that can be seen, by instance, then by body."""
    model, labels = world.model, {label.instance_id: label for label in label_rows(world.layout)}
    geoms: dict[tuple[int, int], list[int]] = {}
    for geom in np.flatnonzero(np.asarray(model.geom_group) == VISIBLE_GROUP).tolist():
        geoms.setdefault((int(world.instance[geom]), int(model.geom_bodyid[geom])), []).append(geom)
    return [
        _Part(_part_name(world, labels[number], body), labels[number], body, tuple(mine), bool(model.body_weldid[body]))
        for (number, body), mine in sorted(geoms.items())
    ]


def _part_name(world: World, label: Label, body: int) -> str:
    """The instance's own name for what stands in the room and for an object's base, else with the body's after it."""
    if body == _WORLD or (label.name in world.objects and world.objects[label.name].body == body):
        return label.name
    name = str(world.model.body(body).name)
    if label.name in world.objects:
        return f"{label.name}/{name.removeprefix(f'object/{label.name}/')}"
    # robot<part>/<body>, or gripper/<arm>/<body>
    kind, _, rest = name.partition("/")
    return f"{label.name}/gripper/{rest.partition('/')[2]}" if kind == "gripper" else f"{label.name}/{rest}"


def _light(lamp: Any) -> Light:
    direction, position = np.asarray(lamp.direction), np.asarray(lamp.position)
    level = max(lamp.diffuse)
    color = tuple(value / level for value in lamp.diffuse) if level > 0 else (1.0, 1.0, 1.0)
    kind = "sun" if lamp.kind == "sun" else "point"
    power = SUN_W_PER_M2 * level if kind == "sun" else 60.0 * level
    return Light(lamp.name, kind, look_at(position, position + direction), power, color)  # type: ignore[arg-type]


def _scene_object(
    model: Any, part: _Part, looks: Looks, T_world_body: F64, T_world_frame: F64 | None, movable: set[str]
) -> SceneObject:
    """T_world_frame: of the object, where it is not its body's."""
    T_world_object = T_world_body if T_world_frame is None else T_world_frame
    T_object_body = inverse(T_world_object) @ T_world_body
    vertices, faces, uvs, slots, count = [], [], [], [], 0
    materials: dict[int, Material] = {}  # equal looks are one object
    for geom in part.geoms:
        surface = geom_surface(model, geom)
        T = T_object_body @ matrix_of(model.geom_pos[geom], model.geom_quat[geom])
        vertices.append((surface.vertices @ T[:3, :3].T + T[:3, 3]).astype(np.float32))
        faces.append(surface.faces + count)
        count += len(surface.vertices)
        material, uv = looks.of(geom, surface)
        uvs.append(np.zeros((len(surface.faces), 3, 2), np.float32) if uv is None else uv)
        materials.setdefault(id(material), material)
        slots.append(np.full(len(surface.faces), list(materials).index(id(material)), np.int32))
    textured = any(material.texture is not None for material in materials.values())
    return SceneObject(
        name=part.name,
        category=part.label.category,
        instance_id=part.label.instance_id,
        vertices=np.concatenate(vertices),
        faces=np.concatenate(faces).astype(np.int32),
        materials=tuple(materials.values()),
        face_material=np.concatenate(slots),
        uvs=np.concatenate(uvs) if textured else None,
        T_world_object=T_world_object,
        smooth=True,
        movable=part.name in movable,
        part_of="" if part.name == part.label.name else part.label.name,
    )
