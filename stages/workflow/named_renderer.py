"""The renderer that a job names for a workflow: `renderer` and `renderer_args` of its `workflow_args`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nimbusd.stages.arguments import ArgumentsError, shown
from nimbusd.stages.base import BaseRenderer
from nimbusd.stages.errors import ComponentError
from nimbusd.stages.registry import create
from nimbusd.stages.workflow.env_components import EnvRenderer

RENDERER = "MujocoRenderer"
"""The renderer of recorded states where a job names no other."""


def named_renderer(workflow_args: Mapping[str, Any]) -> BaseRenderer[Any]:
    """The renderer that a job names, not opened.

    Raises ComponentError, which begins with the key that is wrong: for a name that is unknown or no renderer's, for
    arguments that it does not take, for a renderer of still scenes or of workflows.
    """
    name, args = workflow_args.get("renderer", RENDERER), workflow_args.get("renderer_args")
    if not isinstance(name, str):
        raise ComponentError(f"renderer: must be the name of a component, but it is {shown(name)}")
    if not isinstance(args, Mapping | None):
        raise ComponentError(f"renderer_args: must be a mapping of keys, but it is {shown(args)}")
    try:
        renderer = create(name, "render", args or {})
    except ArgumentsError as error:
        raise ComponentError("; ".join(f"renderer_args.{mistake}" for mistake in error.mistakes)) from error
    except ComponentError as error:
        raise ComponentError(f"renderer: {error}") from error
    if isinstance(renderer, EnvRenderer) or renderer.motion == "none":
        raise ComponentError(
            f"renderer: {type(renderer).__name__} cannot show what arms move; MujocoRenderer does, and those that move "
            "the objects of a scene, such as BlenderProcRenderer"
        )
    return renderer
