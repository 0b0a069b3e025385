from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from nimbusd.stages.arguments import ArgumentsError
from nimbusd.stages.base import BaseLoader, BasePlanner, BaseRandomizer, BaseRenderer, BaseWriter
from nimbusd.stages.errors import ComponentError
from nimbusd.stages.registry import create, registered, resolve
from tests.support.checked_components import RobotPlanner, RobotPlannerArgs, SeededLoader

CHECKED = "tests.support.checked_components"


def test_a_class_path_resolves_to_the_class() -> None:
    assert resolve(f"{CHECKED}:SeededLoader", "load") is SeededLoader


@pytest.mark.parametrize("name", registered())
def test_every_registered_component_can_be_imported_and_is_of_one_kind(name: str) -> None:
    component = registered()[name].load()
    bases = (BaseLoader, BaseRandomizer, BasePlanner, BaseRenderer, BaseWriter)
    assert [issubclass(component, base) for base in bases].count(True) == 1
    assert not component.__abstractmethods__


def test_a_misspelled_word_names_the_nearest_component() -> None:
    with pytest.raises(ComponentError, match=r"no component is called 'NavPlaner'.*did you mean 'NavPlanner'\?"):
        resolve("NavPlaner", "plan")


def test_a_strange_word_lists_all_components() -> None:
    with pytest.raises(ComponentError, match=r"known are: .*ApartmentLoader, .*NavWriter"):
        resolve("zzzzzz", "plan")


def test_a_class_of_another_kind_is_refused_by_its_base_class() -> None:
    with pytest.raises(ComponentError, match="extends BaseLoader, but the stage 'plan' needs a BasePlanner"):
        resolve(f"{CHECKED}:SeededLoader", "plan")


def test_a_class_that_is_no_component_is_refused() -> None:
    with pytest.raises(ComponentError, match="not a class that extends BasePlanner"):
        resolve(f"{CHECKED}:Robot", "plan")


def test_an_incomplete_component_is_refused_before_anything_runs() -> None:
    with pytest.raises(ComponentError, match=r"does not implement publish\(\) of BaseWriter"):
        resolve(f"{CHECKED}:HalfWriter", "store")


def test_a_missing_module_says_how_to_make_it_known() -> None:
    with pytest.raises(ComponentError, match=r"module 'no_such_package.parts' cannot be imported.*PYTHONPATH"):
        resolve("no_such_package.parts:Thing", "load")


def test_a_missing_class_names_the_nearest_in_its_module() -> None:
    with pytest.raises(ComponentError, match=r"has no 'SeededLoder'; did you mean 'SeededLoader'\?"):
        resolve(f"{CHECKED}:SeededLoder", "load")


def test_arguments_become_the_components_model() -> None:
    planner = create(f"{CHECKED}:RobotPlanner", "plan", {"robot": {"radius_m": 0.3}})
    assert isinstance(planner, RobotPlanner)
    assert planner.args == RobotPlannerArgs.model_validate({"robot": {"radius_m": 0.3}})


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            "import bpy_not_here",
            "'bpy_not_here' is not installed here: install the package that has it",
        ),
        ("raise ModuleNotFoundError(name='bpy')", "'bpy' is not installed here: pip install 'nimbusd[blender]'"),
        (
            "raise ModuleNotFoundError(name='skimage.measure')",
            "not installed here: pip install 'nimbusd[nav]'",
        ),
        ("raise ModuleNotFoundError(name='fast_simplification')", "pip install 'nimbusd[mujoco]'"),
        ("raise RuntimeError('not today')", "cannot be imported: RuntimeError: not today"),
        ("def (", "cannot be imported: SyntaxError: invalid syntax"),
    ],
)
def test_what_a_module_lacks_or_raises_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, sentence: str
) -> None:
    (tmp_path / "lacking.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lacking", raising=False)
    with pytest.raises(ComponentError, match=re.escape(sentence)):
        resolve("lacking:Planner", "plan")


def test_all_mistakes_in_arguments_are_told_with_their_keys_and_the_nearest_right_ones() -> None:
    args = {"fsp": 3, "robot": {"radius": -1, "height_m": "tall"}, "waypoints": [{}, {"hight_m": 1}]}
    with pytest.raises(ArgumentsError) as caught:
        create(f"{CHECKED}:RobotPlanner", "plan", args)
    mistakes = {".".join(map(str, mistake.path)): mistake.text for mistake in caught.value.mistakes}
    assert mistakes == {
        "fsp": "unknown key 'fsp'; did you mean 'fps'?",
        "robot.radius": "unknown key 'radius'; did you mean 'radius_m'?",
        "robot.height_m": "must be a number, but it is 'tall'",
        "waypoints.1.hight_m": "unknown key 'hight_m'; did you mean 'height_m'?",
    }
