"""Publishing: a pure function of the committed pieces, swapped in atomically, valid at any time."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest

from nimbusd.stages import Piece, StoreError
from nimbusd.stages.seeds import scene_key
from nimbusd.stages.store.conventions import SCHEMA_VERSION
from nimbusd.stages.store.formats.lerobot_v30.build import build_v30
from nimbusd.stages.store.media import FileSizes
from nimbusd.stages.store.piece import PIECES
from nimbusd.stages.store.read import open_dataset
from nimbusd.stages.store.source_piece import load_piece
from nimbusd.stages.store.verify.verify import verify_dataset
from tests.support.store_makers import (
    JOB,
    make_episode,
    make_observation,
    make_sequence,
    make_writer,
    store_episode,
    store_episodes,
)

MODES = [
    {"format": "lerobot-v3.0", "media": "video"},
    {"format": "lerobot-v3.0", "media": "image"},
    {"format": "lerobot-v2.1", "media": "video"},
    {"format": "lerobot-v2.1", "media": "image"},
    {"format": "interndata-n1"},
]
NAMES = ["v30-video", "v30-image", "v21-video", "v21-image", "n1"]
VIDEO: dict[str, Any] = {"format": "lerobot-v3.0", "codec": "h264"}


def digests(root: Path, pattern: str = "**/*") -> dict[str, str]:
    root = root.resolve()
    files = (path for path in sorted(root.glob(pattern)) if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("args", MODES, ids=NAMES)
def test_what_was_stored_is_read_back_from_interim_and_final_datasets(tmp_path: Path, args: dict[str, Any]) -> None:
    writer = make_writer(codec="h264", **args)
    pieces = store_episodes(writer, tmp_path, range(3))
    for final in (False, True):
        assert writer.publish(tmp_path, pieces, JOB, final) == tmp_path / "dataset"
        assert verify_dataset(tmp_path, pieces) == []
        dataset = open_dataset(tmp_path)
        assert (dataset.format, dataset.episodes, dataset.cameras) == (args["format"], 3, ("front",))
        for index in range(3):
            seq = make_sequence(8 + index, seed=index)
            seen, stored = make_observation(seq, seed=index).frames["front"], dataset.episode(index)
            tolerance = 0 if args.get("media") == "image" else 8
            assert np.abs(stored.rgb["front"].astype(int) - seen.rgb).mean() <= tolerance
            assert seen.depth_m is not None
            assert seen.instance is not None
            assert seen.semantic is not None
            np.testing.assert_allclose(stored.depth_m["front"], seen.depth_m.clip(0, 6.5535), atol=0.6e-4)
            np.testing.assert_array_equal(stored.instance["front"], seen.instance)
            np.testing.assert_array_equal(stored.semantic["front"], seen.semantic)
            np.testing.assert_allclose(stored.T_world_camera["front"], seq.T_world_camera["front"], atol=1e-6)
            np.testing.assert_allclose(stored.intrinsics["front"], [80.5, 79.25, 49.5, 30.0])
            state = seq.states["observation.state"].values
            np.testing.assert_allclose(stored.states["observation.state"], state, atol=1e-6)
            np.testing.assert_allclose(stored.states["timestamp"][:, 0], np.arange(8 + index) / 10, atol=1e-6)
            assert stored.task == f"go to place {index % 2}"
            assert stored.meta["episode_id"] == f"job/room/{index}"
            assert stored.meta["notes"]["key_frames"] == [0, 7 + index]
            assert [label.name for label in stored.labels] == ["floor_0", "chair_0"]
            assert stored.length == 8 + index


@pytest.mark.parametrize("media", ["video", "image"])
def test_state_columns_do_not_depend_on_order_attempts_or_interim_publishes(tmp_path: Path, media: str) -> None:
    args = {**VIDEO, "media": media, "data_file_mb": 1}
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    writer = make_writer(**args)
    writer.publish(calm, store_episodes(writer, calm, range(5)), JOB, True)

    writer = make_writer(**args)
    done: dict[int, Piece] = {}
    for attempt, index in enumerate((3, 0, 4, 2, 1), start=1):
        store_episode(writer, stormy, index, attempt=attempt)  # an attempt that was fenced
        done[index] = store_episode(writer, stormy, index, attempt=attempt + 10)
        writer.publish(stormy, [done[key] for key in sorted(done)], JOB, False)
        assert verify_dataset(stormy) == []
    writer.publish(stormy, [done[key] for key in sorted(done)], JOB, True)
    ours, theirs = digests(calm / "dataset"), digests(stormy / "dataset")
    assert ours.keys() == theirs.keys()
    differing = {path for path in ours if ours[path] != theirs[path]}
    assert differing <= {"meta/checksums.json", "meta/nimbusd_episodes.jsonl"}


def test_publishing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    writer = make_writer(**VIDEO)
    pieces = store_episodes(writer, tmp_path, range(3))
    for final in (False, True):
        first = digests(writer.publish(tmp_path, pieces, JOB, final))
        assert digests(writer.publish(tmp_path, pieces, JOB, final)) == first


def test_interim_and_final_datasets_hold_the_same_rows(tmp_path: Path) -> None:
    writer = make_writer(**VIDEO)
    pieces = store_episodes(writer, tmp_path, range(4))
    interim = writer.publish(tmp_path, pieces, JOB, False).resolve()
    final = writer.publish(tmp_path, pieces, JOB, True).resolve()
    assert len(list(interim.glob("data/*/*"))) == len(list(interim.glob("videos/*/*/*"))) == 4
    assert len(list(final.glob("data/*/*"))) == len(list(final.glob("videos/*/*/*"))) == 1
    tables = [pq.read_table(root / "data") for root in (interim, final)]
    assert tables[0].equals(tables[1])


def test_final_files_keep_to_the_size_target_and_whole_episodes(tmp_path: Path) -> None:
    writer = make_writer(**VIDEO)
    pieces = store_episodes(writer, tmp_path, range(6))
    stored = [load_piece(tmp_path, piece, "lerobot-v3.0") for piece in pieces]
    root = tmp_path / "built"
    root.mkdir()
    build_v30(root, stored, JOB, FileSizes(data_mb=0, video_mb=1), final=True)
    assert len(list(root.glob("data/*/*"))) == 6
    assert len(list(root.glob("videos/*/*/*"))) == 1
    rows = pq.read_table(root / "meta/episodes").to_pylist()
    assert [row["data/file_index"] for row in rows] == list(range(6))
    lengths = np.cumsum([0, *(piece.length for piece in pieces)])
    starts = [row["videos/observation.images.front/from_timestamp"] for row in rows]
    np.testing.assert_allclose(starts, lengths[:-1] / 10)
    assert verify_dataset(root) == []


def test_media_are_linked_not_copied(tmp_path: Path) -> None:
    writer = make_writer(**VIDEO)
    pieces = store_episodes(writer, tmp_path, [0])
    dataset = writer.publish(tmp_path, pieces, JOB, False)
    video = dataset / "videos/observation.images.front/chunk-000/file-000.mp4"
    assert (
        video.stat().st_ino
        == (tmp_path / PIECES / pieces[0].folder / "videos/observation.images.front.mp4").stat().st_ino
    )


def test_media_are_copied_where_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    writer = make_writer(**VIDEO)
    pieces = store_episodes(writer, tmp_path, range(2))
    monkeypatch.setattr(os, "link", no_link)
    writer.publish(tmp_path, pieces, JOB, False)
    assert verify_dataset(tmp_path, pieces) == []


def test_readers_keep_the_snapshot_they_opened_for_one_more_publish(tmp_path: Path) -> None:
    writer = make_writer(**VIDEO)
    pieces = store_episodes(writer, tmp_path, range(3))
    writer.publish(tmp_path, pieces[:1], JOB, False)
    reader = open_dataset(tmp_path)
    writer.publish(tmp_path, pieces[:2], JOB, False)
    assert reader.episode(0).length == 8
    writer.publish(tmp_path, pieces, JOB, False)
    assert sorted(entry.name for entry in (tmp_path / ".published").iterdir()) == ["2", "3"]
    assert os.readlink(tmp_path / "dataset") == ".published/3"


def test_a_crash_anywhere_in_publishing_leaves_the_dataset_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    rmtree = shutil.rmtree

    def no_cleanup(path: Path, ignore_errors: bool = False) -> None:
        """A dead process does not tidy up behind itself, but it swept what others left before."""
        if not ignore_errors:
            rmtree(path)

    writer = make_writer(**VIDEO)
    pieces = store_episodes(writer, tmp_path, range(2))
    writer.publish(tmp_path, pieces[:1], JOB, False)
    expected = writer.publish(tmp_path, pieces[:1], JOB, False).resolve()
    for name in ("rename", "symlink", "replace", "link"):

        def die(*_: object, **__: object) -> None:
            raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(os, name, die)
            patch.setattr(shutil, "rmtree", no_cleanup)
            with pytest.raises(Crash):
                writer.publish(tmp_path, pieces, JOB, False)
        assert (tmp_path / "dataset").resolve() == expected
        assert verify_dataset(tmp_path, pieces[:1]) == []
    writer.publish(tmp_path, pieces, JOB, False)
    assert verify_dataset(tmp_path, pieces) == []
    assert expected.is_dir()
    assert len(list((tmp_path / ".published").iterdir())) == 2
    assert not list(tmp_path.glob(".dataset*"))


def test_no_pieces_is_an_error_and_keeps_what_was_there(tmp_path: Path) -> None:
    writer = make_writer(**VIDEO)
    with pytest.raises(StoreError, match="no episode is committed yet"):
        writer.publish(tmp_path, [], JOB, False)
    assert verify_dataset(tmp_path, []) == []
    assert not (tmp_path / "dataset").exists()


def test_a_torn_piece_is_refused_and_named(tmp_path: Path) -> None:
    writer = make_writer(**VIDEO)
    pieces = store_episodes(writer, tmp_path, range(2))
    path = tmp_path / PIECES / pieces[1].folder / "data.parquet"
    content = bytearray(path.read_bytes())
    content[100] ^= 4
    path.write_bytes(content)
    with pytest.raises(StoreError, match=pieces[1].folder):
        writer.publish(tmp_path, pieces, JOB, True)
    path.write_bytes(content[:-1])
    with pytest.raises(StoreError, match="bytes instead of"):
        writer.publish(tmp_path, pieces, JOB, False)
    shutil.rmtree(path.parent)
    with pytest.raises(StoreError, match="is missing"):
        writer.publish(tmp_path, pieces, JOB, False)


def test_pieces_of_different_features_or_formats_are_not_mixed(tmp_path: Path) -> None:
    writer = make_writer(**VIDEO)
    pieces = [store_episode(writer, tmp_path, 0), store_episode(writer, tmp_path, 1, cameras=("left",))]
    with pytest.raises(StoreError, match="differ in feature"):
        writer.publish(tmp_path, pieces, JOB, False)
    pieces[1] = store_episode(writer, tmp_path, 2, fps=20)
    with pytest.raises(StoreError, match="fps"):
        writer.publish(tmp_path, pieces, JOB, False)
    with pytest.raises(StoreError, match=r"not for lerobot-v2\.1"):
        make_writer(format="lerobot-v2.1").publish(tmp_path, pieces, JOB, False)


def test_a_dataset_folder_of_someone_else_is_not_replaced(tmp_path: Path) -> None:
    writer = make_writer(**VIDEO)
    pieces = store_episodes(writer, tmp_path, [0])
    (tmp_path / "dataset").mkdir()
    with pytest.raises(StoreError, match="move it away"):
        writer.publish(tmp_path, pieces, JOB, False)


@pytest.mark.parametrize("change", ["no frames of camera", "rgb is", "has no frames", "rows for"])
def test_an_observation_that_does_not_fit_is_refused(tmp_path: Path, change: str) -> None:
    seq, other = make_sequence(8), make_sequence(9, cameras=("front", "left"))
    obs = make_observation(seq)
    given = {
        "no frames of camera": (other, make_observation(make_sequence(9))),
        "rgb is": (make_sequence(9), obs),
        "has no frames": (make_sequence(0), obs),
        "rows for": (replace(seq, states=other.states), obs),
    }[change]
    with pytest.raises(StoreError, match=change):
        make_writer().save_data(*given, make_episode(tmp_path, seq=given[0]))
    assert list((tmp_path / PIECES).iterdir()) == []


def test_the_writer_beats_at_every_frame(tmp_path: Path) -> None:
    for args in MODES:
        writer = make_writer(codec="h264", **args)
        beats: list[int] = []
        writer.beat = lambda beats=beats: beats.append(1)  # type: ignore[misc]
        store_episode(writer, tmp_path / str(args), 0)
        assert len(beats) >= 8 * 4  # RGB, depth, instance, semantic


def test_every_required_fact_of_an_episode_is_in_its_metadata(tmp_path: Path) -> None:
    writer = make_writer(**VIDEO)
    piece = store_episode(writer, tmp_path, 0, attempt=3)
    dataset = writer.publish(tmp_path, [piece], JOB, True)
    row = orjson.loads((dataset / "meta/nimbusd_episodes.jsonl").read_bytes())
    assert row["schema_version"] == SCHEMA_VERSION
    assert row["episode_id"] == "job/room/0"
    assert row["task"] == "go to place 0"
    assert (row["scene"]["id"], len(row["scene"]["content_hash"])) == ("room", 64)
    assert row["robot"] == "mobile_base"
    assert row["components"]["plan"] == {"name": "Toy", "version": "1.0.0", "args": {}}
    assert row["seeds"] == {"job": 3, "scene_key": list(scene_key("room")), "index": 0, "variant": 0}
    assert row["config"]["job"] == {"name": "job", "seed": 3}
    assert (row["run"]["node"], row["run"]["slot"], row["run"]["attempt"]) == ("n1", "cpu:0", 3)
    assert row["run"]["finished_unix_s"] > row["run"]["started_unix_s"]
    assert row["run"]["timings_s"] == {"plan": 0.1}
    assert row["result"] == {"success": True, "reason": None}
    assert row["quality"] == {"grade": "ungraded", "rule_set_version": None}
    assert row["cameras"]["front"]["axes"] == "opengl"
    conventions = orjson.loads((dataset / row["conventions"]).read_bytes())
    assert conventions["depth"]["counts_per_m"] == 10_000
    assert row["label_table"] in conventions["segmentation"]["label_tables"]
