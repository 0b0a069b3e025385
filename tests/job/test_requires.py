"""The packages that a job requires, found where it is read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from nimbusd.job import Job, read_job
from nimbusd.stages import modules

EXAMPLES = Path(__file__).parents[2] / "examples"
NAV = ["shapely", "scipy", "scikit-image"]


def required(path: Path, *overrides: str) -> set[str]:
    job = read_job(path, overrides=overrides)
    assert job.requires is not None
    assert list(job.requires) == sorted(job.requires)
    return {name.replace("_", "-").lower() for name in job.requires}


def test_a_navigation_job_requires_what_its_components_import_and_nothing_of_others() -> None:
    packages = required(EXAMPLES / "nav_house.yaml")
    assert {"scikit-image", "scipy", "shapely", "mapbox-earcut", "bpy", "embreex", "dracopy", "meshopt"} <= packages
    assert not {"mujoco", "sapien", "gsplat", "torch", "numba", "ompl", "isaacsim"} & packages
    assert {"numba", "gsplat", "torch"} <= required(EXAMPLES / "nav_gs.yaml")


def test_a_workflows_job_requires_what_its_workflow_its_tasks_and_its_renderer_import() -> None:
    packages = required(EXAMPLES / "genmanip_pick_place.yaml")
    assert {"mujoco", "moderngl", "ompl", "toppra", "fast-simplification", "mapbox-earcut"} <= packages
    assert not {"sapien", "nvidia-curobo", "bpy"} & packages
    blender = "pipeline.load.args.workflow_args={renderer: BlenderProcRenderer}"
    assert {"bpy", "ompl"} <= required(EXAMPLES / "genmanip_pick_place.yaml", blender)


def test_a_tasks_simulator_and_planner_are_required(tmp_path: Path) -> None:
    task = {"name": "home", "skills": [{"skill": "home"}], "instructions": ["Go home."]}
    tasks = [task, task | {"physics": {"simulator": "sapien"}}, task | {"planner": "curobo"}]
    (tmp_path / "tasks.yaml").write_text(yaml.safe_dump({"tasks": tasks}))
    job = yaml.safe_load((EXAMPLES / "genmanip_pick_place.yaml").read_text())
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    found = [
        required(tmp_path / "job.yaml", f"scenes=[{{name: s, cfg_path: tasks.yaml, task: {number}}}]")
        & {"sapien", "nvidia-curobo", "torch"}
        for number in range(3)
    ]
    assert found == [set(), {"sapien"}, {"nvidia-curobo", "torch"}]


def test_a_task_file_that_is_not_there_keeps_nobody_from_reading_the_job(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text((EXAMPLES / "genmanip_pick_place.yaml").read_text())
    assert "mujoco" in required(tmp_path / "job.yaml")


def test_the_package_of_a_users_component_and_what_it_says_to_require_are_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
from nimbusd.stages import BaseRenderer
class Mine(BaseRenderer):
    requires = ("their_rays",)
    may_use = ("their_gpu",)
    def load(self, scene): ...
    def gen_obs(self, seq): ...
"""
    (tmp_path / "a_users_module.py").write_text(code)
    for name, top in (("Ada.Renderers", "a_users_module"), ("rays-of-theirs", "their_rays")):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "top_level.txt").write_text(f"{top}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    modules._packages_by_module.cache_clear()
    try:
        packages = required(EXAMPLES / "nav_mesh.yaml", "pipeline.render={component: 'a_users_module:Mine'}")
    finally:
        modules._packages_by_module.cache_clear()
        sys.modules.pop("a_users_module", None)
    assert {"ada.renderers", "rays-of-theirs", "their-gpu"} <= packages
    assert "bpy" not in packages


def test_what_a_job_requires_travels_with_it_and_is_not_part_of_its_fingerprint(tmp_path: Path) -> None:
    job = read_job(EXAMPLES / "nav_mesh.yaml", output=tmp_path)
    values = job.to_dict()
    assert Job.from_dict(values) == job
    del values["requires"]
    before = Job.from_dict(values)
    assert before.requires is None
    assert before.fingerprint() == job.fingerprint() == job.without_scenes().fingerprint()
