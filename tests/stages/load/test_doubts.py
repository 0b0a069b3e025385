from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nimbusd.stages.load.mend import warnings_of
from nimbusd.stages.load.mend.doubts import doubts
from nimbusd.stages.load.mend.size import misfit
from nimbusd.stages.load.mend.upright import lean
from nimbusd.stages.load.mesh.loader import BProcObjLoader, MeshArgs, MeshConfig
from nimbusd.stages.load.splats.from_mesh import sample_splats
from nimbusd.stages.load.splats.loader import GSMeshArgs, GSMeshConfig, GSMeshLoader
from nimbusd.stages.types import Scene
from tests.stages.load.test_splat_files import write_ply
from tests.support.mesh_writers import write_gltf, write_obj_file
from tests.support.nav_scenes import two_rooms
from tests.support.right_scenes import UNITS, UPS, changed, right_scenes
from tests.support.slow import quick_first

SCENES = right_scenes()
QUICK = ("unnamed apartment of 2 rooms", "corridor 0", "open floor 0", "unnamed hall 1", "outdoor site 0")
NAMES = [*QUICK, *(name for name in SCENES if name not in QUICK)]


@pytest.mark.parametrize("name", quick_first(NAMES, len(QUICK)))
def test_a_scene_that_stands_upright_in_metres_is_not_doubted(name: str) -> None:
    assert doubts(SCENES[name]()) == []


@pytest.mark.parametrize("name", quick_first(QUICK, 3))
def test_each_wrong_axis_is_told_with_the_right_one(name: str) -> None:
    scene = SCENES[name]()
    for R in UPS.values():
        found = lean(changed(scene, R).objects)
        assert found is not None
        if found.up != (0.0, 0.0, -1.0):  # a guess of the sign may fail where little stands in a scene
            assert abs(np.dot(found.up, R[:, 2])) == 1


@pytest.mark.parametrize("name", quick_first(("apartment of 2 rooms", "furnished room", "corridor 0")))
def test_each_wrong_unit_is_told_with_the_right_one(name: str) -> None:
    scene = SCENES[name]()
    for unit, factor in UNITS.items():
        found = misfit(changed(scene, np.eye(3), factor).objects)
        assert found is not None, unit
        assert found.unit_of(1.0 if factor > 1 else factor)[1] == pytest.approx(
            1 / factor if factor > 1 else 1.0, rel=0.01
        )


def test_the_sentence_for_a_mesh_names_the_axis_of_the_file(tmp_path: Path) -> None:
    scene = SCENES["unnamed furnished room"]()
    loader = BProcObjLoader(MeshArgs())

    def told(path: Path, **config: Any) -> list[str]:
        return warnings_of(loader.load_asset(MeshConfig(name="flat", path=path, light="none", **config)))

    gltf, obj = write_gltf(tmp_path / "flat.gltf", scene.objects), write_obj_file(tmp_path / "flat.obj", scene.objects)
    assert not any("lie" in text and "side" in text for text in told(gltf) + told(obj))
    (text,) = (text for text in told(gltf, up_axis="z") if "side" in text)
    assert "Set `up_axis: y` of the mesh file." in text
    (text,) = (text for text in told(obj, up_axis="y") if "side" in text)
    assert "Set `up_axis: z` of the mesh file." in text
    turned = write_obj_file(tmp_path / "turned.obj", changed(scene, UPS["x"].T).objects)
    (text,) = (text for text in told(turned) if "side" in text)
    assert "of the mesh file. Turn the file so that y or z points up." in text


def test_the_sentence_for_a_mesh_in_another_unit_names_the_unit(tmp_path: Path) -> None:
    scene = changed(SCENES["furnished room"](), np.eye(3), 1000.0)
    path = write_gltf(tmp_path / "flat.gltf", scene.objects)
    made = BProcObjLoader(MeshArgs()).load_asset(MeshConfig(name="flat", path=path, light="none"))
    (text,) = (text for text in warnings_of(made) if "too large" in text)
    assert "probably in millimetres: set `unit_m: 0.001`." in text


def test_the_sentence_for_splats_names_the_axis_of_their_file(tmp_path: Path) -> None:
    cloud = sample_splats(SCENES["unnamed apartment of 2 rooms"]().objects, 60_000)
    path = write_ply(tmp_path / "flat.ply", cloud)
    loader = GSMeshLoader(GSMeshArgs(voxel_m=0.12))
    assert warnings_of(loader.load_asset(GSMeshConfig(name="flat", splats=path, up_axis="z"))) == []
    (text,) = warnings_of(loader.load_asset(GSMeshConfig(name="flat", splats=path, up_axis="x")))
    assert "Set `up_axis: z` of the splat file." in text


def test_names_weigh_more_than_any_measure() -> None:
    """A doll's house whose chairs are called so is small; the same house without names could be a box of toys."""
    boxes = two_rooms()
    small = changed(boxes.scene(rooms=False), np.eye(3), 0.3)
    assert misfit(small.objects) is not None
    bed = next(obj for obj in boxes.objects if obj.category == "bed")
    assert misfit([*boxes.objects, replace(bed, name="bed_b", instance_id=99)]) is None


def test_a_scene_of_nothing_is_not_doubted() -> None:
    assert doubts(Scene("empty", ())) == []
