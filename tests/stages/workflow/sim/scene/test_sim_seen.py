"""Sight of a layout's things: rays against pictures, the examples' least, refusals, labels and notes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.workflow.sim import Layout, camera_poses, label_rows, parse_task, randomize_layout, seen_at_start
from nimbusd.stages.workflow.sim.models.objects import LIBRARY
from nimbusd.stages.workflow.sim.randomize.cameras import asked_of
from nimbusd.stages.workflow.sim.world.world import build_world
from tests.support.manip_worlds import require_simulation, task_of

require_simulation()

EXAMPLES = [
    task
    for path in sorted((Path(__file__).parents[5] / "examples" / "manipulation").glob("*.yaml"))
    for task in yaml.safe_load(path.read_text())["tasks"]
]
LEAST_SHARE = 0.001
LAYOUTS = 8


def seen_in(layout: Layout) -> dict[str, dict[str, int]]:
    start = build_world(layout).start[None]
    return seen_at_start(layout, start, camera_poses(layout, start))


@pytest.mark.parametrize("config", EXAMPLES, ids=lambda config: str(config["name"]))
def test_an_example_shows_its_things_in_a_still_camera_without_a_layout_being_thrown_away(
    config: dict[str, Any],
) -> None:
    task = parse_task({**config, "seen_share": 0})
    assert parse_task(config).seen_share == LEAST_SHARE
    for seed in range(LAYOUTS):
        layout = randomize_layout(task, np.random.default_rng(seed))
        seen = seen_in(layout)
        for name in asked_of(layout.objects, layout.regions, layout.goals, layout.skills):
            shares = {
                entry.name: seen[entry.name].get(name, 0) / (entry.camera.width * entry.camera.height)
                for entry in layout.cameras
                if not entry.mount
            }
            assert max(shares.values()) >= 1.5 * LEAST_SHARE, (seed, name, shares)


def test_rays_count_what_a_picture_shows() -> None:
    from nimbusd.renderers.mujoco.view import MujocoView, ViewSettings
    from nimbusd.renderers.stacked import render_stacked

    compared = 0
    for config in (EXAMPLES[0], EXAMPLES[-1]):
        layout = randomize_layout(parse_task(config), np.random.default_rng(1))
        start = build_world(layout).start[None]
        poses = camera_poses(layout, start)
        seen = seen_at_start(layout, start, poses)
        view = MujocoView(layout, "auto", ViewSettings(shadows=False, tolerance_m=0))
        try:
            for _, name, tile in render_stacked(view, start, [entry.camera for entry in layout.cameras], poses, 1):
                assert tile.instance is not None
                for entry in layout.objects:
                    pixels = int((tile.instance == entry.instance_id).sum())
                    assert seen[name].get(entry.name, 0) == pytest.approx(pixels, rel=0.08, abs=8), (name, entry.name)
                    compared += pixels > 100
        finally:
            view.close()
    assert compared > 6


SLOTS = [{"name": "cube", "models": ["cube"], "x_m": [0.45, 0.5], "y_m": [-0.05, 0.05]}]
PICK = [{"skill": "pick", "object": "$cube"}]
AWAY = {"name": "away", "position_m": [1.2, 0.0, 0.6], "target_m": [2.0, 0.0, 0.6]}


def test_a_task_whose_things_no_still_camera_shows_is_refused_with_a_reason_of_its_own() -> None:
    with pytest.raises(
        PlanningFailed, match=r"10 layouts would do, .* cube fills 0.000% of the picture of away"
    ) as caught:
        randomize_layout(task_of(PICK, SLOTS, cameras=[AWAY]), np.random.default_rng(0))
    assert caught.value.reason == "not_seen"
    randomize_layout(task_of(PICK, SLOTS, cameras=[AWAY], seen_share=0), np.random.default_rng(0))  # on purpose
    enough: list[list[dict[str, Any]]] = [[{"name": "wrist", "mount": "*"}], [AWAY, {"name": "front"}]]
    for cameras in enough:
        randomize_layout(task_of(PICK, SLOTS, cameras=cameras), np.random.default_rng(0))


def test_what_hides_behind_something_is_not_seen() -> None:
    board = {"name": "board", "models": ["cube"], "fixed": True, "size_m": [0.02, 0.5, 0.3], "yaw_rad": [0, 0],
            "x_m": [0.62, 0.62], "y_m": [0, 0]}  # fmt: skip
    camera = {"name": "front", "position_m": [1.4, 0.0, 0.1], "target_m": [0.4, 0.0, 0.05]}
    task = task_of(PICK, [board, *SLOTS], cameras=[camera], seen_share=0)
    seen = seen_in(randomize_layout(task, np.random.default_rng(0)))
    assert "cube" not in seen["front"]
    assert seen["front"]["board"] > 1000


def test_labels_say_what_one_sees_and_tell_floor_table_and_walls_apart() -> None:
    slots = [{"name": f"s{number}", "models": [key], "x_m": [0.3, 0.9], "y_m": [-0.7, 0.7]}
             for number, key in enumerate(LIBRARY)]  # fmt: skip
    regions = [{"name": "goal_area"}]
    task = task_of([{"skill": "home"}], slots, regions=regions, table={"size_m": [2.4, 2.4]})
    layout = None
    for seed in range(5):
        try:
            layout = randomize_layout(task, np.random.default_rng(seed))
            break
        except PlanningFailed:
            continue
    assert layout is not None
    rows = label_rows(layout)
    assert len({row.instance_id for row in rows}) == len(rows)
    categories = {row.name: row.category for row in rows}
    assert [categories[name] for name in ("floor", "wall", "table", "robot/arm", "goal_area")] == [
        "floor", "wall", "table", "robot", "area",
    ]  # fmt: skip
    assert len({row.semantic_id for row in rows if row.name in ("floor", "wall", "table")}) == 3
    for entry in layout.objects:
        words = str(LIBRARY[entry.model].noun)
        assert categories[entry.name] == words.replace(" ", "_")
