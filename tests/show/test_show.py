from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from click.testing import CliRunner
from PIL import Image

from nimbusd.cli.show import show
from nimbusd.show import draw_sheet, episode_view, floor_map, sample
from nimbusd.show.palette import NO_DEPTH, category_color, instance_color, paint_depth, paint_instances
from nimbusd.stages.registry import create
from nimbusd.stages.store.read import open_dataset
from nimbusd.stages.types import (
    Camera,
    CameraFrames,
    Episode,
    EpisodeRequest,
    Feature,
    Label,
    Observation,
    Room,
    Scene,
    Sequence,
)
from tests.support.box_room import CAMERA_HEIGHT_M, CATEGORIES, FURNITURE, INTRINSICS, ROOM_M, SIZE, view

FRAMES = 8


def publish(output: Path, format_name: str, episodes: int = 2) -> Path:
    """A dataset of the box room, written by the real writer."""
    seen = view(FRAMES)
    assert seen.depth_m is not None
    assert seen.instance is not None
    camera = Camera("front", *SIZE, *INTRINSICS)
    mounting = np.eye(4)
    mounting[2, 3] = CAMERA_HEIGHT_M
    state = Feature(seen.T_world_camera[:, :2, 3].astype(np.float32), ("x", "y"))
    sequence = Sequence(
        seen.fps,
        "Walk round the table.",
        (camera,),
        {"front": seen.T_world_camera},
        {"front": mounting},
        {"observation.state": state},
        {"action": state},
    )
    frames = CameraFrames(seen.rgb, seen.depth_m, seen.instance, np.minimum(seen.instance, 9))
    labels = tuple(Label(number, number, f"{name}_{number}", name) for number, name in CATEGORIES.items())
    scene = Scene("box_room", (), rooms=(Room("living_room", "livingroom", seen.rooms[0].polygon),))
    writer = create("NavWriter", "store", {"format": format_name})
    output.mkdir(parents=True, exist_ok=True)
    pieces = []
    for index in range(episodes):
        episode = Episode(EpisodeRequest("toy", "box_room", index), output, scene=scene)
        pieces.append(writer.save_data(sequence, Observation({"front": frames}, labels), episode))
    writer.publish(output, pieces, {"name": "toy", "seed": 0}, True)
    writer.close()
    return output


