from __future__ import annotations

from pathlib import Path

import pytest

from nimbusd.job import JobError, check_job, load_job, read_job

EXAMPLES = Path(__file__).parents[2] / "examples"
MANIPULATION = {
    "genmanip_pick_place.yaml": "InternDataM1Writer",
    "simbox_fixtures.yaml": "InternDataA1Writer",
    "simbox_sort_trash.yaml": "InternDataA1Writer",
}


def test_every_example_is_tested_here() -> None:
    navigation = {"nav_mesh.yaml", "nav_house.yaml", "nav_front3d.yaml", "nav_gs.yaml", "nav_n1.yaml"}
    assert {path.name for path in EXAMPLES.glob("*.yaml")} == {*navigation, *MANIPULATION}


def test_the_demo_needs_no_file_and_makes_at_least_four_episodes() -> None:
    loaded = load_job(EXAMPLES / "nav_mesh.yaml")
    assert not check_job(loaded).errors
    assert len(loaded.job.scenes) == 4
    assert loaded.job.total_episodes >= 4
    assert loaded.job.stages["plan"].args["max_frames"] <= 60


def test_the_house_is_any_mesh_file_named_on_the_command_line(tmp_path: Path) -> None:
    house = tmp_path / "house.obj"
    house.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    loaded = load_job(EXAMPLES / "nav_house.yaml", overrides=[f"scenes.0.path={house}"])
    assert not check_job(loaded).errors


def test_the_splat_example_needs_no_file_and_takes_splats_of_your_own(tmp_path: Path) -> None:
    assert not check_job(load_job(EXAMPLES / "nav_gs.yaml")).errors
    room = tmp_path / "room.ply"
    own = f"scenes.0={{name: room, splats: {room}}}"
    (error,) = check_job(load_job(EXAMPLES / "nav_gs.yaml", overrides=[own])).errors
    assert "room.ply does not exist" in error.text


def test_a_house_that_is_not_there_is_named_with_its_line() -> None:
    (error,) = check_job(load_job(EXAMPLES / "nav_house.yaml")).errors
    assert error.where == f"{EXAMPLES / 'nav_house.yaml'}:9"
    assert "house.glb does not exist" in error.text


def test_a_house_of_an_unknown_kind_is_told_with_the_kinds_that_are_known() -> None:
    with pytest.raises(JobError, match=r"--set scenes\.0\.path: .*one of \.obj, \.gltf, \.glb, \.ply"):
        read_job(EXAMPLES / "nav_house.yaml", overrides=["scenes.0.path=/data/house.dwg"])


def test_the_front3d_example_lacks_nothing_but_the_licensed_files() -> None:
    loaded = load_job(EXAMPLES / "nav_front3d.yaml")
    assert loaded.job.variant(3) == 1
    assert all("does not exist" in error.text for error in check_job(loaded).errors)


@pytest.mark.parametrize("name", MANIPULATION)
def test_a_manipulation_example_has_its_task_file_and_a_layout_for_every_episode(name: str) -> None:
    loaded = load_job(EXAMPLES / name)
    assert not check_job(loaded).errors
    assert loaded.job.variant(3) == 3
    assert loaded.job.stages["load"].args["workflow_type"] == "ManipWorkflow"
    assert loaded.job.stages["store"].component == MANIPULATION[name]
