"""docs/extend/skill.md, run as it stands: its skill is checked, planned, simulated and judged, alone and in a job."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

from nimbusd.stages.arguments import ArgumentsError
from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.store.read import open_dataset
from nimbusd.stages.workflow import Workflow
from nimbusd.stages.workflow.sim import (
    REASONS,
    SKILLS,
    DemonstrationFailed,
    Skill,
    parse_task,
    plan_episode,
    randomize_layout,
)
from nimbusd.stages.workflow.sim.workcell import Workcell
from tests.support.manip_worlds import require_simulation

require_simulation()
pytestmark = pytest.mark.mujoco
REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "docs/extend/skill.md").read_text()
FILES = dict(re.findall(r"^`([\w.]+)`:.*?\n\n```\w+\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE))
TASK: dict[str, Any] = yaml.safe_load(FILES["tasks.yaml"])["tasks"][0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's three files."""
    made = tmp_path_factory.mktemp("kitchen")
    for name, text in FILES.items():
        (made / name).write_text(text)
    return made


@pytest.fixture
def module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The page's module, imported for one test: no other test knows its skill."""
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(Workflow, "workflows", dict(Workflow.workflows))
    yield importlib.import_module("my_skills")
    del sys.modules["my_skills"], SKILLS["tilt"]


def nimbusctl(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}"}
    command = [sys.executable, "-m", "nimbusd.cli", *args]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder, check=False)


def test_the_page_has_a_module_a_task_file_and_a_job() -> None:
    assert list(FILES) == ["my_skills.py", "tasks.yaml", "job.yaml"]


def test_a_task_with_the_skill_is_planned_and_simulated(module: ModuleType) -> None:
    task, rng = parse_task(TASK), np.random.default_rng(0)
    layout = randomize_layout(task, rng)
    demo = plan_episode(task, layout, rng)
    assert [phase.name for phase in demo.phases if phase.skill == "tilt"] == ["tilt", "upright"]
    assert demo.reached == ("cup lifted ",)
    assert layout.skills[1].instruction == f"tilt the {layout.draws.nouns['cup']}"
    leans = np.arccos(demo.T_world_object["cup"][:, 2, 2])
    assert leans.max() == pytest.approx(0.5, abs=0.1)
    assert leans[-1] < 0.1


def test_it_is_judged_by_what_the_simulation_shows(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """An arm that does not turn has not tilted anything."""

    def stay(self: Workcell, arm: Any, T_goal: Any, scale: float = 1.0) -> None:
        self.wait(arm, 2)

    def act(self: Skill, cell: Workcell) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Workcell, "move_straight", stay)
            tilts(self, cell)

    tilts = module.Tilt.act
    monkeypatch.setattr(module.Tilt, "act", act)
    task, rng = parse_task(TASK), np.random.default_rng(0)
    with pytest.raises(DemonstrationFailed, match=r"leaned by 0\.0\d rad only") as failure:
        plan_episode(task, randomize_layout(task, rng), rng)
    assert failure.value.reason == "skill_failed"


def test_without_a_thing_in_the_hand_the_reason_is_told(module: ModuleType) -> None:
    task, rng = parse_task({**TASK, "skills": TASK["skills"][1:]}), np.random.default_rng(0)
    with pytest.raises(PlanningFailed, match="no arm holds cup: pick it first") as failure:
        plan_episode(task, randomize_layout(task, rng), rng)
    assert failure.value.reason == "precondition"


def test_a_number_that_cannot_be_meant_is_refused(module: ModuleType) -> None:
    skills = [TASK["skills"][0], {"skill": "tilt", "with": {"object": "$cup", "angle_rad": 3}}]
    with pytest.raises(ArgumentsError, match="angle_rad"):
        parse_task({**TASK, "skills": skills})


@pytest.mark.processes
def test_the_job_is_checked_and_run(folder: Path, tmp_path: Path) -> None:
    checked = nimbusctl(folder, "check", "job.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    output = tmp_path / "out"
    few = ("--set", "episodes_per_scene=1", "--workers", "1", "--spares", "0")
    run = nimbusctl(folder, "run", "job.yaml", "--output", str(output), "--json", *few)
    assert run.returncode == 0, run.stdout + run.stderr
    assert open_dataset(output).episodes == 1
    for line in (output / "dataset/meta/nimbusd_episodes.jsonl").read_text().splitlines():
        assert "tilt the" in line


def test_the_page_names_what_a_skill_and_a_workcell_have() -> None:
    tables = [re.findall(r"^\| (`.*?) \|", part, re.MULTILINE) for part in TEXT.split("\n## ")]
    of_the_class = {word for row in tables[1] for word in re.findall(r"`(\w+)`", row)}
    assert {name for name in of_the_class if not hasattr(Skill, name)} == {"name"}
    for row in tables[2]:
        for call in re.findall(r"cell\.(\w+)\(", row):
            assert callable(getattr(Workcell, call)), call
    reasons = set(re.findall(r"`(\w+_\w+|precondition|dropped)`", TEXT.partition("| method |")[2].partition("\n\n")[0]))
    assert reasons <= set(REASONS)
