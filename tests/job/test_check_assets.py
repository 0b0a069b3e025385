"""`nimbusctl check` tells, before anything is rendered, what `run` would refuse."""

from __future__ import annotations

import gzip
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from nimbusd.cli.check import check
from nimbusd.job import check_job
from nimbusd.job.reader import load_job
from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.splats.files import check_splat_file, read_splats
from nimbusd.stages.load.splats.from_mesh import sample_splats
from tests.stages.load.test_splat_files import write_ply
from tests.support.mesh_writers import write_gltf, write_obj_file
from tests.support.nav_scenes import empty_room, two_rooms
from tests.support.right_scenes import UPS, changed, right_scenes
from tests.support.splat_reference import random_splats

SPZ_4 = b"NGSP" + bytes(60)
SPZ_3 = gzip.compress(struct.pack("<IIIBBBB", 0x5053474E, 3, 10, 0, 12, 0, 0) + bytes(10 * 20))


def job_of(tmp_path: Path, scene: dict[str, Any], *, loader: str = "BProcObjLoader", **stages: Any) -> Path:
    pipeline = {
        "load": {"component": loader},
        "plan": {"component": "NavPlanner", "args": stages.pop("plan", {})},
        "render": {"component": "SCGSRenderer"},
        "store": {"component": "NavWriter", "args": stages.pop("store", {})},
    }
    job = {"name": "job", "scenes": [{"name": "room", **scene}], "output": str(tmp_path / "out"), "pipeline": pipeline}
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False))
    return path


def told(job: Path, *, deep: bool = False) -> tuple[list[str], list[str]]:
    """Sentences of errors and of warnings."""
    found = check_job(load_job(job), deep=deep)
    return [problem.text for problem in found.errors], [problem.text for problem in found.warnings]


def splat_job(tmp_path: Path, path: Path) -> Path:
    return job_of(tmp_path, {"splats": path.name}, loader="GSMeshLoader")


def test_a_splat_file_of_a_version_that_is_not_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "new.spz").write_bytes(SPZ_4)
    (text,), _ = told(splat_job(tmp_path, tmp_path / "new.spz"))
    assert "SPZ of version 4 or later" in text
    (tmp_path / "old.spz").write_bytes(SPZ_3)
    assert told(splat_job(tmp_path, tmp_path / "old.spz"))[0] == []


def broken_splats(folder: Path) -> dict[str, Path]:
    """The fault → a file that read_splats refuses for it."""
    cloud = random_splats(0, 20, 1)
    ply = write_ply(folder / "good.ply", cloud)
    files = {
        "cut off": folder / "cut.ply",
        "lacks the properties": write_ply(folder / "points.ply", cloud, skip=("rot_0", "opacity")),
        "`x` that is not a finite number": write_ply(folder / "nan.ply", cloud, spoiled={"x": np.nan}),
        "`scale_1` that is not a finite number": write_ply(folder / "inf.ply", cloud, spoiled={"scale_1": np.inf}),
        "`f_rest_3` that is not a finite number": write_ply(folder / "rest.ply", cloud, spoiled={"f_rest_3": np.nan}),
        "is not a PLY file": folder / "text.ply",
        "not an SPZ file": folder / "text.spz",
        "not a SOG archive": folder / "text.sog",
        "meta.json is not in the archive": folder / "empty.sog",
        "is not JSON": folder / "meta.json",
    }
    files["cut off"].write_bytes(ply.read_bytes()[:-100])
    for name in ("text.ply", "text.spz", "text.sog", "meta.json"):
        (folder / name).write_text("not what its name says")
    with zipfile.ZipFile(folder / "empty.sog", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    return files


def test_what_is_said_of_a_splat_file_beforehand_is_what_reading_it_would_say(tmp_path: Path) -> None:
    for words, path in broken_splats(tmp_path).items():
        with pytest.raises(AssetError) as caught:
            check_splat_file(path)
        assert words in str(caught.value), words
        with pytest.raises(AssetError):
            read_splats(path)


def test_a_splat_file_that_can_be_read_is_not_complained_of(tmp_path: Path) -> None:
    cloud = random_splats(0, 20, 1)
    for path in (
        write_ply(tmp_path / "good.ply", cloud),
        write_ply(tmp_path / "sure.ply", cloud, spoiled={"opacity": np.inf, "nx": np.nan}),  # neither is refused
    ):
        check_splat_file(path)
        read_splats(path)


def test_unreadable_splats_are_told_with_the_scene_s_line(tmp_path: Path) -> None:
    path = broken_splats(tmp_path)["cut off"]
    (problem,) = check_job(load_job(splat_job(tmp_path, path))).errors
    assert problem.where == f"{tmp_path}/job.yaml:3"
    assert "cut.ply is cut off" in problem.text


def test_mesh_files_that_are_empty_or_altered_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.obj").touch()
    mesh = write_obj_file(tmp_path / "c.obj", empty_room().objects)
    for scene, words in (
        ({"path": "a.obj"}, "empty"),
        ({"path": mesh.name, "sha256": "0" * 64}, "the job promises"),
    ):
        (text,), _ = told(job_of(tmp_path, scene))
        assert words in text
    assert told(job_of(tmp_path, {"path": mesh.name}))[0] == []


def test_a_proxy_that_would_be_refused_is_told_too(tmp_path: Path) -> None:
    write_ply(tmp_path / "a.ply", random_splats(0, 20, 1))
    (tmp_path / "b.obj").touch()
    (text,), _ = told(job_of(tmp_path, {"splats": "a.ply", "proxy": "b.obj"}, loader="GSMeshLoader"))
    assert "b.obj" in text
    assert "empty" in text


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = write_obj_file(tmp_path / "c.obj", empty_room().objects)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != mesh and real(path, mode))  # root may read all
    (problem,) = check_job(load_job(job_of(tmp_path, {"path": mesh.name}))).errors
    assert "c.obj may not be read by you" in problem.text


