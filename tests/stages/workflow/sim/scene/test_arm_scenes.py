"""Scenes of layouts: every body that moves is an object, where MuJoCo has it and with MuJoCo's looks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nimbusd.stages.categories import label_table
from nimbusd.stages.types import F64, Scene
from nimbusd.stages.workflow.sim import Layout, label_rows, object_poses, randomize_layout, scene_of
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco
from nimbusd.stages.workflow.sim.scene.materials import Looks
from nimbusd.stages.workflow.sim.scene.surfaces import geom_surface
from nimbusd.stages.workflow.sim.world.bodies import VISIBLE_GROUP
from nimbusd.stages.workflow.sim.world.geometry import geom_mesh
from nimbusd.stages.workflow.sim.world.world import build_world
from tests.support.manip_worlds import planned, require_simulation, task_of

require_simulation()
pytestmark = pytest.mark.mujoco


def furnished() -> Layout:
    """A layout with all that has joints, and a region that cannot be seen."""
    slots = [
        {"name": name, "models": [name], "y_m": [-0.7, 0.7], "x_m": [0.3, 0.9]}
        for name in ("drawer", "door", "button", "knob")
    ]
    regions = [
        {"name": "seen", "size_m": [0.06, 0.05]},
        {"name": "unseen", "size_m": [0.05, 0.05], "visible": False},
    ]
    task = task_of([{"skill": "press", "object": "$button"}], slots, regions=regions, table={"size_m": [1.4, 1.8]})
    return randomize_layout(task, np.random.default_rng(2))


def surface(scene: Scene, poses: dict[str, F64], row: int, number: int) -> F64:
    """(V, 3) world points of an instance in a state, sorted, each once."""
    moved = [
        replace(obj, T_world_object=poses[obj.name][row]) if obj.name in poses else obj
        for obj in scene.objects
        if obj.instance_id == number
    ]
    return np.asarray(np.unique(np.concatenate([obj.world_vertices() for obj in moved]).round(5), axis=0), np.float64)


def test_an_instance_with_joints_is_several_objects_with_one_id_and_one_label() -> None:
    layout = furnished()
    scene = scene_of(layout)
    parts = {obj.name: obj for obj in scene.objects}
    assert len(parts) == len(scene.objects)
    for whole, part in (("drawer", "tray"), ("door", "door"), ("button", "cap"), ("knob", "dial")):
        assert parts[f"{whole}/{part}"].part_of == whole
        assert parts[f"{whole}/{part}"].instance_id == parts[whole].instance_id
    assert parts["robot/arm/link3"].instance_name == parts["robot/arm/gripper/leftfinger"].instance_name == "robot/arm"
    assert label_table(scene.objects) == tuple(row for row in label_rows(layout) if row.name != "unseen")


def test_recorded_states_put_every_part_where_the_simulator_has_it() -> None:
    layout = furnished()
    world, mujoco = build_world(layout), import_mujoco()
    rng = np.random.default_rng(0)
    qpos = world.start + rng.uniform(0, 0.01, (2, world.nq))
    scene, poses = scene_of(layout), object_poses(layout, qpos)
    assert {"robot/arm/link1", "drawer/tray", "door/door", "button/cap", "knob/dial"} <= set(poses)
    assert not {"floor", "table", "drawer", "robot/arm/link0", "seen"} & set(poses), "what cannot move has no poses"
    data = mujoco.MjData(world.model)
    data.qpos[:] = qpos[1]
    mujoco.mj_kinematics(world.model, data)
    # Boxes and meshes have MuJoCo's own corners; round shapes have other slices in `geom_mesh`.
    for number in sorted({obj.instance_id for obj in scene.objects if obj.category in ("robot", "drawer", "wall")}):
        expected = [
            geom_mesh(world.model, geom).vertices @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
            for geom in range(world.model.ngeom)
            if world.instance[geom] == number and world.model.geom_group[geom] == VISIBLE_GROUP
        ]
        points = surface(scene, poses, 1, number)
        for corner in np.concatenate(expected)[:: 1 + sum(map(len, expected)) // 300]:
            assert np.abs(points - corner).max(axis=1).min() < 2e-5


def test_what_a_demonstration_stores_of_objects_and_regions_are_poses_of_the_scenes_objects() -> None:
    _, layout, demo = planned()
    poses, parts = object_poses(layout, demo.qpos), {obj.name: obj for obj in scene_of(layout).objects}
    assert np.array_equal(poses["cube"], demo.T_world_object["cube"])
    assert np.allclose(parts["area"].T_world_object, demo.T_world_object["area"][0])
    assert np.ptp(parts["area"].vertices[:, :2], axis=0) == pytest.approx(layout.regions[0].size_m)


def test_every_surface_faces_outwards() -> None:
    for obj in scene_of(furnished()).objects:
        a, b, c = np.moveaxis(obj.vertices[obj.faces].astype(float), 1, 0)
        assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() > 0, obj.name


def test_states_of_another_layout_are_refused() -> None:
    with pytest.raises(ValueError, match="are not of layout 'test', whose states have"):
        object_poses(furnished(), np.zeros((1, 3)))


def test_one_id_for_two_instances_is_refused_where_labels_are_made() -> None:
    scene = scene_of(furnished())
    table, floor = (next(obj for obj in scene.objects if obj.name == name) for name in ("table", "floor"))
    with pytest.raises(ValueError, match=r"objects of instance id 1 are 'floor' .* and 'table' .*part_of"):
        label_table([floor, replace(table, instance_id=floor.instance_id)])


ROUND = """
<mujoco>
  <asset>
    <texture name="sides" type="cube" builtin="flat" rgb1="1 0.5 0" rgb2="1 0.5 0" width="8" height="8"/>
    <material name="sides" texture="sides" rgba="0.5 1 1 1" shininess="0" specular="0"/>
    <material name="lamp" rgba="1 1 1 0.4" emission="0.5" shininess="1" specular="1"/>
  </asset>
  <worldbody>
    <geom type="sphere" size="0.2" material="sides"/>
    <geom type="capsule" size="0.1 0.2" material="lamp"/>
    <geom type="ellipsoid" size="0.1 0.2 0.3" rgba="0.2 0.4 0.6 1"/>
    <geom type="cylinder" size="0.1 0.2" material="sides" rgba="0 0 1 1"/>
  </worldbody>
