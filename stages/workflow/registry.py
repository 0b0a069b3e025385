"""Finding workflows by name: registered in code, by an installed package's entry point, or `package.module:Class`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from nimbusd.stages.arguments import did_you_mean
from nimbusd.stages.errors import ComponentError
from nimbusd.stages.workflow.base import Workflow

GROUP = "nimbusd.workflows"
"""Entry points: `MyWorkflow = "my_package.my_module:MyWorkflow"`."""

BUILT_IN = {"ManipWorkflow": "nimbusd.stages.workflow.manip:ManipWorkflow"}


@cache
def installed() -> Mapping[str, EntryPoint]:
    """Name → entry point of every workflow that installed packages register, sorted by name."""
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


def workflow_names() -> list[str]:
    """Every name that `workflow_class` answers to, besides paths."""
    return sorted({*Workflow.workflows, *installed(), *BUILT_IN})


def workflow_class(name: str) -> type[Workflow]:
    """The workflow called `name`, or at the path `package.module:Class`.

    Raises ComponentError for a name that nothing answers to (naming the nearest, or all), a module that cannot be
    imported, or a class that is no workflow or lacks methods.
    """
    found = _found(name)
    if not (isinstance(found, type) and issubclass(found, Workflow)):
        raise ComponentError(
            f"workflow '{name}' is {found!r}, not a class that extends nimbusd.stages.workflow.Workflow"
        )
    if missing := sorted(found.__abstractmethods__):
        raise ComponentError(f"workflow '{name}' does not implement {', '.join(missing)}()")
    return found


def create_workflow(
    workflow_type: str, world: Any, task_cfg_path: str, workflow_args: Mapping[str, Any] | None = None
) -> Workflow:
    """A workflow made of `world` and its task file. Raises ComponentError as `workflow_class`, and for wrong args."""
    arguments = dict(workflow_args or {})
    check_workflow_args(workflow_type, arguments)
    return workflow_class(workflow_type)(world, task_cfg_path, **arguments)


def check_workflow_args(workflow_type: str, workflow_args: Mapping[str, Any]) -> None:
    """Raises ComponentError as `workflow_class`, and for arguments that the workflow does not take."""
    made_by = workflow_class(workflow_type)
    try:
        inspect.signature(made_by).bind(None, "", **workflow_args)
    except TypeError as error:
        raise ComponentError(f"workflow '{workflow_type}' cannot be made with these workflow_args: {error}") from error
    made_by.check_args(workflow_args)


def _found(name: str) -> object:
    if ":" not in name:
        if name in Workflow.workflows:
            return Workflow.workflows[name]
        path = installed()[name].value if name in installed() else BUILT_IN.get(name)
        if path is None:
            raise ComponentError(
                f"no workflow is called '{name}' (one of yours is named package.module:Class, or by an entry point of "
                f"the group {GROUP}); {did_you_mean(name, workflow_names())}"
            )
    else:
        path = name
    module_name, _, class_name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ComponentError(
            f"workflow '{name}': module '{module_name}' cannot be imported ({error}); "
            "install its package, or put its folder on PYTHONPATH"
        ) from error
    found = getattr(module, class_name, None)
    if found is None:
        classes = [word for word, value in vars(module).items() if isinstance(value, type)]
        raise ComponentError(
            f"workflow '{name}': module '{module_name}' has no '{class_name}'; {did_you_mean(class_name, classes)}"
        )
    return found
