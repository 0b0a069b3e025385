"""Doubts of a loader, and what it left out, reach the person who made the dataset."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nimbusd.show.scene_warnings import warning_lines
from tests.support.cluster import PATIENCE_S, REPOSITORY
from tests.support.mesh_writers import write_obj_file
from tests.support.nav_scenes import two_rooms


def nimbusctl(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nimbusd.cli", *args], capture_output=True, text=True, cwd=REPOSITORY, timeout=PATIENCE_S
    )


def test_each_sentence_is_told_once_for_each_scene() -> None:
    old, quiet = {"id": "old"}, {"id": "quiet", "provenance": {"loader": "L"}}
    house = {"id": "house", "provenance": {"warnings": ["it lies on its side", "a map is left out"]}}
    flat = {"id": "flat", "provenance": {"warnings": ["it lies on its side"]}}
    assert warning_lines([old, house, quiet, flat, house]) == [
        "scene 'house': it lies on its side",
        "scene 'house': a map is left out",
        "scene 'flat': it lies on its side",
    ]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rooms, one wall of which stands there twice."""
    folder = tmp_path_factory.mktemp("told")
    objects = two_rooms().scene().objects
    write_obj_file(folder / "house.obj", [*objects, objects[-1]])
    described = {
        "name": "told",
        "output": str(folder / "out"),
        "scenes": [{"name": "house", "path": "house.obj"}],
        "episodes_per_scene": 1,
        "pipeline": {
            "load": {"component": "BProcObjLoader"},
            "plan": {"component": "NavPlanner", "args": {"cameras": [{"width": 32, "height": 24}]}},
            "render": {"component": "tests.support.toy:ToyRenderer"},
            "store": {"component": "NavWriter"},
        },
    }
    path = folder / "told.yaml"
    path.write_text(yaml.safe_dump(described))
    return path


@pytest.mark.processes
def test_run_verify_and_show_tell_what_was_mended_in_a_scene(job: Path) -> None:
    ran = nimbusctl("run", str(job), "--workers", "1", "--spares", "0")
    assert ran.returncode == 0, ran.stderr
    (told,) = [line for line in ran.stderr.splitlines() if line.startswith("warning: ")]
    assert "scene 'house': " in told
    output = str(job.parent / "out")
    assert told in nimbusctl("verify", output).stdout.splitlines()
    shown = json.loads(nimbusctl("show", output, "--json", "--output", f"{output}.png").stdout)
    assert [f"warning: {line}" for line in shown["warnings"]] == [told]
