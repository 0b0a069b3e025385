"""Features of more than one axis: published as rows of numbers with names, read back in their own shape."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nimbusd.stages import Feature, Piece, StoreError
from nimbusd.stages.store.columns import Column, schema
from nimbusd.stages.store.formats.lerobot.content import DATA
from nimbusd.stages.store.formats.lerobot.flat import MOST_NAMED, FlatFeatures, flat_column
from nimbusd.stages.store.formats.lerobot_v21.build import write_v21
from nimbusd.stages.store.publish import Tree, publish_pieces, write_nimbusd_metadata
from nimbusd.stages.store.read import open_dataset
from nimbusd.stages.store.source_piece import SourcePiece
from nimbusd.stages.store.stats import vector_stats
from nimbusd.stages.store.verify.verify import verify_dataset
from tests.support.store_makers import JOB, lerobot_tree, make_episode, make_observation, make_sequence, make_writer

POSE = "observation.camera.front.T_world_camera"
GRID = "observation.grid"
HANDS = "observation.hands"


def stored_with_arrays(output: Path, **args: Any) -> tuple[Any, list[Piece], list[np.ndarray[Any, Any]]]:
    """A writer, two pieces with features of three and of two axes, and the values of the former."""
    writer, pieces, grids = make_writer(codec="h264", **args), [], []
    for index in range(2):
        seq = make_sequence(8 + index, seed=index)
        grid = np.random.default_rng(index).random((8 + index, 2, 3, 4)).astype(np.float32)
        hands = Feature(np.arange((8 + index) * 6).reshape(-1, 2, 3), ("left", "right"))
        seq = replace(seq, states={**seq.states, GRID: Feature(grid), HANDS: hands})
        episode = make_episode(output, index, seq=seq)
        pieces.append(writer.save_data(seq, make_observation(seq), episode))
        grids.append(grid)
    return writer, pieces, grids


@pytest.mark.parametrize("layout", ["lerobot-v3.0", "lerobot-v2.1", "interndata-n1"])
def test_arrays_are_published_as_rows_of_numbers_and_read_back_in_their_shape(tmp_path: Path, layout: str) -> None:
    writer, pieces, grids = stored_with_arrays(tmp_path, format=layout)
    dataset = open_dataset(writer.publish(tmp_path, pieces, JOB, True))
    assert verify_dataset(tmp_path, pieces) == []
    own = {"observation.camera_intrinsic", "observation.camera_extrinsic", "action"} if "n1" in layout else set()
    numbers = {key: entry for key, entry in dataset.features.items() if entry["dtype"] not in ("video", "image")}
    assert {key for key, entry in numbers.items() if len(entry["shape"]) > 1} == own
    assert numbers[HANDS]["names"] == ["left.0", "left.1", "left.2", "right.0", "right.1", "right.2"]
    assert (numbers[GRID]["shape"], numbers[GRID]["names"][-1]) == ([24], "m123")
    for index, grid in enumerate(grids):
        episode = dataset.episode(index)
        np.testing.assert_array_equal(episode.states[GRID], grid)
        assert episode.states[HANDS].shape == (8 + index, 2, 3)
        assert episode.T_world_camera["front"].shape == (8 + index, 4, 4)
    for _, stats in lerobot_tree(dataset).statistics():
        for key, entry in numbers.items():
            assert np.shape(stats[key]["mean"]) == tuple(entry["shape"])
    (_, of_first) = next((place, s) for place, s in lerobot_tree(dataset).statistics() if place == "episode 0")
    np.testing.assert_allclose(of_first[GRID]["mean"], grids[0].reshape(8, -1).mean(axis=0), rtol=1e-6)
    read = orjson.loads((dataset.trees[0].root / "meta/conventions.json").read_bytes())
    assert read["shapes"] == ({} if own else {POSE: [4, 4]}) | {GRID: [2, 3, 4], HANDS: [2, 3]}


def test_a_dataset_of_before_with_nested_lists_is_read_and_verified_all_the_same(tmp_path: Path) -> None:
    writer, pieces, grids = stored_with_arrays(tmp_path, format="lerobot-v2.1")

    def build(root: Path, stored: list[SourcePiece]) -> None:
        """A dataset as it was written up to schema version 1.1.0."""
        tree = Tree(root)
        every = [column.key for column in stored[0].columns]
        write_v21(tree, stored, chunk_episodes=1000, stats_extra=[{} for _ in stored], whole=every)
        write_nimbusd_metadata(tree, stored, JOB, {"annotations_path": "annotations/{chunk}_{episode}.parquet"})
        tree.finish()

    dataset = open_dataset(publish_pieces(tmp_path, pieces, "lerobot-v2.1", build, final=True))
    assert verify_dataset(tmp_path, pieces) == []
    assert dataset.features[POSE]["shape"] == [4, 4]
    np.testing.assert_array_equal(dataset.episode(1).states[GRID], grids[1])
    before = dataset.episode(1).T_world_camera["front"]
    again = open_dataset(writer.publish(tmp_path, pieces, JOB, True))
    assert again.features[POSE]["shape"] == [16], "the same pieces, published anew"
    np.testing.assert_array_equal(again.episode(1).T_world_camera["front"], before)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [({POSE: [4, 3]}, r"is \[4, 3\], but info.json has \[16\]"), ({"observation.none": [2, 2]}, "which is no feature")],
)
def test_a_shape_that_does_not_fit_its_feature_is_a_fault(
    tmp_path: Path, shapes: dict[str, list[int]], words: str
) -> None:
    writer, pieces, _ = stored_with_arrays(tmp_path)
    root = writer.publish(tmp_path, pieces, JOB, True).resolve()
    stated = json.loads((root / "meta/conventions.json").read_text())
    (root / "meta/conventions.json").write_text(json.dumps(stated | {"shapes": stated["shapes"] | shapes}))
    assert [fault for fault in verify_dataset(root) if re.search(words, fault)]
    if POSE in shapes:
        with pytest.raises(StoreError, match=r"episode 0 of .* cannot be read"):
            open_dataset(root).episode(0)


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.int64, np.bool_]),
        hnp.array_shapes(min_dims=2, max_dims=4, max_side=5),
        elements={"allow_nan": False, "allow_infinity": False},
    )
)
def test_flat_tables_hold_the_numbers_in_the_order_of_their_names(values: np.ndarray[Any, Any]) -> None:
    column = Column("x", str(values.dtype), values.shape[1:])
    table = pa.Table.from_arrays([column.array(values)], schema=schema([column]))
    flat = FlatFeatures([column])
    (now,) = flat.columns
    made = flat.table(table, "piece")
    if values.ndim == 2:
        assert (now, made, flat.shapes) == (column, table, {})
        return
    assert made.schema.field("x").type == now.arrow_type()
    assert now.shape == (prod(column.shape),)
    np.testing.assert_array_equal(np.array(made["x"].to_pylist()).reshape(values.shape), values)
    assert now.names is not None
    assert now.names == tuple("m" + "".join(map(str, place)) for place in np.ndindex(column.shape))
    stats = flat.stats({"x": vector_stats(values)})["x"]
    for name, value in vector_stats(values.reshape(len(values), -1)).items():
        np.testing.assert_array_equal(stats[name], value)


def test_names_stay_distinct_where_an_axis_has_more_than_ten_places_and_end_where_there_are_too_many() -> None:
    names = flat_column(Column("x", "float32", (2, 12))).names
    assert names is not None
    assert (names[0], names[-1], len(set(names))) == ("m_0_0", "m_1_11", 24)
    assert flat_column(Column("x", "float32", (MOST_NAMED, 2))).names is None


@pytest.mark.parametrize("rows", [[[[1.0, 2.0]], [[3.0, 4.0]]], [[[1.0, 2.0], None], [[3.0, 4.0], [5.0, 6.0]]]])
def test_a_piece_whose_lists_are_not_of_the_features_shape_is_refused(rows: Any) -> None:
    column = Column("x", "float32", (2, 2))
    table = pa.table({"x": pa.array(rows, column.arrow_type())})
    with pytest.raises(StoreError, match=r"piece p: x is not \[2, 2\] numbers in every row. Make the episode again"):
        FlatFeatures([column]).table(table, "piece p")


def test_pieces_keep_the_shape_that_was_planned(tmp_path: Path) -> None:
    _, pieces, grids = stored_with_arrays(tmp_path)
    table = pq.read_table(tmp_path / ".pieces" / pieces[0].folder / DATA)
    np.testing.assert_array_equal(np.array(table[GRID].to_pylist(), np.float32), grids[0])
