"""The example of a user's own package: installed, found by its entry point, run by `nimbusctl`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from nimbusd.stages.store.read import Dataset, open_dataset
from nimbusd.stages.store.verify.verify import verify_dataset
from tests.support.store_makers import lerobot_tree

pytestmark = pytest.mark.processes
REPOSITORY = Path(__file__).parents[3]
EXAMPLE = REPOSITORY / "examples/user_workflow"


def install(target: Path) -> Path:
    """The package as an installer leaves it: its modules, and metadata with its entry points."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())
    name, version = project["project"]["name"].replace("-", "_"), project["project"]["version"]
    for package in project["tool"]["setuptools"]["packages"]:
        shutil.copytree(EXAMPLE / package, target / package)
    info = target / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, points in project["project"]["entry-points"].items():
        lines += [f"[{group}]", *(f"{point} = {where}" for point, where in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return target


def nimbusctl(installed: Path, *args: str | Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{REPOSITORY}"}
    return subprocess.run(
        [sys.executable, "-m", "nimbusd.cli", *map(str, args)], capture_output=True, text=True, env=env, check=False
    )


def run(installed: Path, output: Path, *args: str) -> Dataset:
    done = nimbusctl(installed, "run", EXAMPLE / "job.yaml", "--output", output, "--json", "--spares", "0", *args)
    assert done.returncode == 0, done.stdout + done.stderr
    return open_dataset(output)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def dataset(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return run(installed, tmp_path_factory.mktemp("one") / "out", "--workers", "1")


def states(data: Dataset) -> list[bytes]:
    columns: list[bytes] = []
    for index in range(data.episodes):
        table: Any = lerobot_tree(data).table(index)
        columns += [np.array(table.column(name).to_pylist()).tobytes() for name in ("observation.state", "action")]
    return columns


def test_its_job_is_found_without_fault(installed: Path, tmp_path: Path) -> None:
    done = nimbusctl(installed, "check", EXAMPLE / "job.yaml", "--output", tmp_path / "out", "--json")
    assert json.loads(done.stdout)["ok"], done.stdout


def test_without_the_package_the_job_says_what_is_missing(tmp_path: Path) -> None:
    done = nimbusctl(tmp_path, "check", EXAMPLE / "job.yaml")
    assert done.returncode == 2
    assert "no workflow is called 'DiscPush'" in done.stdout.replace("\n", " ")
    assert "job.yaml:" in done.stdout


def test_every_episode_of_the_job_is_in_the_dataset_and_whole(dataset: Dataset) -> None:
    assert dataset.episodes == 8
    assert verify_dataset(dataset.root) == []
    assert [dataset.meta(index)["scene"]["id"] for index in range(8)] == ["near"] * 4 + ["far"] * 4
    assert dataset.meta(0)["task"] == "Push the orange disc onto the green mark."


def test_the_disc_ends_on_the_mark_and_the_images_show_it(dataset: Dataset) -> None:
    for index in range(dataset.episodes):
        episode = dataset.episode(index)
        mark = np.array(episode.meta["scene"]["provenance"]["workflow"]["layout"]["mark"])
        final = episode.states["observation.state"][-1, 2:]
        assert np.linalg.norm(final - mark) < 0.0081
        shown = np.argwhere(episode.instance["top"][-1] == 2).mean(axis=0) + 0.5  # row, column
        assert np.abs(shown[::-1] - [64 + final[0] / 0.9 * 190, 64 - final[1] / 0.9 * 190]).max() < 1.5


def test_a_command_is_followed_by_its_result(dataset: Dataset) -> None:
    episode = dataset.episode(0)
    pusher, command = episode.states["observation.state"][:, :2], episode.states["action"]
    way = command[:-1] - pusher[:-1]
    length = np.linalg.norm(way, axis=1, keepdims=True)
    reached = pusher[:-1] + way * np.minimum(1.0, 0.008 / np.maximum(length, 1e-9))
    assert np.abs(reached - pusher[1:]).max() < 1e-6


def test_the_workflows_own_files_lie_beside(dataset: Dataset) -> None:
    rows = json.loads((dataset.root / "files/episode_000005/states.json").read_text())
    assert len(rows) == dataset.meta(5)["length"]


def test_two_workers_make_the_same_columns_as_one(installed: Path, dataset: Dataset, tmp_path: Path) -> None:
    assert states(run(installed, tmp_path / "out", "--workers", "2")) == states(dataset)


def test_the_columns_are_those_that_the_states_name(dataset: Dataset) -> None:
    names = pq.read_schema(next(dataset.root.glob("data/*/*.parquet"))).names
    assert {"observation.state", "action", "observation.camera.top.intrinsics"} <= set(names)