@pytest.mark.parametrize("format_name", ["lerobot-v3.0", "lerobot-v2.1", "interndata-n1"])
def test_a_dataset_of_any_format_is_summed_up_and_drawn(tmp_path: Path, format_name: str) -> None:
    output, sheet = publish(tmp_path / "toy", format_name), tmp_path / "pictures/sheet.png"
    result = CliRunner().invoke(show, [str(output), "--output", str(sheet), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    summary = orjson.loads(result.stdout)
    assert summary["format"] == format_name
    assert (summary["episodes"], summary["frames"], summary["fps"]) == (2, 2 * FRAMES, 5.0)
    assert summary["scenes"] == {"box_room": 2}
    assert summary["cameras"] == {"front": list(SIZE)}
    assert summary["tasks"] == {"Walk round the table.": 2}
    assert summary["size_bytes"] > 1000
    with Image.open(sheet) as image:
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 500


def test_a_camera_that_stays_gives_more_moments_and_the_other_cameras_instead_of_a_map() -> None:
    moving = view(FRAMES)
    still = replace(moving, T_world_camera=np.repeat(moving.T_world_camera[:1], FRAMES, axis=0))
    beside = replace(still, beside={"wrist": moving.rgb[:, :32]})
    assert still.is_still
    assert not moving.is_still
    alone, both, mapped = (draw_sheet("toy", "", [seen]) for seen in (still, beside, moving))
    assert both.height > alone.height + 30
    assert alone.width > mapped.width
    assert draw_sheet("toy", "", [replace(moving, beside=beside.beside)]).tobytes() == mapped.tobytes()


def test_the_dataset_folder_and_the_output_folder_show_the_same(tmp_path: Path) -> None:
    output = publish(tmp_path / "toy", "lerobot-v3.0", episodes=1)
    sheets = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, sheet in zip((output, output / "dataset"), sheets, strict=True):
        assert CliRunner().invoke(show, [str(path), "--output", str(sheet)], catch_exceptions=False).exit_code == 0
    assert sheets[0].read_bytes() == sheets[1].read_bytes()


def test_a_stored_episode_gives_the_map_of_the_room_it_was_seen_in(tmp_path: Path) -> None:
    stored = episode_view(open_dataset(publish(tmp_path, "lerobot-v3.0", episodes=1)), 0, "front")
    seen, expected = floor_map(stored), floor_map(view(FRAMES))
    assert seen.blocked.shape == expected.blocked.shape
    assert (seen.blocked != expected.blocked).mean() < 0.002  # depth is stored in steps of 0.1 mm
    assert stored.rooms[0].name == "living_room"


def test_a_folder_without_a_dataset_is_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(show, [str(tmp_path)])
    assert result.exit_code == 1
    assert "holds no dataset" in result.output


def test_an_unknown_camera_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(show, [str(publish(tmp_path, "lerobot-v3.0", episodes=1)), "--camera", "back"])
    assert result.exit_code == 2
    assert "there is no camera 'back'; there are: front" in result.output


def test_the_map_measures_the_cameras_height_above_the_floor() -> None:
    assert floor_map(view(24)).floor_below_camera_m == pytest.approx(CAMERA_HEIGHT_M, abs=0.005)


def test_obstacles_on_the_map_are_where_the_furniture_and_the_walls_are() -> None:
    floor = floor_map(view(24))
    rows, columns = np.nonzero(floor.blocked)
    x = floor.origin_m[0] + (columns + 0.5) * floor.cell_m
    y = floor.origin_m[1] - (rows + 0.5) * floor.cell_m
    slack = floor.cell_m
    at_wall = (x < slack) | (x > ROOM_M[0] - slack) | (y < slack) | (y > ROOM_M[1] - slack)
    in_furniture = np.zeros(len(x), bool)
    for (low_x, low_y, _), (high_x, high_y, _) in FURNITURE.values():
        in_furniture |= (x > low_x - slack) & (x < high_x + slack) & (y > low_y - slack) & (y < high_y + slack)
    assert (at_wall | in_furniture).all()
    assert set(np.unique(floor.instance[floor.blocked])) >= set(FURNITURE)


def test_the_path_lies_on_free_cells_of_the_map() -> None:
    seen = view(24)
    floor = floor_map(seen)
    columns, rows = floor.pixels(seen.T_world_camera[:, :2, 3]).astype(int).T
    assert floor.free[rows, columns].all()
    assert not floor.blocked[rows, columns].any()


def test_an_episode_without_depth_and_segmentation_still_has_a_sheet() -> None:
    bare = replace(view(3), depth_m=None, instance=None, rooms=())
    assert draw_sheet("bare", "", [bare]).height < draw_sheet("full", "", [view(3)]).height


def test_an_episode_that_stands_still_has_a_sheet() -> None:
    assert draw_sheet("still", "", [view(1)]).width > 1000


def test_colours_tell_categories_and_instances_apart_and_never_change() -> None:
    assert len({category_color(name) for name in ("chair", "table", "sofa", "bed", "wall", "floor", "spaceship")}) == 7
    assert instance_color("chair", 3) != instance_color("chair", 4)
    assert category_color("spaceship") == category_color("spaceship")
    ids = np.zeros((4, 4), np.uint16)
    ids[:, 2:] = 7
    painted = paint_instances(ids, {7: "sofa"})
    assert tuple(painted[0, 0]) == (0, 0, 0)
    assert tuple(painted[0, 3]) == instance_color("sofa", 7)


def test_depth_grows_darker_with_distance_and_no_reading_is_black() -> None:
    painted = paint_depth(np.array([0.0, 0.1, 1.0, 2.0, 3.0, 9.0], np.float32), 3.0)
    assert tuple(painted[0]) == NO_DEPTH
    lightness = painted[1:].astype(int).sum(axis=1)
    assert (np.diff(lightness) <= 0).all()
    assert tuple(painted[4]) == tuple(painted[5])


def test_a_sample_of_episodes_is_spread_over_all() -> None:
    assert sample(8, 3) == [0, 2, 5]
    assert sample(2, 3) == [0, 1]
    assert sample(0, 3) == []
