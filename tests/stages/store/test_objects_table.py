"""InternData-A1's table of objects: poses in two frames, 3D boxes, and 2D boxes of what is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.frame_labels import boxes, project
from nimbusd.stages.store.object_rows import objects_table
from nimbusd.stages.store.poses import transforms_of
from nimbusd.stages.store.read import open_dataset
from nimbusd.stages.types import Feature, Label, Observation, Sequence
from tests.support.toy_workflow import CUBE_ID
from tests.support.workflow_makers import publish, store

A1 = "nimbusd.stages.store.formats.a1.writer:InternDataA1Writer"


def no_beat() -> None:
    pass


def rows_of(table: Any, name: str) -> dict[str, list[Any]]:
    """Columns of one object, a value for each frame."""
    keep = [index for index, found in enumerate(table.column("object").to_pylist()) if found == name]
    return {key: [values[index] for index in keep] for key, values in table.to_pydict().items()}


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_every_frame_says_where_the_object_is_and_where_it_is_seen(version: str, tmp_path: Path) -> None:
    args = {"media": "image", "version": version}
    made = store(tmp_path / "out", A1, args, episodes=2)
    data = open_dataset(publish(tmp_path / "out", A1, args, made))
    table, episode = data.objects(1), data.episode(1)
    cube = rows_of(table, "red_cube")
    assert cube["frame_index"] == list(range(12))
    assert cube["timestamp"] == pytest.approx(np.arange(12) / 10)
    assert set(cube["category"]) == {"cube"}
    assert set(cube["instance_id"]) == {CUBE_ID}
    assert set(map(str, cube["size_m"])) == {"None"}  # the toy does not state it
    in_env = transforms_of(np.array(cube["object_to_env_pose"]))
    in_robot = transforms_of(np.array(cube["object_to_robot_pose"]))
    robot = transforms_of(episode.states["states.robot_to_env_pose"])
    assert np.abs(robot @ in_robot - in_env).max() < 1e-6
    assert np.allclose(np.diff(in_env[:, 2, 3]), 0.001)  # the toy's cube rises by a millimetre per step
    for camera in ("head", "hand"):
        for frame in range(12):
            found = {box.instance_id: box for box in boxes(episode.instance[camera][frame])}
            wanted = found.get(CUBE_ID)
            assert cube[f"box2d.{camera}"][frame] == (None if wanted is None else list(wanted.box))
            assert cube[f"pixels.{camera}"][frame] == (0 if wanted is None else wanted.pixels)
    assert any(box is not None for box in cube["box2d.head"])
    assert data.trees[0].conventions["objects_path"].startswith("objects/")


def test_a_dataset_without_such_a_table_says_so(tmp_path: Path) -> None:
    writer = "nimbusd.stages.store.writers.env:EnvWriter"
    made = store(tmp_path / "out", writer, {"media": "image"}, episodes=1)
    data = open_dataset(publish(tmp_path / "out", writer, {"media": "image"}, made))
    with pytest.raises(StoreError, match="InternDataA1Writer makes one"):
        data.objects(0)


def test_an_object_that_no_label_names_has_a_pose_all_the_same() -> None:
    pose = np.tile(np.eye(4), (3, 1, 1))
    states = {"states.robot_to_env_pose": Feature(np.tile([0, 0, 1, 1, 0, 0, 0.0], (3, 1)))}
    notes = {"sizes_m": {"ball": [0.1, 0.1, 0.1]}}
    seq = Sequence(10.0, "look", (), {}, {}, states, {}, {"ball": pose, "area": pose}, notes)
    table = objects_table(seq, Observation({}, (Label(4, 4, "ball", "toy"),)), no_beat)
    assert table is not None
    assert rows_of(table, "area")["instance_id"] == [None] * 3
    assert rows_of(table, "area")["size_m"] == [None] * 3
    assert rows_of(table, "ball")["size_m"] == [[0.1, 0.1, 0.1]] * 3
    assert rows_of(table, "ball")["object_to_robot_pose"][0] == [0, 0, -1, 1, 0, 0, 0]


@pytest.mark.mujoco
def test_the_mask_of_a_simulated_object_lies_in_its_projected_3d_box_and_fills_it() -> None:
    from tests.support.manip_worlds import planned, require_simulation

    require_simulation()
    from nimbusd.renderers.mujoco.renderer import MujocoRenderer, MujocoRendererArgs
    from nimbusd.stages.workflow.recorded import sequence_of
    from nimbusd.stages.workflow.sim import scene_of

    _, layout, demo = planned()
    whole = sequence_of(demo, layout)
    rows = [0, len(whole) // 2, len(whole) - 1]
    cameras = tuple(camera for camera in whole.cameras if camera.name == "front")
    poses = {"front": np.asarray(whole.T_world_camera["front"])[rows]}
    states = {key: Feature(np.asarray(feature.values)[rows]) for key, feature in whole.states.items()}
    objects = {name: np.asarray(T)[rows] for name, T in whole.T_world_object.items()}
    seq = Sequence(30.0, "look", cameras, poses, {}, states, {}, objects, whole.notes)
    renderer = MujocoRenderer(MujocoRendererArgs.model_validate({}))
    renderer.open("cpu")
    try:
        renderer.load(scene_of(layout))
        obs = renderer.gen_obs(seq)
    finally:
        renderer.close()
    table = objects_table(seq, obs, no_beat)
    assert table is not None
    cube = rows_of(table, "cube")
    signs = np.array(np.meshgrid([-0.5, 0.5], [-0.5, 0.5], [-0.5, 0.5])).reshape(3, -1).T
    for frame in range(len(rows)):
        T = transforms_of([cube["object_to_env_pose"][frame]])[0]
        corners = signs * cube["size_m"][frame] @ T[:3, :3].T + T[:3, 3]
        pixels, _ = project(cameras[0], poses["front"][frame], corners)
        box = cube["box2d.front"][frame]
        assert box is not None
        assert (np.array(box[:2]) >= pixels.min(axis=0) - 1).all()
        assert (np.array(box[2:]) <= pixels.max(axis=0) + 1).all()
    last = np.array(cube["box2d.front"][-1])  # put down in the open
    assert np.abs(last - np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])).max() < 3
