"""Finding components by name: a registered word such as `NavPlanner`, or `package.module:Class`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, overload

from nimbusd.stages.arguments import did_you_mean, validate
from nimbusd.stages.base import BaseLoader, BasePlanner, BaseRandomizer, BaseRenderer, BaseWriter, Component
from nimbusd.stages.errors import ComponentError
from nimbusd.stages.modules import what_is_missing
from nimbusd.stages.stage_names import Stage

GROUP = "nimbusd.components"

_BASES: Mapping[Stage, type[Component[Any]]] = {
    "load": BaseLoader,
    "randomize": BaseRandomizer,
    "plan": BasePlanner,
    "render": BaseRenderer,
    "store": BaseWriter,
}


@cache
def registered() -> Mapping[str, EntryPoint]:
    """Name → entry point of every component that installed packages register, sorted by name."""
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


@overload
def resolve(name: str, stage: Literal["load"]) -> type[BaseLoader[Any, Any]]: ...
@overload
def resolve(name: str, stage: Literal["randomize"]) -> type[BaseRandomizer[Any]]: ...
@overload
def resolve(name: str, stage: Literal["plan"]) -> type[BasePlanner[Any]]: ...
@overload
def resolve(name: str, stage: Literal["render"]) -> type[BaseRenderer[Any]]: ...
@overload
def resolve(name: str, stage: Literal["store"]) -> type[BaseWriter[Any]]: ...
@overload
def resolve(name: str, stage: Stage) -> type[Component[Any]]: ...
def resolve(name: str, stage: Stage) -> type[Component[Any]]:
    """The class called `name`, which must extend the base class of `stage`.

    Raises ComponentError for a name that nothing answers to (naming the nearest, or all), a module that
    cannot be imported, or a class of another stage.
    """
    found = _by_path(name) if ":" in name else _by_word(name)
    base = _BASES[stage]
    if not (isinstance(found, type) and issubclass(found, Component)):
        raise ComponentError(f"component '{name}' is {found!r}, not a class that extends {base.__name__}")
    if not issubclass(found, base):
        extends = next(cls.__name__ for cls in found.__mro__ if cls in _BASES.values() or cls is Component)
        raise ComponentError(f"component '{name}' extends {extends}, but the stage '{stage}' needs a {base.__name__}")
    if missing := sorted(found.__abstractmethods__):
        raise ComponentError(f"component '{name}' does not implement {', '.join(missing)}() of {base.__name__}")
    return found


@overload
def create(name: str, stage: Literal["load"], args: Mapping[str, Any]) -> BaseLoader[Any, Any]: ...
@overload
def create(name: str, stage: Literal["randomize"], args: Mapping[str, Any]) -> BaseRandomizer[Any]: ...
@overload
def create(name: str, stage: Literal["plan"], args: Mapping[str, Any]) -> BasePlanner[Any]: ...
@overload
def create(name: str, stage: Literal["render"], args: Mapping[str, Any]) -> BaseRenderer[Any]: ...
@overload
def create(name: str, stage: Literal["store"], args: Mapping[str, Any]) -> BaseWriter[Any]: ...
@overload
def create(name: str, stage: Stage, args: Mapping[str, Any]) -> Component[Any]: ...
def create(name: str, stage: Stage, args: Mapping[str, Any]) -> Component[Any]:
    """A component made from `args`. Raises ComponentError as `resolve`, and ArgumentsError for bad `args`."""
    component = resolve(name, stage)
    return component(validate(component.args_model, args, f"arguments of component '{name}'"))


def _by_word(name: str) -> object:
    points = registered()
    point = points.get(name)
    if point is None:
        raise ComponentError(
            f"no component is called '{name}' (a class of yours is named package.module:Class); "
            f"{did_you_mean(name, points)}"
        )
    try:
        return point.load()
    except Exception as error:
        raise ComponentError(f"component '{name}' ({point.value}) cannot be imported: {_why(error)}") from error


def _by_path(path: str) -> object:
    module_name, _, class_name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and module_name.partition(".")[0] != error.name.partition(".")[0]:
            raise ComponentError(f"component '{path}' cannot be imported: {_why(error)}") from error
        raise ComponentError(
            f"component '{path}': module '{module_name}' cannot be imported ({error}); "
            f"install its package, or put its folder on PYTHONPATH"
        ) from error
    except Exception as error:
        raise ComponentError(f"component '{path}': module '{module_name}' cannot be imported: {_why(error)}") from error
    found = getattr(module, class_name, None)
    if found is None:
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        raise ComponentError(
            f"component '{path}': module '{module_name}' has no '{class_name}'; {did_you_mean(class_name, classes)}"
        )
    return found


def _why(error: Exception) -> str:
    """The reason for which a module could not be imported; it may have raised anything."""
    return what_is_missing(error) if isinstance(error, ModuleNotFoundError) else f"{type(error).__name__}: {error}"
