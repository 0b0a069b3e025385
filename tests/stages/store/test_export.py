"""Annotations in other formats: exact values for masks that are known in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nimbusd.cli import cli
from nimbusd.stages import Camera, CameraFrames, Episode, EpisodeRequest, Label, Observation, Sequence
from nimbusd.stages.store.encode import decode_image
from nimbusd.stages.store.export import run_lengths
from nimbusd.stages.store.writers.env import EnvWriter, EnvWriterArgs
from nimbusd.stages.types import BoolArray, Feature

CAMERA = Camera("cam", 64, 48, 50.0, 52.0, 31.0, 25.0)
DISTANCE_M, RADIUS_M = 2.0, 0.5
BOX_M = ((-0.4, -0.3), (0.2, 0.3))
LABELS = (Label(3, 12, "ball_0", "ball"), Label(8, 40, "crate_0", "crate"))


def rays() -> tuple[Any, Any]:
    """x / depth and y / depth of every pixel's centre, y upwards."""
    u, v = np.meshgrid(np.arange(CAMERA.width) + 0.5, np.arange(CAMERA.height) + 0.5)
    return (u - CAMERA.cx) / CAMERA.fx, -(v - CAMERA.cy) / CAMERA.fy


def ball_mask() -> BoolArray:
    """Pixels whose ray hits a ball straight ahead."""
    x, y = rays()
    below = 1 + x * x + y * y
    return np.asarray(DISTANCE_M**2 / below >= DISTANCE_M**2 - RADIUS_M**2)


def crate_mask() -> BoolArray:
    """Pixels that show an upright board at the same distance."""
    x, y = (value * DISTANCE_M for value in rays())
    (x0, y0), (x1, y1) = BOX_M
    return np.asarray((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three frames: a ball, a board, nothing."""
    output = tmp_path_factory.mktemp("export")
    ids = np.stack([ball_mask() * 3, crate_mask() * 8, np.zeros((48, 64))]).astype(np.uint16)
    rgb = np.stack([ids % 251] * 3, axis=-1).astype(np.uint8)
    depth = np.where(ids > 0, DISTANCE_M, 0).astype(np.float32)
    pose = np.tile(np.eye(4), (3, 1, 1))
    seq = Sequence(
        10.0, "look", (CAMERA,), {"cam": pose}, {"cam": np.eye(4)}, {"observation.state": Feature(np.zeros(3))}, {}
    )
    writer = EnvWriter(EnvWriterArgs(media="image"))
    obs = Observation({"cam": CameraFrames(rgb, depth, ids, ids)}, LABELS)
    piece = writer.save_data(seq, obs, Episode(EpisodeRequest("job", "room", 0), output))
    writer.publish(output, [piece], {}, True)
    return output


def exported(dataset: Path, out: Path, kind: str, *more: str) -> Path:
    done = CliRunner().invoke(cli, ["export", str(dataset), "--format", kind, "--out", str(out), *more])
    assert done.exit_code == 0, done.output
    return out


def from_runs(counts: list[int], size: list[int]) -> BoolArray:
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return values.reshape(size, order="F")


def test_coco_boxes_areas_and_masks_are_those_of_the_geometry(dataset: Path, tmp_path: Path) -> None:
    out = exported(dataset, tmp_path / "coco", "coco")
    content = orjson.loads((out / "annotations.json").read_bytes())
    assert [image["file_name"] for image in content["images"]] == [f"000000_cam_{n:06d}.png" for n in range(3)]
    assert content["categories"] == [
        {"id": 12, "name": "ball", "supercategory": ""},
        {"id": 40, "name": "crate", "supercategory": ""},
    ]
    ball, crate = content["annotations"]
    assert (ball["image_id"], ball["category_id"], crate["image_id"], crate["category_id"]) == (1, 12, 2, 40)
    assert (from_runs(**ball["segmentation"]) == ball_mask()).all()
    assert (from_runs(**crate["segmentation"]) == crate_mask()).all()
    assert ball["area"] == int(ball_mask().sum())
    (x0, y0), (x1, y1) = BOX_M
    left, right = CAMERA.cx + np.array([x0, x1]) * CAMERA.fx / DISTANCE_M
    top, bottom = CAMERA.cy - np.array([y1, y0]) * CAMERA.fy / DISTANCE_M
    assert np.abs(np.array(crate["bbox"]) - [left, top, right - left, bottom - top]).max() <= 1
    assert crate["area"] == crate["bbox"][2] * crate["bbox"][3]


def test_kitti_lines_and_calibration_count_pixels_from_centres(dataset: Path, tmp_path: Path) -> None:
    coco = orjson.loads((exported(dataset, tmp_path / "coco", "coco") / "annotations.json").read_bytes())
    out = exported(dataset, tmp_path / "kitti", "kitti")
    fields = (out / "label_2/000000_cam_000001.txt").read_text().split()
    x, y, w, h = coco["annotations"][1]["bbox"]
    assert fields[0] == "crate"
    assert [float(value) for value in fields[4:8]] == [x, y, x + w - 1, y + h - 1]
    assert len(fields) == 15
    assert (out / "label_2/000000_cam_000002.txt").read_text() == ""
    name, *numbers = (out / "calib/000000_cam_000001.txt").read_text().split()
    assert name == "P2:"
    P2 = np.array([float(number) for number in numbers]).reshape(3, 4)
    point = np.array([0.3, 0.2, DISTANCE_M, 1.0])  # x right, y down, z forward
    u, v, w = P2 @ point
    assert u / w == pytest.approx(CAMERA.cx + CAMERA.fx * 0.15 - 0.5)
    assert v / w == pytest.approx(CAMERA.cy + CAMERA.fy * 0.1 - 0.5)


@pytest.mark.parametrize("kind", ["coco", "kitti"])
def test_depth_and_ids_are_16_bit_images_with_a_table(dataset: Path, tmp_path: Path, kind: str) -> None:
    out = exported(dataset, tmp_path / kind, kind)
    name = "000000_cam_000000.png"
    ids = decode_image((out / "segmentation" / name).read_bytes())
    assert ids.dtype == np.uint16
    assert (ids == ball_mask() * 3).all()
    depth = decode_image((out / "depth" / name).read_bytes())
    about = orjson.loads((out / "segmentation.json").read_bytes())
    assert (depth[ball_mask()] == DISTANCE_M * about["depth"]["counts_per_m"]).all()
    table = about["tables"][about["table_of_frame"]["000000_cam_000000"]]
    assert table["3"] == {"name": "ball_0", "category": "ball"}


def test_frames_can_be_thinned_out(dataset: Path, tmp_path: Path) -> None:
    out = exported(dataset, tmp_path / "coco", "coco", "--every", "2")
    assert len(list((out / "images").iterdir())) == 2


def test_a_folder_that_is_there_is_not_written_into(dataset: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["export", str(dataset), "--format", "coco", "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "is there already" in done.output


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 6))))
@settings(max_examples=100, deadline=None)
def test_run_lengths_say_the_mask(mask: BoolArray) -> None:
    counts = run_lengths(mask)
    assert sum(counts) == mask.size
    assert all(count > 0 for count in counts[1:])
    assert (from_runs(counts, list(mask.shape)) == mask).all()
