"""The published trees are what FORMATS' readers expect: LeRobot v3.0, v2.1 and InternData-N1."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nimbusd.stages import StoreError
from nimbusd.stages.store.conventions import SCHEMA_VERSION
from nimbusd.stages.store.formats.n1.pointcloud import OBSTACLE_COLOR, read_ply, scene_points
from nimbusd.stages.store.formats.n1.trees import FEWEST_FRAMES
from nimbusd.stages.store.stats import vector_stats
from nimbusd.stages.store.verify.verify import verify_dataset
from tests.support.internnav_loader import episodes_of, lines, pixel_goal, point_goal
from tests.support.store_makers import (
    JOB,
    make_episode,
    make_observation,
    make_scene,
    make_sequence,
    make_writer,
    store_episode,
    store_episodes,
)

DEFAULTS = ["timestamp", "frame_index", "episode_index", "index", "task_index"]
STATISTICS = {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}


def info_of(root: Path) -> dict[str, Any]:
    return json.loads((root / "meta/info.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(params=["video", "image"])
def v30(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    writer = make_writer(media=request.param)
    return writer.publish(tmp_path, store_episodes(writer, tmp_path, range(3)), JOB, True)


def test_v30_info_describes_the_dataset(v30: Path) -> None:
    info = info_of(v30)
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"], info["fps"]) == (3, 27, 2, 10)
    assert info["splits"] == {"train": "0:3"}
    assert (info["chunks_size"], info["data_files_size_in_mb"], info["video_files_size_in_mb"]) == (1000, 100, 200)
    assert list(info["features"])[-5:] == DEFAULTS
    image = info["features"]["observation.images.front"]
    assert (image["shape"], image["names"]) == ([64, 96, 3], ["height", "width", "channels"])
    if image["dtype"] == "video":
        assert image["info"] == {
            "video.height": 64,
            "video.width": 96,
            "video.codec": "av1",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": 10,
            "video.channels": 3,
            "has_audio": False,
        }
    pose = info["features"]["observation.camera.front.T_world_camera"]
    assert (pose["dtype"], pose["shape"], pose["names"][:5]) == ("float32", [16], ["m00", "m01", "m02", "m03", "m10"])


def test_v30_files_hold_what_their_metadata_says(v30: Path) -> None:
    info = info_of(v30)
    tasks = pq.read_table(v30 / "meta/tasks.parquet")
    assert dict(zip(tasks["__index_level_0__"].to_pylist(), tasks["task_index"].to_pylist(), strict=True)) == {
        "go to place 0": 0,
        "go to place 1": 1,
    }
    assert b"pandas" in tasks.schema.metadata
    stats = json.loads((v30 / "meta/stats.json").read_text())
    assert stats.keys() == info["features"].keys()
    assert all(set(values) == STATISTICS for values in stats.values())
    assert np.shape(stats["observation.images.front"]["mean"]) == (3, 1, 1)
    assert stats["observation.images.front"]["count"] == [27]
    first = 0
    for episode, row in enumerate(pq.read_table(v30 / "meta/episodes").to_pylist()):
        table = pq.read_table(v30 / info["data_path"].format(chunk_index=0, file_index=row["data/file_index"]))
        mine = table.slice(row["dataset_from_index"], row["length"])
        assert mine["episode_index"].unique().to_pylist() == [episode]
        assert mine["index"].to_pylist() == list(range(first, first + 8 + episode))
        assert row["tasks"] == [f"go to place {episode % 2}"]
        assert row["dataset_to_index"] - row["dataset_from_index"] == row["length"] == 8 + episode
        assert {name.split("/")[1] for name in row if name.startswith("stats/")} == set(info["features"])
        first += row["length"]
    assert set(table.column_names) == {k for k, entry in info["features"].items() if entry["dtype"] != "video"}
    if info["features"]["observation.images.front"]["dtype"] == "image":
        cell = table["observation.images.front"][3].as_py()
        assert cell["path"] == "frame-000003.png"
        assert cell["bytes"].startswith(b"\x89PNG")


def test_statistics_of_index_columns_are_those_of_their_values(v30: Path) -> None:
    table = pq.read_table(v30 / "data")
    for episode, row in enumerate(pq.read_table(v30 / "meta/episodes").to_pylist()):
        mine = table.slice(row["dataset_from_index"], row["length"])
        for key in DEFAULTS:
            exact = vector_stats(mine[key].to_numpy()[:, None])
            for name in STATISTICS:
                np.testing.assert_allclose(
                    row[f"stats/{key}/{name}"], exact[name], atol=1e-6, err_msg=f"{episode} {key}"
                )


def test_v21_has_one_file_per_episode_and_metadata_in_lines(tmp_path: Path) -> None:
    writer = make_writer(format="lerobot-v2.1", codec="h264")
    root = writer.publish(tmp_path, store_episodes(writer, tmp_path, range(3)), JOB, True)
    info = info_of(root)
    assert info["codebase_version"] == "v2.1"
    assert (info["total_videos"], info["total_chunks"], info["splits"]) == (3, 1, {"train": "0:3"})
    assert lines(root / "meta/tasks.jsonl") == [
        {"task_index": 0, "task": "go to place 0"},
        {"task_index": 1, "task": "go to place 1"},
    ]
    for episode, (row, stats) in enumerate(
        zip(lines(root / "meta/episodes.jsonl"), lines(root / "meta/episodes_stats.jsonl"), strict=True)
    ):
        assert row == {
            "episode_index": episode,
            "tasks": [f"go to place {episode % 2}"],
            "length": 8 + episode,
            "key_frames": [0, 7 + episode],
        }
        assert stats["episode_index"] == episode
        assert stats["stats"].keys() == info["features"].keys()
        assert all(set(values) == {"min", "max", "mean", "std", "count"} for values in stats["stats"].values())
        assert stats["stats"]["observation.images.front"]["count"] == [8 + episode]
        place = {"episode_chunk": 0, "episode_index": episode}
        table = pq.read_table(root / info["data_path"].format(**place))
        assert table.num_rows == 8 + episode
        typed = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
        assert typed["action"]["_type"] == "Sequence"  # the stock reader's `datasets` does not know `List`
        assert (root / info["video_path"].format(**place, video_key="observation.images.front")).is_file()


@pytest.fixture
def n1(tmp_path: Path) -> Path:
    writer = make_writer(format="interndata-n1", codec="h264")
    pieces = store_episodes(writer, tmp_path, range(3), scene="hall")
    pieces += store_episodes(writer, tmp_path, [3], scene="room")
    pieces.append(store_episode(writer, tmp_path, 4, scene="room", variant=2))
    return writer.publish(tmp_path, pieces, JOB, True)


def test_n1_episodes_are_found_by_image_index(n1: Path) -> None:
    episodes = list(episodes_of(n1))
    assert [episode["scene"] for episode in episodes] == ["hall", "hall", "hall", "room", "room_v002"]
    for index, episode in enumerate(episodes):
        seq = make_sequence(8 + index, seed=index)
        seen = make_observation(seq, seed=index).frames["front"]
        assert seen.depth_m is not None
        assert len(episode["rgb"]) == len(episode["depth"]) == len(episode["poses"]) == 8 + index
        for frame in range(len(seq)):
            shown = np.asarray(Image.open(episode["rgb"][frame]))
            assert np.abs(shown.astype(int) - seen.rgb[frame]).mean() < 3
            counts = np.asarray(Image.open(episode["depth"][frame]))
            np.testing.assert_allclose(counts / 10000, seen.depth_m[frame].clip(0, 6.5535), atol=0.6e-4)
        np.testing.assert_allclose(episode["poses"], seq.T_world_camera["front"], atol=1e-6)
        np.testing.assert_allclose(episode["mounting"][:, 2, 3], 0.5)
        np.testing.assert_allclose(episode["K"][0], seq.cameras[0].matrix())


def test_n1_goals_lie_where_the_robot_drives(n1: Path) -> None:
    """The drives go straight ahead, and so do the goals that InternNav's loader reads and shows in the picture."""
    for episode in episodes_of(n1):
        last = len(episode["poses"]) - 1
        goal = point_goal(episode["poses"], episode["mounting"][0], 0, last)
        np.testing.assert_allclose(goal, [last / 10, 0, 0], atol=1e-5)
        u, v = pixel_goal(goal, episode["K"][0], episode["mounting"][0])
        assert u == pytest.approx(episode["K"][0][0, 2], abs=1e-3)
        below = 0.8 * 0.5 / (last / 10) * episode["K"][0][1, 1]
        assert v == pytest.approx(episode["K"][0][1, 2] + below, abs=1e-3)
        stated = json.loads((episode["tree"] / "meta/conventions.json").read_text())
        assert "x right, y forward" in stated["columns"]["observation.camera_extrinsic"]
    assert verify_dataset(n1.parent) == []


