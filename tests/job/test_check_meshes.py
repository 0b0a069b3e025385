from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from nimbusd.cli.check import check
from tests.support.gltf_files import GltfFile

JOB = """\
name: meshes
seed: 1
scenes:
  - name: here
    path: PATH
episodes_per_scene: 1
pipeline:
  load: {component: BProcObjLoader}
  plan: {component: "tests.support.checked_components:RobotPlanner"}
  render: {component: "tests.support.toy:ToyRenderer"}
  store: {component: "tests.support.toy:ToyWriter"}
"""
TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checked(folder: Path, path: Path, *lines: str) -> tuple[list[str], list[str]]:
    """Errors and warnings about the scene, all of which stand at its entry."""
    job = folder / "job.yaml"
    job.write_text(JOB.replace("PATH", "\n    ".join([str(path), *lines])))
    result = CliRunner().invoke(check, [str(job), "--json"], catch_exceptions=False)
    told: dict[str, Any] = orjson.loads(result.stdout)
    assert result.exit_code == (2 if told["errors"] else 0)
    kinds = ([row for row in told[kind] if "Python module" not in row["text"]] for kind in ("errors", "warnings"))
    errors, warnings = kinds
    assert all(row["where"].startswith(f"{job}:") for row in [*errors, *warnings])
    return [row["text"] for row in errors], [row["text"] for row in warnings]


def gltf(folder: Path, *extensions: str, required: bool = True) -> Path:
    file = GltfFile()
    file.node(mesh=file.mesh(np.eye(3), [(0, 1, 2)]))
    for name in extensions:
        file.extension(name, required=required)
    return file.save(folder / "scene.glb")


def test_a_good_mesh_has_nothing_to_tell(folder: Path) -> None:
    assert checked(folder, gltf(folder)) == ([], [])


def test_a_required_extension_that_is_not_supported_is_an_error_before_anything_runs(folder: Path) -> None:
    (error,), warnings = checked(folder, gltf(folder, "KHR_texture_basisu"))
    assert "requires the glTF extension KHR_texture_basisu" in error
    assert warnings == []


def test_an_extension_that_is_left_out_is_a_warning(folder: Path) -> None:
    errors, (warning,) = checked(folder, gltf(folder, "KHR_lights_punctual", required=False))
    assert errors == []
    assert "KHR_lights_punctual is left out (lamps; the scene's `light` makes its own)" in warning


def test_a_missing_library_is_one_error_and_a_warning_where_it_may_be_missing(folder: Path) -> None:
    path = folder / "room.obj"
    path.write_text(f"mtllib gone.mtl\n{TRIANGLE}usemtl a\nf 1 2 3\n")
    (error,), warnings = checked(folder, path)
    assert f"{folder}/gone.mtl does not exist" in error
    assert warnings == []
    errors, (warning,) = checked(folder, path, "without_materials: true")
    assert errors == []
    assert "gone.mtl is missing: its materials are plain grey" in warning


def test_blank_maps_and_numbers_that_are_none_are_warnings_with_their_lines(folder: Path) -> None:
    path = folder / "room.obj"
    path.write_text(f"mtllib room.mtl\n{TRIANGLE}v inf 0 0\nusemtl a\nf 1 2 3\n")
    (folder / "room.mtl").write_text("newmtl a\nmap_Kd\n")
    errors, (blank, number) = checked(folder, path)
    assert errors == []
    assert "room.mtl, line 2: 'map_Kd' names no picture" in blank
    assert "line 5: a vertex is not made of finite numbers" in number


def test_a_cloud_of_points_is_an_error_of_its_header(folder: Path) -> None:
    path = folder / "cloud.ply"
    path.write_text("ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n0\n")
    (error,), _ = checked(folder, path)
    assert "cloud.ply is empty: it has no triangles" in error


def test_a_torn_file_is_one_error(folder: Path) -> None:
    path = gltf(folder)
    path.write_bytes(path.read_bytes()[:50])
    (error,), _ = checked(folder, path)
    assert "scene.glb is torn" in error


def test_checking_a_mesh_decodes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = gltf(folder, "KHR_draco_mesh_compression", "EXT_meshopt_compression")
    for name in ("read_gltf", "read_obj", "read_ply"):
        monkeypatch.setattr(f"nimbusd.stages.load.mesh.files.{name}", lambda *_: pytest.fail("it was read"))
    assert checked(folder, path) == ([], [])
