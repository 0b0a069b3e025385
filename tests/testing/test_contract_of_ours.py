"""Our own components keep the contract, every registered one of them, and those of the workflows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from nimbusd.stages.modules import missing_modules
from nimbusd.stages.registry import registered
from nimbusd.stages.workflow.registry import BUILT_IN
from nimbusd.stages.workflow.sim.models.assets import fetched
from nimbusd.testing import ContractVerdict, TestPlan, check_component
from nimbusd.testing.fixtures import scene
from tests.support.front3d_house import write_house
from tests.support.mesh_writers import write_gltf
from tests.support.toy_workflow import task_file

pytestmark = pytest.mark.processes
ENV = {
    "randomize": {"component": "EnvRandomizer"},
    "plan": {"component": "EnvPlanner"},
    "render": {"component": "EnvRenderer"},
}
CUBE = {
    "name": "cube",
    "instructions": ["Lift the {cube}."],
    "cameras": [{"name": "front", "width": 64, "height": 48}],
    "slots": [{"name": "cube", "models": ["cube"], "x_m": [0.4, 0.5], "y_m": [-0.1, 0.0]}],
    "goals": [{"subject": "$cube", "relation": "lifted"}],
    "skills": [{"skill": "pick", "with": {"object": "$cube"}}],
}


@dataclass(frozen=True)
class Case:
    """The needs of a component. write: files into a folder; returns the scene's entry."""

    args: Mapping[str, Any] = field(default_factory=dict)
    write: Callable[[Path], Mapping[str, Any]] = lambda folder: {}
    workflow: str = ""
    """Its other stages are those of this workflow."""
    loader: str = ""
    """Its scene comes from this loader."""
    plan: TestPlan = field(default_factory=lambda: TestPlan(runs=12))
    needs: tuple[str, ...] = ()
    """Modules without which the tester can only say that it cannot try it here."""


def _mesh(folder: Path) -> Mapping[str, Any]:
    return {"path": str(write_gltf(folder / "room.gltf", scene(0).objects))}


def _house(folder: Path) -> Mapping[str, Any]:
    paths = write_house(folder)
    return {"house": str(paths.house), "furniture": str(paths.furniture), "textures": str(paths.textures)}


def _lift(folder: Path) -> Mapping[str, Any]:
    return {"cfg_path": str(task_file(folder))}


def _cube(folder: Path) -> Mapping[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tasks.yaml"
    path.write_text(yaml.safe_dump({"tasks": [CUBE]}))
    return {"cfg_path": str(path)}


FEW = TestPlan(runs=4, twins=2, kills=1)
"""For arms, whose every call plans a motion."""
TOY = "tests.support.toy_workflow:ToyArm"
CASES: Mapping[str, Case] = {
    "ApartmentLoader": Case({"texture_px": 16}, lambda _: {"rooms": 2}),
    "BProcObjLoader": Case(write=_mesh),
    "BProc3DFrontLoader": Case(write=_house),
    "BProc3DFrontPlanner": Case(write=_house, loader="BProc3DFrontLoader"),
    "GSMeshLoader": Case({"gaussians": 2000, "texture_px": 16}, lambda _: {"rooms": 2}, needs=("scipy",)),
    "SCGSRenderer": Case({"backend": "cpu"}, needs=("numba",)),
    "BlenderProcRenderer": Case({"samples": 1}, needs=("bpy",)),
    "MujocoRenderer": Case(write=_cube, workflow="ManipWorkflow", plan=FEW, needs=("mujoco",)),
    "SapienRenderer": Case(needs=("sapien",)),
    "IsaacSimRenderer": Case(needs=("isaacsim",)),
    "EnvLoader": Case({"workflow_type": TOY}, write=_lift),
    "EnvRandomizer": Case(write=_lift, workflow=TOY),
    "EnvPlanner": Case(write=_lift, workflow=TOY),
    "EnvRenderer": Case(write=_lift, workflow=TOY),
    "EnvWriter": Case(write=_lift, workflow=TOY),
    "InternDataA1Writer": Case(write=_lift, workflow=TOY),
    "InternDataM1Writer": Case(write=_lift, workflow=TOY),
    "ManipWorkflow": Case(write=_cube, plan=FEW, needs=("mujoco",)),
}
"""Components that need more than their defaults and the fixtures."""
QUICK = frozenset(
    {"BProcObjLoader", "BProc3DFrontRandomizer", "NavPlanner", "NavWriter", "EnvRenderer", "IsaacSimRenderer"}
)
"""One of each stage, and one that cannot run; the others take long, and are marked so."""
FETCHED = frozenset({"MujocoRenderer", "ManipWorkflow"})
NEED_A_DEVICE = frozenset({"IsaacSimRenderer", "SapienRenderer"})
"""Backends that may find no device, though they are installed: the tester says so."""
STAGE = {"EnvRandomizer": "randomize", "EnvPlanner": "plan", "EnvRenderer": "render", "MujocoRenderer": "render"}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name not in QUICK else []) for name in (*registered(), *BUILT_IN)],
)
def test_a_component_of_ours_keeps_the_contract(name: str, tmp_path: Path) -> None:
    case = CASES.get(name, Case())
    if name in FETCHED and not fetched("robosuite"):
        pytest.skip("needs `nimbusctl assets fetch`")
    beside: dict[str, Any] = {}
    if case.workflow:
        loader = {"component": "EnvLoader", "args": {"workflow_type": case.workflow}}
        beside = {"load": loader, **{stage: spec for stage, spec in ENV.items() if stage != STAGE.get(name)}}
    if case.loader:
        beside = {"load": {"component": case.loader}}
    report = check_component(name, case.args, scene=case.write(tmp_path), beside=beside, plan=case.plan)
    if missing_modules(case.needs) or (name in NEED_A_DEVICE and report["start"].verdict is ContractVerdict.UNTRIED):
        assert report["start"].evidence.startswith("it cannot run here:"), str(report)
        assert not report.failed, str(report)
    else:
        assert not report.failed, str(report)
        assert not report.untried, str(report)
