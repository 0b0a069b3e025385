"""Pieces compared: equal, equal within a tolerance, or diverged at a frame, in which column and by how much."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nimbusd.cli.replay import judge
from nimbusd.job import read_job
from nimbusd.replay import (
    Comparison,
    Outcome,
    Recorded,
    Tolerance,
    compare_pieces,
    configuration_changes,
    renderer_changes,
)
from nimbusd.replay.difference import json_differences, rows_difference
from nimbusd.stages import Feature, Observation, Piece, Sequence
from nimbusd.stages.store.made_with import packages_hash
from tests.replay.test_replay import write_job
from tests.support.store_makers import make_episode, make_observation, make_sequence, make_writer

Change = Callable[[Sequence, Observation], tuple[Sequence, Observation]]
LENGTH = 9
ONE = "job__room__000000.1"


def unchanged(seq: Sequence, obs: Observation) -> tuple[Sequence, Observation]:
    return seq, obs


def state(frame: int, by: float) -> Change:
    """The yaw of the state is another one from `frame` on, twice as far in the last."""

    def change(seq: Sequence, obs: Observation) -> tuple[Sequence, Observation]:
        values = np.array(seq.states["observation.state"].values)
        values[frame:, 2] += by
        values[-1, 2] += by
        feature = replace(seq.states["observation.state"], values=values)
        return replace(seq, states={**seq.states, "observation.state": feature}), obs

    return change


def pixels(name: str, frame: int, by: float) -> Change:
    """An image of the front camera has one other pixel from `frame` on."""

    def change(seq: Sequence, obs: Observation) -> tuple[Sequence, Observation]:
        seen = obs.frames["front"]
        values = np.array(getattr(seen, name))
        values[frame:, 3, 5] = values[frame:, 3, 5] + np.asarray(by).astype(values.dtype)
        return seq, replace(obs, frames={"front": replace(seen, **{name: values})})

    return change


def stored(output: Path, change: Change = unchanged, **args: Any) -> tuple[Path, str]:
    """A piece of the same episode, changed. args: of the writer, and `context` of the episode."""
    context = args.pop("context", {})
    seq = make_sequence(LENGTH)
    seq, obs = change(seq, make_observation(seq))
    frames = {name: replace(seen, rgb=np.minimum(seen.rgb, 250)) for name, seen in obs.frames.items()}
    writer = make_writer(**{"media": "image", **args})
    episode = make_episode(output, seq=seq)
    episode.context.update(context)  # type: ignore[attr-defined]
    piece: Piece = writer.save_data(seq, replace(obs, frames=frames), episode)
    return output, piece.folder


def compared(folder: Path, change: Change, tolerance: Tolerance | None = None, **args: Any) -> Comparison:
    one, other = stored(folder / "one", **args), stored(folder / "other", change, **args)
    return compare_pieces(one, other, tolerance=tolerance)


def verdict(folder: Path, found: Comparison, tolerance: Tolerance | None = None) -> tuple[str, str]:
    recorded = Recorded(read_job(write_job(folder)), folder, "kitchen", 0, "", "committed", folder="f")
    said = judge(recorded, Outcome({}, folder="f"), found, "store", tolerance)
    assert said.status == (0 if said.word.startswith("equal") else 6)
    return said.word, said.text


def test_an_episode_that_is_the_same_is_equal_whoever_made_it_and_with_whatever(tmp_path: Path) -> None:
    packages = {"numpy": "2"}
    context = {
        "components": {"plan": {"name": "Toy", "version": "2.0.0", "args": {}}},
        "environment": {"hash": packages_hash(packages), "packages": packages},
        "node": "n2",
    }
    found = compare_pieces(stored(tmp_path / "one"), stored(tmp_path / "other", context=context))
    assert (found.equal, found.within, found.files) == (True, True, 3)
    assert renderer_changes((tmp_path / "one", ONE), (tmp_path / "other", ONE)) == []
    assert verdict(tmp_path, found)[0] == "equal"


def test_a_renderer_that_is_another_one_is_named_and_does_not_make_an_episode_different(tmp_path: Path) -> None:
    def on_a_gpu(seq: Sequence, obs: Observation) -> tuple[Sequence, Observation]:
        return seq, replace(obs, renderer={**obs.renderer, "device": "CUDA", "opengl": "4.5 Mesa 25"})

    one, other = stored(tmp_path / "one"), stored(tmp_path / "other", on_a_gpu)
    assert compare_pieces(one, other).equal
    assert renderer_changes(one, other) == [
        "renderer.device: none on record, CUDA now",
        "renderer.opengl: none on record, 4.5 Mesa 25 now",
    ]


def test_a_state_that_parts_is_diverged_at_that_frame_in_that_column_by_so_much(tmp_path: Path) -> None:
    found = compared(tmp_path, state(4, 0.25))
    (difference,) = found.differences
    assert (difference.place, difference.frame, difference.media) == ("data.parquet: observation.state", 4, False)
    assert difference.amount == pytest.approx(0.5, rel=1e-5)
    word, text = verdict(tmp_path, found)
    assert word == "diverged"
    assert text == (
        "DIVERGED at frame 4 from what is committed: data.parquet: observation.state differs from frame 4 on: "
        "0.25 there in yaw, at most 0.5, at frame 8"
    )


def test_a_state_that_is_a_little_off_is_equal_within_the_tolerance(tmp_path: Path) -> None:
    found = compared(tmp_path, state(4, 2e-7))
    assert not found.equal
    word, text = verdict(tmp_path, found)
    assert word == "equal_within"
    assert text.startswith(
        "came out equal within 1e-06; the largest difference: data.parquet: observation.state differs"
    )
    wide = Tolerance(numbers=0.6)
    found = compared(tmp_path / "wide", state(4, 0.25), wide)
    assert verdict(tmp_path, found, wide)[0] == "equal_within"
    found = compared(tmp_path / "narrow", state(4, 2e-7), Tolerance(numbers=0.0))
    assert found.diverged is not None
    assert found.diverged.frame == 4


@pytest.mark.parametrize(
    ("name", "by", "words", "tolerance"),
    [
        ("rgb", 3, "differs from frame 6 on, by at most 3 of 255 levels", Tolerance(levels=3)),
        ("depth_m", 0.002, "differs from frame 6 on, by at most 0.002 m", Tolerance(numbers=0.0021)),
        ("instance", 2, "differs from frame 6 on: 1 pixels have other ids there", None),
    ],
)
def test_pixels_that_differ_are_told_with_their_frame_and_amount_and_ids_are_never_tolerated(
    tmp_path: Path, name: str, by: float, words: str, tolerance: Tolerance | None
) -> None:
    found = compared(tmp_path / "strict", pixels(name, 6, by))
    assert words in [difference.what for difference in found.differences]
    word, text = verdict(tmp_path, found)
    assert word == "diverged"
    assert "at frame 6" in text
    assert text.endswith("; its state columns are equal")
    allowed = tolerance or Tolerance(1e6, 255)
    found = compared(tmp_path / "loose", pixels(name, 6, by), allowed)
    assert verdict(tmp_path, found, allowed)[0] == ("diverged" if tolerance is None else "equal_within")


@pytest.mark.parametrize("layout", ["lerobot-v3.0", "interndata-n1"])
def test_videos_and_separate_frames_are_compared_as_what_they_show(tmp_path: Path, layout: str) -> None:
    def dark(seq: Sequence, obs: Observation) -> tuple[Sequence, Observation]:
        rgb = np.array(obs.frames["front"].rgb)
        rgb[5:] = rgb[5:] // 2
        return seq, replace(obs, frames={"front": replace(obs.frames["front"], rgb=rgb)})

    args: dict[str, Any] = {"media": "video", "codec": "h264", "format": layout, "gop": 1}
    found = compared(tmp_path, dark, **args)
    assert found.state_equal
    assert found.diverged is not None
    frames = {d.place: d.frame for d in found.differences if d.frame is not None}
    if layout == "interndata-n1":
        assert {frame for place, frame in frames.items() if place.startswith("rgb/")} == {5, 6, 7, 8}
        assert "videos/observation.video.depth.mp4" not in frames
    else:
        assert set(frames) == {"videos/observation.images.front.mp4"}
        assert frames["videos/observation.images.front.mp4"] in range(6), "rate control may look ahead"
    assert (found.diverged.amount or 0) > 40


def test_a_piece_of_another_length_parts_where_one_of_them_ends(tmp_path: Path) -> None:
    one = stored(tmp_path / "one")
    seq = make_sequence(LENGTH + 2)
    seq = replace(
        seq,
        states={"observation.state": Feature(np.concatenate([make_sequence(LENGTH).states["observation.state"].values,
                                                             np.zeros((2, 3))]), ("x", "y", "yaw"))},
    )  # fmt: skip
    other = tmp_path / "other"
    piece = make_writer(media="image").save_data(seq, make_observation(seq), make_episode(other, seq=seq))
    found = compare_pieces(one, (other, piece.folder))
    (state_column,) = [d for d in found.differences if d.place.endswith("observation.state")]
    assert (state_column.frame, state_column.what) == (LENGTH, "has 11 frames instead of 9")
    assert not state_column.tolerated


def test_columns_and_files_that_come_and_go_are_different_without_a_frame(tmp_path: Path) -> None:
    def other_column(seq: Sequence, obs: Observation) -> tuple[Sequence, Observation]:
        feature = seq.states["observation.state"]
        return replace(seq, states={"observation.pose": feature}), replace(obs, files={"notes.txt": b"new"})

    found = compared(tmp_path, other_column)
    said = {str(difference) for difference in found.differences}
    assert {
        "data.parquet: observation.pose is new",
        "data.parquet: observation.state was not made",
        "files/notes.txt is new",
    } <= said
    assert verdict(tmp_path, found) == ("different", "came out DIFFERENT from what is committed")


@pytest.mark.parametrize(("by", "word"), [(1e-9, "equal_within"), (0.5, "different")])
def test_numbers_of_the_record_are_compared_like_those_of_columns(tmp_path: Path, by: float, word: str) -> None:
    def longer(seq: Sequence, obs: Observation) -> tuple[Sequence, Observation]:
        return replace(seq, notes={**seq.notes, "path_length_m": seq.notes["path_length_m"] + by}), obs

    found = compared(tmp_path, longer)
    (difference,) = found.differences
    assert difference.place == "episode.json: facts.notes.path_length_m"
    assert difference.amount == pytest.approx(by, rel=1e-3)
    assert verdict(tmp_path, found)[0] == word


def test_lines_of_labels_are_compared_by_frame(tmp_path: Path) -> None:
    def labelled(shift: float) -> Change:
        lines = [orjson.dumps({"frame_index": frame, "box": [1, 2 + shift * (frame >= 3)]}) for frame in range(5)]
        return lambda seq, obs: (seq, replace(obs, files={"labels.jsonl": b"\n".join(lines)}))

    one, other = stored(tmp_path / "one", labelled(0)), stored(tmp_path / "other", labelled(0.5))
    (difference,) = compare_pieces(one, other).differences
    assert (difference.place, difference.frame) == ("files/labels.jsonl: line 4.box", 3)
    assert difference.amount == 0.5


@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=3, max_side=6), elements=st.floats(-1e3, 1e3)),
    st.data(),
)
def test_the_frame_and_the_amount_are_those_that_were_changed(
    values: np.ndarray[Any, Any], data: st.DataObject
) -> None:
    frame = data.draw(st.integers(0, len(values) - 1))
    other = values.copy()
    place = (frame, *(data.draw(st.integers(0, size - 1)) for size in values.shape[1:]))
    other[place] += 4096.0
    assert rows_difference("x", values, values.copy(), 0.0) is None
    found = rows_difference("x", values, other, 1e-6)
    assert found is not None
    assert (found.frame, found.tolerated) == (frame, False)
    assert found.amount == pytest.approx(4096.0)
    loose = rows_difference("x", values, other, 5000.0)
    assert loose is not None
    assert (loose.frame, loose.tolerated) == (frame, True)


def test_numbers_that_are_none_are_equal_to_each_other_alone() -> None:
    rows = np.array([[1.0, math.nan], [math.inf, 2.0]])
    assert rows_difference("x", rows, rows.copy(), 0.0) is None
    found = rows_difference("x", rows, np.array([[1.0, math.nan], [math.inf, math.nan]]), 1e9)
    assert found is not None
    assert (found.frame, found.amount, found.tolerated) == (1, math.inf, False)


def test_what_is_no_number_in_json_is_never_tolerated() -> None:
    one = {"a": {"b": {"c": [1.0, "x"]}, "d": 1, "e": True}}
    assert list(json_differences(one, {"a": {"b": {"c": [1.0, "x"]}, "d": 1.0, "e": True}}, "it", 0.0)) == []
    (within,) = json_differences(one, {"a": {"b": {"c": [1.0 + 1e-9, "x"]}, "d": 1, "e": True}}, "it", 1e-6)
    assert (within.place, within.tolerated) == ("it.a.b", True)
    (text,) = json_differences(one, {"a": {"b": {"c": [1.0, "y"]}, "d": 1, "e": True}}, "it", 1e6)
    assert (text.place, text.what, text.tolerated) == ("it.a.b", "differs", False)
    (truth,) = json_differences(one, {"a": {"b": {"c": [1.0, "x"]}, "d": 1, "e": 0}}, "it", 1e6)
    assert truth.place == "it.a.e"


def test_what_is_configured_otherwise_is_named_down_to_the_argument_and_the_package() -> None:
    then = {"seed": 3, "components": {"plan": {"name": "P", "version": "1.0.0", "args": {"a": 1, "b": [1, 2]}}}}
    plan = {"name": "P", "version": "1.1.0", "args": {"a": 1, "b": [1, 3], "c": None}}
    now = {"seed": 4, "randomize_every": 0, "components": {"plan": plan}}
    old, new = {"numpy": "1.26", "bpy": "4.5", "python": "3.11"}, {"numpy": "2.0", "python": "3.11", "torch": "2"}
    assert configuration_changes(then, now, old, new) == [
        "seed: 3 on record, 4 now",
        "components.plan.version: 1.0.0 on record, 1.1.0 now",
        "components.plan.args.b: [1, 2] on record, [1, 3] now",
        "package bpy: 4.5 on record, none now",
        "package numpy: 1.26 on record, 2.0 now",
        "package torch: none on record, 2 now",
    ]
    assert configuration_changes(then, then, {}, new) == [], "what is not on record is not compared"
