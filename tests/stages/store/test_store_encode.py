"""Encoders, columns and statistics against independent implementations."""

from __future__ import annotations

import io
import os
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from nimbusd.stages import Feature, StoreError
from nimbusd.stages.store.columns import INDEX_COLUMNS, feature_column, parquet_bytes, schema
from nimbusd.stages.store.conventions import DEPTH_LIMIT_M, counts_to_depth, depth_to_counts
from nimbusd.stages.store.encode import (
    VideoSettings,
    _fraction,
    decode_image,
    decode_video,
    encode_jpeg,
    encode_png,
    encode_video,
    join_videos,
    video_facts,
    video_times,
)
from nimbusd.stages.store.stats import QUANTILES, image_stats, merge_stats, sample_frames, vector_stats
from tests.support.store_makers import textured_frames

SIDES = st.integers(1, 20)


def no_beat() -> None:
    pass


@given(st.data(), st.sampled_from([np.uint8, np.uint16]), st.booleans())
def test_png_holds_exactly_the_pixels(data: st.DataObject, dtype: type[np.generic], color: bool) -> None:
    shape = data.draw(st.tuples(SIDES, SIDES).map(lambda side: (*side, 3) if color else side))
    pixels = data.draw(hnp.arrays(dtype, shape))
    if not (color and dtype is np.uint16):  # Pillow has no mode for it
        with Image.open(io.BytesIO(encode_png(pixels))) as image:
            image.load()
            np.testing.assert_array_equal(np.asarray(image), pixels)
            assert image.format == "PNG"
        np.testing.assert_array_equal(decode_image(encode_png(pixels)), pixels)
    assert encode_png(pixels) == encode_png(np.asfortranarray(pixels))


def test_png_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(ValueError, match="float32"):
        encode_png(np.zeros((2, 2), np.float32))  # type: ignore[arg-type]


def test_jpeg_is_close_to_the_pixels() -> None:
    pixels = textured_frames(1, 64, 96)[0]
    shown = decode_image(encode_jpeg(pixels))
    assert np.abs(shown.astype(int) - pixels).mean() < 3


@given(hnp.arrays(np.float32, (4, 5), elements=st.floats(-1, 20, width=32) | st.sampled_from([np.nan, np.inf])))
def test_depth_survives_within_half_a_count(depth: np.ndarray[Any, Any]) -> None:
    back = counts_to_depth(depth_to_counts(depth))
    valid = np.isfinite(depth) & (depth > 0)
    expected = np.where(valid, np.clip(depth, 0, DEPTH_LIMIT_M), 0)
    assert np.abs(back - expected).max() <= 0.51e-4


@pytest.mark.parametrize("codec", ["av1", "h264"])
@pytest.mark.parametrize("fps", [6.0, 30.0, 30000 / 1001])
def test_video_frames_are_at_multiples_of_the_frame_time(tmp_path: Path, codec: Any, fps: float) -> None:
    frames = textured_frames(9, 64, 96)
    beats: list[int] = []
    content = encode_video(frames, fps, VideoSettings(codec, preset=None), lambda: beats.append(1))
    (tmp_path / "v.mp4").write_bytes(content)
    np.testing.assert_allclose(video_times(tmp_path / "v.mp4"), np.arange(9) / fps, atol=1e-6)
    shown = decode_video(tmp_path / "v.mp4", 0, 9, fps)
    assert np.abs(shown.astype(int) - frames).mean() < 8
    assert len(beats) == 9
    facts = video_facts(content)
    assert (facts["video.codec"], facts["video.height"], facts["video.width"]) == (codec, 64, 96)
    assert facts["video.fps"] == pytest.approx(fps)


@pytest.mark.parametrize("codec", ["av1", "h264"])
def test_joined_videos_show_the_same_pixels_at_exact_times(tmp_path: Path, codec: Any) -> None:
    parts, shown = [], []
    for number, length in enumerate((3, 8, 1, 5)):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(encode_video(textured_frames(length, 64, 96, number), 7, VideoSettings(codec), no_beat))
        parts.append(path)
        shown.append(decode_video(path, 0, length, 7))
    (tmp_path / "all.mp4").write_bytes(join_videos(parts, 7))
    np.testing.assert_allclose(video_times(tmp_path / "all.mp4"), np.arange(17) / 7, atol=1e-6)
    np.testing.assert_array_equal(decode_video(tmp_path / "all.mp4", 0, 17, 7), np.concatenate(shown))
    np.testing.assert_array_equal(decode_video(tmp_path / "all.mp4", 11, 1, 7), shown[2])
    assert join_videos(parts, 7) == join_videos(parts, 7)


def test_videos_of_different_sizes_are_not_joined(tmp_path: Path) -> None:
    for name, size in (("a", 64), ("b", 96)):
        (tmp_path / name).write_bytes(encode_video(textured_frames(2, size, 96), 5, VideoSettings("h264"), no_beat))
    with pytest.raises(StoreError, match="the others are"):
        join_videos([tmp_path / "a", tmp_path / "b"], 5)


