"""Robots and objects of manipulation tasks: fetched whole or not at all, and missed before a job runs."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from nimbusd.cli import cli
from nimbusd.stages import AssetError
from nimbusd.stages.workflow.sim import parse_task
from nimbusd.stages.workflow.sim.models import assets
from nimbusd.stages.workflow.sim.models.assets import Package, fetch

EXAMPLES = Path(__file__).parents[3] / "examples"
WHEEL = "toy_assets-1.0-py3-none-any.whl"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, with a package of assets in it; the cache is empty."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr("toy_assets/models/cup.obj", "v 0 0 0\n" * 1000)
        wheel.writestr("toy_assets/code.py", "print()\n")
        info = "toy_assets-1.0.dist-info"
        wheel.writestr(f"{info}/LICENSE", "MIT\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy_assets\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest()
    root = "toy_assets/models/"
    package = Package("toy_assets", "1.0", digest, "MIT", root, (root,), ("toy_assets-1.0.dist-info/LICENSE",))
    monkeypatch.setattr(assets, "PACKAGES", {"toy_assets": package})
    monkeypatch.setenv("NIMBUSD_ASSETS", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


def test_what_is_used_of_a_package_comes_with_its_licence(shelf: Path) -> None:
    folder = fetch("toy_assets")
    assert sorted(path.name for path in folder.iterdir()) == ["LICENSE", "cup.obj"]
    assert left_in(folder.parent) == ["toy_assets-1.0"]


def test_what_an_earlier_release_did_not_fetch_is_added_and_what_is_there_stays(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = shelf.parent / "cache/toy_assets-1.0"
    earlier.mkdir(parents=True)
    (earlier / "LICENSE").write_text("MIT, as it was\n")
    package = assets.PACKAGES["toy_assets"]
    for keep in (f"{package.root}cup.obj", f"{package.root}cup."):
        monkeypatch.setitem(assets.PACKAGES, "toy_assets", replace(package, keep=(keep,)))
        assert fetch("toy_assets") == earlier
        assert (earlier / "cup.obj").read_text().startswith("v 0 0 0")
        assert (earlier / "LICENSE").read_text() == "MIT, as it was\n"
        (shelf / WHEEL).unlink(missing_ok=True)  # the second time nothing is needed
    assert left_in(earlier.parent) == ["toy_assets-1.0"]


def test_processes_that_fetch_at_once_all_get_the_same_folder(shelf: Path) -> None:
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(fetch("toy_assets"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders == [shelf.parent / "cache/toy_assets-1.0"] * 3
    assert left_in(folders[0].parent) == ["toy_assets-1.0"]


def test_a_broken_download_is_refused_and_leaves_nothing(shelf: Path) -> None:
    with (shelf / WHEEL).open("ab") as wheel:
        wheel.write(b"torn")
    with pytest.raises(AssetError, match="is expected: it is not that release"):
        fetch("toy_assets")
    assert left_in(shelf.parent / "cache") == []


def test_without_a_network_the_way_out_is_told(shelf: Path) -> None:
    (shelf / WHEEL).unlink()
    with pytest.raises(AssetError, match=r"Without a network, copy the folder .*cache/toy_assets-1\.0"):
        fetch("toy_assets")
    assert left_in(shelf.parent / "cache") == []


# --- missed by `nimbusctl check` ---


def checked(job: Path, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["check", str(job), *options])
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.parametrize("name", ["genmanip_pick_place.yaml", "simbox_sort_trash.yaml"])
def test_a_job_whose_robots_were_not_fetched_cannot_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("NIMBUSD_ASSETS", str(tmp_path))
    code, text = checked(EXAMPLES / name, "--output", str(tmp_path / "out"))
    assert code == 2
    assert "run `nimbusctl assets fetch`" in text


@pytest.mark.parametrize(
    ("change", "number", "words"),
    [
        ({}, 3, "has tasks 0…0, not 3"),
        ({"robot": "frankie"}, 0, "did you mean 'franka'?"),
        ({"slots": [{"name": "target", "models": ["qube"]}]}, 0, "did you mean 'cube'?"),
        ({"objects": {"mug": {"shape": "mesh", "category": "mug", "noun": "mug", "mesh": "mug.obj"}},
          "slots": [{"name": "target", "models": ["mug"]}]}, 0, "mug.obj is missing"),
        ({"objects": {"mug": {"shape": "mesh", "category": "mug", "noun": "mug", "mesh": "robosuit:mug.obj"}},
          "slots": [{"name": "target", "models": ["mug"]}]}, 0, "no package of assets is called 'robosuit'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_task_is_told_before_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], number: int, words: str
) -> None:
    task = {
        "name": "pick",
        "instructions": ["Pick up the {target}."],
        "slots": [{"name": "target", "models": ["cube"]}],
        "skills": [{"skill": "pick", "with": {"object": "$target"}}],
    }
    (tmp_path / "tasks.yaml").write_text(yaml.safe_dump({"tasks": [task | change]}))
    for reference in parse_task(
        {"name": "any", "instructions": ["Go home."], "skills": [{"skill": "home"}]}
    ).file_references():
        place = tmp_path / "cache/robosuite-1.5.2" / reference.removeprefix("robosuite:")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()  # the robot's files are there
    monkeypatch.setenv("NIMBUSD_ASSETS", str(tmp_path / "cache"))
    job = {
        "name": "pick",
        "scenes": [{"name": "pick", "cfg_path": "tasks.yaml", "task": number}],
        "pipeline": {
            "load": {"component": "EnvLoader", "args": {"workflow_type": "ManipWorkflow"}},
            "plan": {"component": "EnvPlanner"},
            "render": {"component": "EnvRenderer"},
            "store": {"component": "EnvWriter"},
        },
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    code, text = checked(tmp_path / "job.yaml")
    assert code == 2
    assert words in text
    assert f"{tmp_path / 'job.yaml'}:3" in text
