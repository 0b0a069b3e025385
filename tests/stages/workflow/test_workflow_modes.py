"""Workflows planned and rendered in one process, or in two real ones: the same episodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nimbusd.makers.arithmetic import maker_environment
from nimbusd.stages.store.piece import PIECES, read_piece
from nimbusd.stages.store.read import open_dataset
from nimbusd.stages.types import Piece
from tests.support.toy_workflow import task_file
from tests.support.workflow_process import components_of

pytestmark = pytest.mark.processes
EPISODES = [0, 1, 2, 3]


def run(mode: str, folder: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{mode}.json"
    path.write_text(json.dumps({"seed": 5, "output": str(folder), "backlog": str(folder / "backlog"), **settings}))
    order = {"fused": "1", "plan": "2", "render": "3"}[mode]  # of sets of strings: nothing may depend on it
    return subprocess.run(
        [sys.executable, "-m", "tests.support.workflow_process", mode, str(path)],
        env={**maker_environment(os.environ), "PYTHONHASHSEED": order},
        capture_output=True,
        text=True,
        check=False,
    )


def run_well(mode: str, folder: Path, **settings: Any) -> None:
    done = run(mode, folder, **settings)
    assert done.returncode == 0, done.stderr


def pieces_of(output: Path) -> list[Piece]:
    return [read_piece(output, folder.name) for folder in sorted((output / PIECES).iterdir())]


def contents(output: Path, piece: Piece) -> dict[str, bytes]:
    """Files of a piece by path, without what tells of the run."""
    paths = [file.path for file in piece.files if file.path not in ("episode.json", "manifest.json")]
    return {path: (output / PIECES / piece.folder / path).read_bytes() for path in paths}


def assert_same_pieces(first: Path, second: Path) -> None:
    ours, theirs = pieces_of(first), pieces_of(second)
    assert [piece.folder for piece in ours] == [piece.folder for piece in theirs]
    assert len(ours) == len(EPISODES)
    for one, other in zip(ours, theirs, strict=True):
        assert contents(first, one) == contents(second, other)
        facts = [
            json.loads((o / PIECES / p.folder / "episode.json").read_text())["facts"]
            for o, p in ((first, one), (second, other))
        ]
        assert facts[0] == facts[1]


@pytest.mark.parametrize("kind", ["ToyArm", "ListArm", "MemoryArm", "FluidArm"])
def test_fused_and_decoupled_processes_make_byte_equal_episodes(tmp_path: Path, kind: str) -> None:
    settings = {
        "workflow": f"tests.support.toy_workflow:{kind}",
        "tasks": str(task_file(tmp_path)),
        "plan": {"with_render": kind == "FluidArm"},
    }
    run_well("fused", tmp_path / "fused", episodes=EPISODES, **settings)
    run_well("plan", tmp_path / "apart", episodes=[3, 1, 0, 2], **settings)
    run_well("render", tmp_path / "apart", episodes=[2, 0, 3, 1], **settings)
    assert_same_pieces(tmp_path / "fused", tmp_path / "apart")


def test_episodes_of_one_layout_share_it_and_differ_in_their_plans(tmp_path: Path) -> None:
    settings = {
        "workflow": "tests.support.toy_workflow:ToyArm",
        "tasks": str(task_file(tmp_path)),
        "episodes": EPISODES,
    }
    run_well("fused", tmp_path / "out", **settings)
    writer = components_of({**settings, "seed": 5}).writer
    assert writer is not None
    dataset = open_dataset(writer.publish(tmp_path / "out", pieces_of(tmp_path / "out"), {}, True))
    cubes = [dataset.meta(i)["scene"]["provenance"]["workflow"]["layout"]["cube"] for i in EPISODES]
    assert cubes[0] == cubes[1] != cubes[2] == cubes[3]
    firsts = {dataset.episode(i).states["action"].tobytes() for i in EPISODES}
    assert len(firsts) == len(EPISODES)


def test_a_workflow_without_frames_is_stored_with_the_files_that_it_saved(tmp_path: Path) -> None:
    settings = {"workflow": "tests.support.toy_workflow:ListArm", "tasks": str(task_file(tmp_path)), "episodes": [0, 1]}
    run_well("fused", tmp_path / "out", **settings)
    writer = components_of({**settings, "seed": 5}).writer
    assert writer is not None
    root = writer.publish(tmp_path / "out", pieces_of(tmp_path / "out"), {}, True)
    dataset = open_dataset(root)
    assert dataset.episode(0).length == 12
    assert set(dataset.episode(0).states) >= {"observation.state", "action"}
    assert np.load(root / "files/episode_000001/cube.npy").shape == (12, 3)
    assert (root / "files/episode_000001/frames/first.bin").stat().st_size == 96 * 64 * 3


def test_a_plan_that_is_not_deterministic_cannot_be_rendered_elsewhere(tmp_path: Path) -> None:
    settings = {
        "workflow": "tests.support.toy_workflow:FluidArm",
        "tasks": str(task_file(tmp_path)),
        "plan": {"with_render": True},
        "episodes": [0],
    }
    run_well("plan", tmp_path / "apart", **settings)
    task_file(tmp_path, length=11)
    done = run("render", tmp_path / "apart", **settings)
    assert done.returncode != 0
    assert "not deterministic" in done.stderr
    assert "fused" in done.stderr


@pytest.mark.parametrize("kind", ["ToyArm", "ListArm"])
def test_plans_that_were_stored_alone_can_be_shown_later(tmp_path: Path, kind: str) -> None:
    settings = {"workflow": f"tests.support.toy_workflow:{kind}", "tasks": str(task_file(tmp_path)), "episodes": [0, 1]}
    run_well("fused", tmp_path / "both", **settings)
    run_well("fused", tmp_path / "plans", render={"render": False}, **settings)
    writer = components_of({**settings, "seed": 5}).writer
    assert writer is not None
    writer.publish(tmp_path / "plans", pieces_of(tmp_path / "plans"), {}, True)
    scene = {"plans": str(tmp_path / "plans"), "seed": 1}
    run_well("fused", tmp_path / "shown", scene=scene, **{**settings, "episodes": [0]})
    wanted = contents(tmp_path / "both", pieces_of(tmp_path / "both")[1])
    shown = contents(tmp_path / "shown", pieces_of(tmp_path / "shown")[0])
    assert shown == wanted


def test_a_pickled_plan_is_refused_with_the_way_out(tmp_path: Path) -> None:
    settings = {"workflow": "tests.support.toy_workflow:PickleArm", "tasks": str(task_file(tmp_path)), "episodes": [0]}
    done = run("plan", tmp_path / "out", **settings)
    assert done.returncode != 0
    assert "returned a pickle" in done.stderr
    assert "nimbusd.stages.workflow.pack" in done.stderr