@pytest.mark.parametrize("codec", ["av1", "h264"])
def test_no_thread_becomes_real_time_while_a_video_is_encoded_nor_later(codec: Any) -> None:
    """SVT-AV1 does so where root runs it; the watchdog and the daemons would then wait for it."""
    seen: set[int] = set()

    def look() -> None:
        seen.update(os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task"))

    encode_video(textured_frames(5, 64, 64), 30, VideoSettings(codec), look)
    look()
    assert seen
    assert not seen & {os.SCHED_FIFO, os.SCHED_RR}


def test_a_size_that_the_codec_refuses_is_an_error_with_the_way_out() -> None:
    with pytest.raises(StoreError, match="even sizes"):
        encode_video(textured_frames(2, 65, 97), 5, VideoSettings("h264"), no_beat)


SAMPLES = hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=3), elements=st.floats(-1e4, 1e4, width=32))


@given(SAMPLES)
def test_vector_statistics_are_numpys(values: np.ndarray[Any, Any]) -> None:
    stats, exact = vector_stats(values), values.astype(np.float64)
    for name, expected in {
        "min": exact.min(0),
        "max": exact.max(0),
        "mean": exact.mean(0),
        "std": exact.std(0),
        **{name: np.quantile(exact, q, axis=0) for name, q in QUANTILES.items()},
    }.items():
        np.testing.assert_allclose(stats[name], expected, rtol=1e-9, atol=1e-9)
        assert np.isfinite(stats[name]).all()
    assert (stats["min"] <= stats["mean"]).all()
    assert (stats["mean"] <= stats["max"]).all()
    assert stats["count"].tolist() == [len(values)]


@settings(max_examples=30)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), SIDES, SIDES, st.just(3))))
def test_image_statistics_are_numpys_per_channel_in_0_to_1(frames: np.ndarray[Any, Any]) -> None:
    stats, exact = image_stats(frames), frames.reshape(-1, 3) / 255
    for name, expected in {
        "min": exact.min(0),
        "max": exact.max(0),
        "mean": exact.mean(0),
        "std": exact.std(0),
        **{name: np.quantile(exact, q, axis=0) for name, q in QUANTILES.items()},
    }.items():
        assert stats[name].shape == (3, 1, 1)
        np.testing.assert_allclose(stats[name].ravel(), expected, atol=1e-9)


def test_large_images_and_long_episodes_are_sampled() -> None:
    assert sample_frames(1) == [0]
    assert sample_frames(100) == list(range(100))
    assert len(sample_frames(2000)) == 299
    assert sample_frames(2000)[-1] == 1999
    frames = np.zeros((1, 300, 600, 3), np.uint8)
    frames[:, 1::4] = 255  # rows that a stride of four does not touch
    assert image_stats(frames)["max"].max() == 0


@given(
    st.lists(hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.just(2)), elements=st.floats(-9, 9)), min_size=1)
)
def test_merged_statistics_are_those_of_all_samples(parts: list[np.ndarray[Any, Any]]) -> None:
    merged, whole = merge_stats([vector_stats(part) for part in parts]), vector_stats(np.concatenate(parts))
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(merged[name], whole[name], atol=1e-7)
    for name in QUANTILES:
        assert (merged["min"] <= merged[name]).all()
        assert (merged[name] <= merged["max"]).all()


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=4),
    ).filter(lambda values: bool((np.abs(values.astype(np.float64)) < 1e38).all()))
)
def test_columns_hold_exactly_the_values(values: np.ndarray[Any, Any]) -> None:
    column, rows = feature_column("x", Feature(values))
    table = pa.Table.from_arrays([column.array(rows)], schema=schema([column]))
    back = pq.read_table(pa.BufferReader(parquet_bytes(table)))
    cells = np.array(back.column("x").to_pylist(), column.dtype).reshape(rows.shape)
    np.testing.assert_array_equal(cells, values.astype(column.dtype).reshape(rows.shape))
    assert column.dtype in ("float32", "int64", "bool")


@pytest.mark.parametrize(
    ("key", "feature", "words"),
    [
        ("a/b", Feature(np.zeros(3)), "'/'"),
        ("timestamp", Feature(np.zeros(3)), "own column names"),
        ("x", Feature(np.array([1.0, np.nan])), "not finite"),
        ("x", Feature(np.array([1e300])), "not finite"),
        ("x", Feature(np.array(["text"])), "dtype"),
        ("x", Feature(np.zeros((3, 0))), "shape"),
        ("x", Feature(np.zeros((3, 2)), ("one",)), "1 names for 2 values"),
    ],
)
def test_a_feature_that_cannot_be_stored_is_refused_by_name(key: str, feature: Feature, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        feature_column(key, feature)


def test_the_schema_carries_types_for_the_datasets_package() -> None:
    import json

    columns = [
        feature_column("pose", Feature(np.zeros((2, 4, 4))))[0],
        feature_column("v", Feature(np.zeros((2, 7))))[0],
    ]
    stated = json.loads(schema([*columns, *INDEX_COLUMNS]).metadata[b"huggingface"])["info"]["features"]
    assert stated["pose"] == {"shape": [4, 4], "dtype": "float32", "_type": "Array2D"}
    assert stated["v"] == {"feature": {"dtype": "float32", "_type": "Value"}, "length": 7, "_type": "List"}
    assert stated["index"] == {"dtype": "int64", "_type": "Value"}


def test_ratios_that_are_no_numbers_are_taken_for_what_they_are() -> None:
    """PyAV 19 has a class of its own for them, without int() and float()."""
    ratio = SimpleNamespace(numerator=30000, denominator=1001)
    assert _fraction(ratio) == _fraction(Fraction(30000, 1001)) == Fraction(30000, 1001)