@pytest.mark.parametrize(
    ("store", "size", "refused"),
    [
        ({"codec": "h264"}, (321, 240), True),
        ({"codec": "h264"}, (320, 241), True),
        ({"codec": "h264"}, (320, 240), False),
        ({"codec": "av1"}, (321, 241), False),
        ({"codec": "h264", "media": "image"}, (321, 241), False),
        ({"codec": "h264", "media": "image", "format": "interndata-n1"}, (321, 241), True),
        ({"codec": "av1", "pix_fmt": "yuv999p"}, (320, 240), True),
    ],
)
def test_images_that_the_encoder_does_not_take_are_told_and_only_they(
    tmp_path: Path, store: dict[str, str], size: tuple[int, int], refused: bool
) -> None:
    mesh = write_obj_file(tmp_path / "c.obj", empty_room().objects)
    plan = {"cameras": [{"name": "left", "width": size[0], "height": size[1]}]}
    errors, _ = told(job_of(tmp_path, {"path": mesh.name}, plan=plan, store=store))
    assert [("camera 'left'" in text and "refused" in text) for text in errors] == [True] * refused


def test_only_deep_looks_into_files_and_tells_a_scene_that_lies_on_its_side(tmp_path: Path) -> None:
    scene = right_scenes()["unnamed furnished room"]()
    job = job_of(tmp_path, {"path": write_obj_file(tmp_path / "side.obj", changed(scene, UPS["-y"]).objects).name})
    assert told(job) == ([], [])
    result = CliRunner().invoke(check, [str(job), "--deep"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "scene 'room': the scene seems to lie on its side" in result.stdout
    assert told(job, deep=True)[0] == []
    right = job_of(tmp_path, {"path": write_obj_file(tmp_path / "right.obj", scene.objects).name})
    assert told(right, deep=True) == ([], [])


def test_deep_tells_what_loading_would_refuse(tmp_path: Path) -> None:
    objects = two_rooms().objects
    apart = write_gltf(tmp_path / "apart.gltf", objects, apart={objects[-1].name: (5e5, 0.0, 0.0)})
    job = job_of(tmp_path, {"path": apart.name})
    assert told(job)[0] == []
    (text,), _ = told(job, deep=True)
    assert "'table_9' lies 500 km from the rest" in text.replace(objects[-1].name, "table_9")
    cloud = sample_splats(objects, 3000)
    cloud.quats[5] = 0
    job = splat_job(tmp_path, write_ply(tmp_path / "a.ply", cloud))
    assert told(job)[0] == []
    (text,), _ = told(job, deep=True)
    assert "quaternion zero" in text
