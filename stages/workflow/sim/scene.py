"""`scene_of`: a layout as a `Scene`, so that stages, writers and renderers of scenes can name and show what is in it.

Objects carry their meshes in their own frames and may be moved by a Sequence's `T_world_object`. A robot arm is one
object in its start posture: renderers that do not replay simulator states (`provenance["layout"]` and
`simulation.qpos`) show it so, since a scene object is one rigid body.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nimbusd.stages.types import Light, Material, Scene, SceneObject
from nimbusd.stages.workflow.sim.bodies import VISIBLE_GROUP
from nimbusd.stages.workflow.sim.geometry import geom_mesh, joined
from nimbusd.stages.workflow.sim.labels import label_rows
from nimbusd.stages.workflow.sim.layout import Layout
from nimbusd.stages.workflow.sim.rotation import inverse, look_at, transform
from nimbusd.stages.workflow.sim.world import World, build_world, import_mujoco

SUN_W_PER_M2 = 4.0
"""Power of a sun lamp whose MuJoCo brightness is 1, for renderers that count in watts."""


def scene_of(layout: Layout) -> Scene:
    """The scene of a layout at its start. provenance: {"layout": Layout.to_json()}."""
    mujoco, world = import_mujoco(), build_world(layout)
    data = mujoco.MjData(world.model)
    data.qpos[:] = world.start
    mujoco.mj_kinematics(world.model, data)
    movable = {entry.name for entry in layout.objects if not entry.fixed}
    objects = []
    for label in label_rows(layout):
        geoms = [
            geom
            for geom in range(world.model.ngeom)
            if world.instance[geom] == label.instance_id and world.model.geom_group[geom] == VISIBLE_GROUP
        ]
        if geoms:
            objects.append(_scene_object(world, data, label.name, label.category, label.instance_id, geoms, movable))
    ambient = float(np.mean([np.mean(lamp.ambient) for lamp in layout.lights])) if layout.lights else 0.0
    return Scene(
        name=layout.task,
        objects=tuple(objects),
        lights=tuple(_light(lamp) for lamp in layout.lights),
        sky_color=layout.sky,
        sky_strength=ambient,
        provenance={"layout": layout.to_json()},
    )


def _light(lamp: Any) -> Light:
    direction, position = np.asarray(lamp.direction), np.asarray(lamp.position)
    level = max(lamp.diffuse)
    color = tuple(value / level for value in lamp.diffuse) if level > 0 else (1.0, 1.0, 1.0)
    kind = "sun" if lamp.kind == "sun" else "point"
    power = SUN_W_PER_M2 * level if kind == "sun" else 60.0 * level
    return Light(lamp.name, kind, look_at(position, position + direction), power, color)  # type: ignore[arg-type]


def _scene_object(
    world: World, data: Any, name: str, category: str, number: int, geoms: list[int], movable: set[str]
) -> SceneObject:
    model = world.model
    T_world_object = np.eye(4)
    if name in world.objects:
        body = world.objects[name].body
        T_world_object = transform(data.xmat[body].reshape(3, 3), data.xpos[body])
    back = inverse(T_world_object)
    meshes, face_material = [], []
    materials: dict[tuple[float, ...], int] = {}
    for geom in geoms:
        T = back @ transform(data.geom_xmat[geom].reshape(3, 3), data.geom_xpos[geom])
        mesh = geom_mesh(model, geom).moved(T)
        meshes.append(mesh)
        material = int(model.geom_matid[geom])
        color = model.mat_rgba[material] if material >= 0 else model.geom_rgba[geom]
        key = tuple(round(float(value), 4) for value in color)
        face_material.append(np.full(len(mesh.faces), materials.setdefault(key, len(materials)), np.int32))
    whole = joined(meshes)
    return SceneObject(
        name=name,
        category=category,
        instance_id=number,
        vertices=whole.vertices.astype(np.float32),
        faces=whole.faces,
        materials=tuple(
            Material(f"{name}/{index}", (key[0] ** 2.2, key[1] ** 2.2, key[2] ** 2.2))
            for key, index in materials.items()
        ),
        face_material=np.concatenate(face_material),
        T_world_object=T_world_object,
        movable=name in movable,
    )