</mujoco>
"""


def test_round_shapes_are_closed_and_as_large_as_mujoco_draws_them() -> None:
    model = import_mujoco().MjModel.from_xml_string(ROUND)
    volumes = [4 / 3 * np.pi * 0.008, np.pi * 0.01 * (0.4 + 4 / 3 * 0.1), 4 / 3 * np.pi * 0.006, np.pi * 0.01 * 0.4]
    for geom, volume in enumerate(volumes):
        surface = geom_surface(model, geom)
        a, b, c = np.moveaxis(surface.vertices[surface.faces].astype(float), 1, 0)
        assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6 == pytest.approx(volume, rel=0.03)
        assert surface.texcoords is not None
        assert surface.texcoords.min() >= 0
        assert surface.texcoords.max() <= 1
        # Every edge is there once in each direction, counted by places: vertices are repeated at edges and poles.
        points = surface.vertices.round(6) + 0.0
        places = np.unique(points, axis=0, return_inverse=True)[1].reshape(-1)[surface.faces]
        edges = sorted((int(x), int(y)) for f in places for x, y in zip(f, np.roll(f, -1), strict=True) if x != y)
        assert edges == sorted((y, x) for x, y in edges)


def test_materials_are_what_mujoco_shows() -> None:
    model = import_mujoco().MjModel.from_xml_string(ROUND)
    looks = Looks(model)
    (sides, no_uv), (lamp, _), (plain, _), (tinted, _) = (
        looks.of(geom, geom_surface(model, geom)) for geom in range(model.ngeom)
    )
    assert no_uv is None
    assert sides.base_color == pytest.approx((0.214, 0.214, 0.0), abs=2e-3), "a cube texture gives its mean colour"
    assert (sides.roughness, sides.emission, sides.opacity) == (1.0, 0.0, 1.0)
    assert lamp.roughness == pytest.approx((2 / 130) ** 0.25)
    assert lamp.emission == pytest.approx(2 / np.pi)
    assert lamp.opacity == pytest.approx(0.4)
    assert plain.base_color == pytest.approx((0.0331, 0.1329, 0.3185), abs=1e-3)
    assert tinted.base_color == pytest.approx((0.0, 0.0, 0.0)), "a geom's own colour comes before its material's"