def test_n1_a_mounting_in_another_base_is_a_fault_unless_the_tree_is_of_before(n1: Path) -> None:
    tree = n1 / "job_front/hall"
    stated = tree / "meta/conventions.json"
    stated.write_text(stated.read_text().replace(f'"{SCHEMA_VERSION}"', '"1.0.0"'))
    faults = [fault for fault in verify_dataset(n1.parent) if "camera_extrinsic" in fault]
    assert len(faults) == 3
    assert "is not the mounting of its camera" in faults[0]


def test_n1_obstacles_are_selected_by_colour_and_only_they(n1: Path) -> None:
    content = (n1 / "job_front/hall/meta/pointcloud.ply").read_bytes()
    header, body = content.split(b"end_header\n", 1)
    assert b"element vertex" in header
    rows = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    points, _ = scene_points(make_scene("hall"))
    np.testing.assert_allclose(rows["xyz"], points, atol=1e-6)
    chosen = np.abs(rows["rgb"] / 255 - [0, 0, 0.5]).sum(axis=1) <= 0.05
    assert chosen.sum() > 100
    # The board stands at y = 2 over the whole height band; its own colour is almost the obstacles'.
    np.testing.assert_allclose(rows["xyz"][chosen][:, 1], 2, atol=1e-6)
    assert rows["xyz"][chosen][:, 2].min() >= 0.1
    assert rows["xyz"][chosen][:, 2].max() <= 1.2
    board = rows["xyz"][:, 1] == 2
    assert (board & ~chosen).sum() > 50


