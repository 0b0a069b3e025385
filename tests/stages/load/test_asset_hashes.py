from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from nimbusd.stages import EpisodeRequest, SceneConfig
from nimbusd.stages.base import BaseLoader
from nimbusd.stages.load.asset_hashes import AssetHashes
from nimbusd.stages.load.mesh.loader import BProcObjLoader, MeshArgs, MeshConfig
from nimbusd.stages.load.splats.from_mesh import sample_splats
from nimbusd.stages.load.splats.loader import GSMeshArgs, GSMeshConfig, GSMeshLoader
from nimbusd.stages.runner import Components, plan_stages
from nimbusd.stages.store.read import open_dataset
from nimbusd.stages.workflow.sim.models.mjcf_files import files_with_parts
from tests.stages.load.test_mesh_loader import quarters, write_obj
from tests.stages.load.test_splat_files import write_ply
from tests.support import toy
from tests.support.mesh_writers import write_gltf
from tests.support.nav_scenes import two_rooms
from tests.support.store_makers import make_episode, make_observation, make_sequence, make_writer


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_file_is_hashed_folders_with_all_that_is_in_them_and_what_is_missing_left_out(tmp_path: Path) -> None:
    (tmp_path / "parts/deep").mkdir(parents=True)
    files = [tmp_path / "a.bin", tmp_path / "parts/b.bin", tmp_path / "parts/deep/c.bin"]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 1000)
    beats = []
    found = AssetHashes().of([tmp_path / "parts", files[0], tmp_path / "none.bin"], lambda: beats.append(1))
    assert found == {str(file): sha256(file) for file in files}
    assert list(found) == sorted(found)
    assert len(beats) == 3


def test_a_file_is_read_again_only_when_it_changed(tmp_path: Path) -> None:
    file, hashes, beats = tmp_path / "a.bin", AssetHashes(), []
    file.write_bytes(b"one")
    for _ in range(2):
        assert hashes.of([file], lambda: beats.append(1)) == {str(file): sha256(file)}
    assert len(beats) == 1
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert hashes.of([file]) == {str(file): sha256(file)}


def files_of_an_episode(loader: BaseLoader[Any, Any], config: SceneConfig, output: Path) -> dict[str, str]:
    """The part that the load stage adds to an episode's context."""
    made = Components(loader, None, toy.ToyPlanner(toy.ToyPlannerArgs()), None, None)
    request = EpisodeRequest("j", config.name, 0)
    (episode,) = plan_stages(
        made, [request], job_seed=1, scene_config=lambda _: config, output=output, context={"job": {"name": "j"}}
    )
    assert episode.failure is None
    files: dict[str, str] = dict(episode.context["scene_files"])
    return files


def test_a_mesh_scene_names_its_materials_and_textures_too(tmp_path: Path) -> None:
    quarters(tmp_path / "my picture.png")
    path = write_obj(tmp_path)
    config = MeshConfig(name="quad", path=path, light="none")
    found = files_of_an_episode(BProcObjLoader(MeshArgs()), config, tmp_path)
    assert found == {
        str(tmp_path / name): sha256(tmp_path / name) for name in ("my picture.png", "quad.mtl", "quad.obj")
    }


def test_a_splat_scene_names_splats_and_proxy(tmp_path: Path) -> None:
    objects = two_rooms().objects
    splats, proxy = (
        write_ply(tmp_path / "a.ply", sample_splats(objects, 5000)),
        write_gltf(tmp_path / "a.gltf", objects),
    )
    config = GSMeshConfig(name="room", splats=splats, proxy=proxy, up_axis="z")
    found = files_of_an_episode(GSMeshLoader(GSMeshArgs()), config, tmp_path)
    assert found == {str(path): sha256(path) for path in (proxy, splats)}


def test_the_hashes_stand_in_the_episode_s_metadata(tmp_path: Path) -> None:
    writer, seq = make_writer(media="image"), make_sequence()
    episode = make_episode(tmp_path, 0, seq=seq)
    episode.context = {**episode.context, "scene_files": {"house.glb": "ab" * 32}}
    piece = writer.save_data(seq, make_observation(seq), episode)
    meta = open_dataset(writer.publish(tmp_path, [piece], {"name": "job"}, True)).meta(0)
    assert meta["scene"]["files"] == {"house.glb": "ab" * 32}
    assert "scene_files" not in meta["config"]


def test_an_mjcf_file_names_its_parts_wherever_its_compiler_says_they_lie(tmp_path: Path) -> None:
    for folder in ("meshes", "textures", "common"):
        (tmp_path / folder).mkdir()
    for name in ("meshes/arm.stl", "meshes/hand.obj", "textures/wood.png", "textures/sky.png"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "common/hand.xml").write_text(
        '<mujoco><compiler meshdir="../meshes"/><asset><mesh file="hand.obj"/></asset></mujoco>'
    )
    robot = tmp_path / "robot.xml"
    robot.write_text(
        '<mujoco><compiler meshdir="meshes" texturedir="textures"/><include file="common/hand.xml"/><asset>'
        '<mesh name="arm" file="arm.stl"/><mesh file="gone.stl"/><texture file="wood.png"/><texture fileup="sky.png"/>'
        "</asset></mujoco>"
    )
    names = [
        "robot.xml",
        "common/hand.xml",
        "meshes/arm.stl",
        "textures/wood.png",
        "textures/sky.png",
        "meshes/hand.obj",
    ]
    found = files_with_parts([robot, robot])
    assert {path.resolve() for path in found} == {(tmp_path / name).resolve() for name in names}
    assert len(found) == len(names)


@pytest.mark.mujoco
def test_a_manipulation_task_names_its_robot_with_all_meshes(tmp_path: Path) -> None:
    from nimbusd.stages.workflow.manip import ManipWorkflow

    task = Path("examples/manipulation/pick_place.yaml")
    files = ManipWorkflow.task_files(str(task), 0)
    assert any(path.suffix == ".xml" for path in files)
    assert any(path.suffix in (".stl", ".obj", ".msh") for path in files)
    assert all(path.is_file() for path in files)
    assert ManipWorkflow.task_images(str(task), 0)["front"] == (320, 240)
