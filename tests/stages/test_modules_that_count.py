"""Components say all modules that decide what they make: read from the source of what they import."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import nimbusd
from nimbusd.stages.base import Component
from nimbusd.stages.registry import GROUP
from nimbusd.stages.workflow.base import Workflow
from nimbusd.stages.workflow.manip import ManipWorkflow

COUNTS_FOR_EVERY_JOB = {"numpy", "PIL", "av", "pyarrow"}
DECIDES_NOTHING = {"pydantic", "orjson", "yaml", "msgpack", "OpenGL"}
"""They check, pack and parse; OpenGL hands on what MuJoCo and moderngl bring a version of."""
BROUGHT_BY = {"mathutils": "bpy", "omni": "isaacsim", "carb": "isaacsim", "pxr": "isaacsim"}
OF_TASKS = {"curobo", "torch", "sapien"}
"""Modules that tasks of ManipWorkflow choose: `Task.modules` names them."""


def source_of(module: str) -> Path | None:
    place = Path(nimbusd.__file__).parent.joinpath(*module.split(".")[1:])
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


@cache
def imported_by(module: str) -> frozenset[str]:
    """Modules that a module's source imports, at its top or in its functions."""
    path = source_of(module)
    return frozenset() if path is None else frozenset(_imports(ast.parse(path.read_text())))


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield module
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(module)), *_]):
                yield module


def modules_of_others(module: str) -> set[str]:
    """Top-level modules of other packages that a module of ours reaches."""
    seen, found, waiting = set[str](), set[str](), [module]
    while waiting:
        if (one := waiting.pop()) in seen:
            continue
        seen.add(one)
        for name in imported_by(one):
            top = name.partition(".")[0]
            if top != "nimbusd":
                found.add(BROUGHT_BY.get(top, top))
            elif source_of(name) is not None:
                waiting.append(name)
    return found - sys.stdlib_module_names - COUNTS_FOR_EVERY_JOB - DECIDES_NOTHING


def ours() -> list[type[Component[Any]] | type[Workflow]]:
    points = entry_points(group=GROUP)
    return [ManipWorkflow, *(point.load() for point in points if point.value.startswith("nimbusd."))]


@pytest.mark.parametrize("made_by", ours(), ids=lambda made_by: made_by.__name__)
def test_a_component_says_every_module_that_it_imports(made_by: type[Component[Any]] | type[Workflow]) -> None:
    said = {*made_by.requires, *made_by.may_use}
    if issubclass(made_by, ManipWorkflow):
        said |= OF_TASKS
    if "embreex" in modules_of_others(made_by.__module__):
        said |= {"embreex"}  # where the arguments ask for it: `needs`
    assert modules_of_others(made_by.__module__) <= said


def test_the_reading_of_sources_finds_what_is_imported_late_and_by_name() -> None:
    assert {"scipy", "shapely", "DracoPy"} <= modules_of_others("nimbusd.stages.load.mesh.loader")
    assert {"gsplat", "torch", "numba"} <= modules_of_others("nimbusd.renderers.splats.renderer")
    assert modules_of_others("nimbusd.stages.workflow.manip") >= {"ompl", "toppra", "fast_simplification", "curobo"}