def test_n1_is_a_superset_that_the_lerobot_reader_takes(n1: Path) -> None:
    tree = n1 / "job_front/hall"
    info = info_of(tree)
    assert (info["codebase_version"], info["fps"], info["splits"]) == ("v2.1", 10, {"train": "0:3"})
    assert list(info["features"])[-5:] == DEFAULTS
    videos = [key for key, entry in info["features"].items() if entry["dtype"] == "video"]
    assert videos == ["observation.video.trajectory", "observation.video.depth"]
    for episode in range(3):
        place = {"episode_chunk": 0, "episode_index": episode}
        table = pq.read_table(tree / info["data_path"].format(**place))
        assert set(DEFAULTS) <= set(table.column_names)
        np.testing.assert_allclose(np.diff(table["timestamp"].to_numpy()), 0.1, atol=1e-6)
        for key in videos:
            assert (tree / info["video_path"].format(**place, video_key=key)).is_file()
    assert json.loads((tree / "meta/conventions.json").read_text())["camera_axes"].startswith("OpenGL")
    assert lines(tree / "meta/episodes.jsonl")[1]["key_frames"] == [0, 8]


@pytest.mark.parametrize(
    ("sequence", "observation", "words"),
    [
        ({"cameras": ("a", "b")}, {}, "one camera"),
        ({"length": FEWEST_FRAMES - 1}, {}, "8 frames"),
        ({}, {"depth": False}, "needs depth"),
    ],
)
def test_n1_says_what_it_needs(
    tmp_path: Path, sequence: dict[str, Any], observation: dict[str, Any], words: str
) -> None:
    seq = make_sequence(**sequence)
    with pytest.raises(StoreError, match=words):
        make_writer(format="interndata-n1").save_data(
            seq, make_observation(seq, **observation), make_episode(tmp_path, seq=seq)
        )


def test_n1_marks_obstacles_above_every_floor_that_an_episode_of_the_scene_is_on(tmp_path: Path) -> None:
    writer = make_writer(format="interndata-n1", codec="h264")
    bare = replace(make_scene(), rooms=())
    pieces = []
    for index, height in enumerate((0.0, 1.5)):
        seq = make_sequence(8)
        lifted = {"front": seq.T_world_camera["front"].copy()}
        lifted["front"][:, 2, 3] += height
        seq = replace(seq, T_world_camera=lifted)
        episode = make_episode(tmp_path, index, seq=seq)
        episode.scene = bare
        pieces.append(writer.save_data(seq, make_observation(seq), episode))
    heights = []
    for count in (1, 2):
        tree = writer.publish(tmp_path, pieces[:count], JOB, True) / "job_front/room"
        points, colors = read_ply((tree / "meta/pointcloud.ply").read_bytes())
        heights.append(points[(colors == OBSTACLE_COLOR).all(axis=1)][:, 2])
        assert verify_dataset(tmp_path, pieces[:count]) == []
    assert heights[0].max() <= 1.2
    assert ((heights[1] <= 1.2) | (heights[1] >= 1.6)).all()
    assert heights[1].max() > 1.9


def test_scene_points_cover_surfaces_evenly_and_always_the_same() -> None:
    points, colors = scene_points(make_scene())
    again, _ = scene_points(make_scene())
    np.testing.assert_array_equal(points, again)
    on_floor = points[:, 2] == 0
    assert on_floor.sum() == pytest.approx(16 * 400, rel=0.01)
    quarters, _, _ = np.histogram2d(points[on_floor, 0], points[on_floor, 1], bins=4, range=[[0, 4], [0, 4]])
    assert quarters.min() > 0.9 * quarters.max()
    assert colors[on_floor].max(axis=0).tolist() == colors[on_floor].min(axis=0).tolist()
