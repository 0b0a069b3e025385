"""InternData-M1: boxes, projected points, planning trace, and questions whose answers are in the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nimbusd.stages.notes import SubTask
from nimbusd.stages.store.encode import decode_image
from nimbusd.stages.store.formats.m1.labels import EpisodeMarks, Point, label_lines
from nimbusd.stages.store.formats.m1.vqa import KINDS, PHRASINGS, questions
from nimbusd.stages.store.frame_labels import Box, boxes, inner_point, inside, project, visible
from nimbusd.stages.store.read import open_dataset
from nimbusd.stages.store.verify.verify import verify_dataset
from nimbusd.stages.types import SIMULATION_QPOS, U16, Camera, CameraFrames, Label, Observation, Sequence
from tests.support.toy_workflow import CAMERAS, CUBE_ID, looking_down, tool
from tests.support.workflow_makers import publish, store

WRITER = "nimbusd.stages.store.formats.m1.writer:InternDataM1Writer"
CAMERA = Camera("cam", 40, 30, 50.0, 60.0, 20.0, 15.0)


@pytest.fixture(scope="module", params=["v2.1", "v3.0"])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("m1") / "out"
    args = {"media": "image", "version": request.param}
    made = store(output, WRITER, args, episodes=3)
    dataset = publish(output, WRITER, args, made)
    assert verify_dataset(output, [episode.piece for episode in made if episode.piece]) == []
    return dataset


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def labels(root: Path, episode: int = 1) -> list[dict[str, Any]]:
    return lines(root / f"labels/chunk-000/episode_{episode:06d}.jsonl")


def asked(root: Path, episode: int = 1) -> list[dict[str, Any]]:
    return lines(root / f"vqa/chunk-000/episode_{episode:06d}.jsonl")


# --- labels ---


@given(hnp.arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 7, 900])))
@settings(max_examples=100, deadline=None)
def test_boxes_are_those_of_a_search_by_hand(ids: U16) -> None:
    wanted = []
    for number in sorted(set(ids.ravel().tolist()) - {0}):
        v, u = np.nonzero(ids == number)
        edges = (int(u.min()), int(v.min()), int(u.max()) + 1, int(v.max()) + 1)
        wanted.append(Box(number, edges, len(u)))
    assert boxes(ids) == wanted
    for box in wanted:
        column, row = inner_point(ids, box.instance_id)
        assert ids[int(row), int(column)] == box.instance_id


def test_the_point_of_a_ring_is_on_the_ring() -> None:
    ids = np.ones((9, 9), np.uint16)
    ids[2:7, 2:7] = 0
    u, v = inner_point(ids, 1)
    assert ids[int(v), int(u)] == 1


def test_a_point_on_the_optical_axis_is_seen_at_the_principal_point() -> None:
    pixels, depths = project(CAMERA, looking_down(0, 0, 2), np.array([[0, 0, 0.5], [0.1, 0.2, 0], [0, 0, 3]]))
    assert pixels[0].tolist() == [20.0, 15.0]
    assert np.allclose(pixels[1], [20 + 50 * 0.1 / 2, 15 - 60 * 0.2 / 2])
    assert depths.tolist() == [1.5, 2.0, -1.0]
    assert np.isnan(pixels[2]).all()


def test_points_behind_a_surface_or_the_camera_are_not_visible() -> None:
    pixels, depths = project(CAMERA, looking_down(0, 0, 2), np.array([[0, 0, 0.5], [0, 0, 1.0], [0, 0, 3], [9, 0, 0]]))
    surface = np.full((30, 40), 1.0, np.float32)
    assert visible(CAMERA, pixels, depths, surface) == [False, True, False, False]
    assert visible(CAMERA, pixels, depths, None) == [None, None, False, False]
    assert inside(CAMERA, pixels).tolist() == [True, True, False, False]


def test_every_frame_has_the_boxes_of_its_masks(root: Path) -> None:
    episode = open_dataset(root).episode(1)
    for frame, line in enumerate(labels(root)):
        assert line["frame_index"] == frame
        for camera, label in line["cameras"].items():
            mask = episode.instance[camera][frame]
            shown = {row["instance_id"]: (row["box"], row["pixels"]) for row in label["boxes"]}
            assert shown == {box.instance_id: (list(box.box), box.pixels) for box in boxes(mask)}


def test_the_tool_and_the_grasp_point_lie_where_the_camera_sees_them(root: Path) -> None:
    episode = open_dataset(root).episode(1)
    q = episode.states["states.joint.position"]
    for frame, line in enumerate(labels(root)):
        label = line["cameras"]["front"]
        wanted, _ = project(CAMERAS[0], looking_down(0.3, 0.1, 1.2), tool(0.0, q[frame])[:3, 3])
        assert np.abs(np.array(label["tcp"][""]["uv"]) - wanted[0]).max() < 0.02
        assert [point["kind"] for point in label["points"]] == ["grasp"]
        assert label["points"][0]["reached_at"] == 6


def test_the_grasp_point_moves_with_its_object(root: Path) -> None:
    depths = [line["cameras"]["front"]["points"][0]["depth_m"] for line in labels(root)]
    assert np.allclose(np.diff(depths), -0.001, atol=1e-4)  # the toy's cube rises by a millimetre per step


def test_a_point_inside_an_object_is_visible_where_the_object_is_and_hidden_where_another_is() -> None:
    poses = np.tile(looking_down(0, 0, 2), (2, 1, 1))
    ids = np.full((2, CAMERA.height, CAMERA.width), 3, np.uint16)
    ids[1] = 4
    depth = np.full(ids.shape, 1.7, np.float32)
    frames = CameraFrames(np.zeros((*ids.shape, 3), np.uint8), depth, ids, ids)
    things = (Label(3, 3, "ball", "ball"), Label(4, 4, "lid", "lid"))
    obs = Observation({"cam": frames}, things)
    centre = np.tile(looking_down(0, 0, 0.1), (2, 1, 1))
    seq = Sequence(10.0, "look", (CAMERA,), {"cam": poses}, {"cam": np.eye(4)}, {}, {}, {"ball": centre})
    point = Point("grasp ball", "grasp", "ball", 1, centre[:, :3, 3], 0.05)
    lines_of = label_lines(seq, obs, EpisodeMarks({}, (point,), (), {}), lambda: None)
    assert [line["cameras"]["cam"]["points"][0]["visible"] for line in lines_of] == [True, False]


# --- questions ---


def test_every_kind_of_question_is_asked(root: Path) -> None:
    assert {row["kind"] for row in asked(root)} == set(KINDS)


def test_questions_refer_to_frames_that_are_there(root: Path) -> None:
    episode = open_dataset(root).episode(1)
    for row in asked(root):
        image = np.asarray(decode_image((root / row["image"]).read_bytes()))
        frame = episode.rgb[row["camera"]][row["frame_index"]]
        assert image.shape == frame.shape == (row["height"], row["width"], 3)
        assert np.abs(image[2:].astype(int) - frame[2:]).mean() < 3
        assert row["episode_index"] == 1


def test_answers_point_at_the_object_that_was_asked_for(root: Path) -> None:
    episode = open_dataset(root).episode(1)
    for row in asked(root):
        ids = episode.instance[row["camera"]][row["frame_index"]]
        if row["kind"] == "point":
            assert "the small red cube" in row["question"]
            u, v = row["value"]
            assert ids[int(v), int(u)] == CUBE_ID
            assert row["answer"] == f"({u:g}, {v:g})"
        elif row["kind"] == "box":
            u0, v0, u1, v1 = row["value"]
            inner = ids[v0:v1, u0:u1] == CUBE_ID
            assert inner.sum() == (ids == CUBE_ID).sum()
            assert inner.any(axis=0)[[0, -1]].all()
            assert inner.any(axis=1)[[0, -1]].all()
        elif row["kind"] == "affordance":
            u, v = row["value"]
            assert 0 <= u < row["width"]
            assert 0 <= v < row["height"]


def test_a_trace_begins_at_the_tool_and_stays_in_the_image(root: Path) -> None:
    traces = [row for row in asked(root) if row["kind"] == "trace" and row["camera"] == "front"]
    assert traces
    lines_of = labels(root)
    for row in traces:
        start = lines_of[row["frame_index"]]["cameras"]["front"]["tcp"][""]["uv"]
        assert np.abs(np.array(row["value"][0]) - start).max() <= 0.06
        assert len(row["value"]) == 6
        assert all(0 <= u < row["width"] and 0 <= v < row["height"] for u, v in row["value"])


def test_plans_are_the_instructions_of_the_parts(root: Path) -> None:
    plans = [row for row in asked(root) if row["kind"] == "plan"]
    assert [(row["frame_index"], row["value"]) for row in plans] == [
        (0, ["Reach for the red cube.", "Lift it."]),
        (6, ["Lift it."]),
    ]
    assert plans[0]["answer"] == "1. Reach for the red cube. 2. Lift it."


def watched(noun: str = "cube", instruction: str = "lift the cube", moved_m: float = 0.2) -> list[Any]:
    """The questions about four frames of a cube, 20 x 10 pixels, while a tool moves `moved_m` to the right."""
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, 0, 3] = np.linspace(0, moved_m, 4)
    poses[:, 2, 3] = -1.0
    seq = Sequence(10.0, "Tidy up.", (CAMERA,), {"cam": np.tile(np.eye(4), (4, 1, 1))}, {"cam": np.eye(4)}, {}, {},
                   T_world_object={"cube": np.tile(np.eye(4), (4, 1, 1))})  # fmt: skip
    point = Point("grip", "grasp", "cube", 2, np.tile([0.0, 0.0, -1.0], (4, 1)), 0.05)
    marks = EpisodeMarks({"": poses}, (point,), (SubTask(0, 4, instruction, ""),), {"cube": noun})
    ids = np.zeros((4, 30, 40), np.uint16)
    ids[:, 10:20, 10:30] = 7
    frames = CameraFrames(rgb=np.zeros((4, 30, 40, 3), np.uint8), instance=ids)
    obs = Observation({"cam": frames}, labels=(Label(7, 1, "cube", "cube"),))
    return list(questions(seq, obs, marks, label_lines(seq, obs, marks, lambda: None)))


def test_a_step_in_which_the_tool_stays_in_its_place_has_no_trace() -> None:
    assert [question.kind for question in watched()] == ["point", "box", "affordance", "trace", "plan"]
    assert "trace" not in {question.kind for question in watched(moved_m=0.05)}


def test_an_object_that_only_a_number_tells_apart_is_not_asked_for() -> None:
    assert {question.kind for question in watched("second cube")} == {"trace", "plan"}


def test_instructions_become_sentences_in_answers_and_clauses_in_questions() -> None:
    for written in ("lift the cube", "Lift the cube."):
        asked_of = {question.kind: question for question in watched(instruction=written)}
        assert asked_of["plan"].answer == "1. Lift the cube."
        assert '"lift the cube"' in asked_of["trace"].question


def test_questions_are_asked_in_many_ways_and_always_in_the_same_one() -> None:
    nouns = [f"{color} cube" for color in ("red", "green", "blue", "white", "black", "pink", "grey", "orange", "brown")]
    asked_of = [question for noun in nouns for question in watched(noun) if question.kind == "point"]
    assert len({question.question.replace(noun, "") for noun, question in zip(nouns, asked_of, strict=True)}) >= 3
    assert asked_of == [question for noun in nouns for question in watched(noun) if question.kind == "point"]


def test_every_phrasing_is_a_sentence() -> None:
    words = {"object": "red cube", "step": "lift the cube", "verb": "grasp", "task": "Tidy up"}
    for kind, phrasings in PHRASINGS.items():
        assert len(set(phrasings)) == len(phrasings) >= 3, kind
        for phrasing in phrasings:
            text = phrasing.format(**words)
            assert text[0].isupper(), text
            assert text[-1] in ".?", text


def test_questions_can_be_left_out(tmp_path: Path) -> None:
    args = {"media": "image", "vqa": False}
    made = store(tmp_path / "out", WRITER, args, episodes=1)
    dataset = publish(tmp_path / "out", WRITER, args, made)
    assert not (dataset / "vqa").exists()
    assert len(labels(dataset, 0)) == 12


# --- trace ---


def test_the_planning_trace_keeps_what_a_replay_needs_in_full_precision(root: Path) -> None:
    table = pq.read_table(root / "traces/chunk-000/episode_000001.parquet", partitioning=None)
    cube = np.array(table.column("object.red_cube").to_pylist()).reshape(-1, 4, 4)
    recorded = np.array(table.column(SIMULATION_QPOS).to_pylist())
    assert recorded.dtype == np.float64
    assert np.array_equal(cube[:, :3, 3], recorded)
    assert (recorded.astype(np.float32) != recorded).any()
    assert {"states.joint.position", "states.gripper.position", "camera.front"} <= set(table.column_names)


def test_the_same_episode_has_the_same_labels_again(root: Path, tmp_path: Path) -> None:
    args = {"media": "image", "version": open_dataset(root).format.removeprefix("lerobot-")}
    made = store(tmp_path / "out", WRITER, args, episodes=3)
    again = publish(tmp_path / "out", WRITER, args, made)
    for folder in ("labels", "vqa", "traces"):
        files = sorted(path.relative_to(root) for path in (root / folder).rglob("*") if path.is_file())
        assert files
        for file in files:
            assert (root / file).read_bytes() == (again / file).read_bytes(), file
