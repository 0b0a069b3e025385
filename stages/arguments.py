"""Validation of what people write: pydantic's errors as sentences that name the key and the nearest right one."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, Union

from pydantic import BaseModel, ValidationError

from nimbusd.stages.errors import ComponentError

Key = str | int
M = TypeVar("M", bound=BaseModel)

_MISSING = object()
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong in a value. path: keys and list positions from the value's root; text: a sentence."""

    path: tuple[Key, ...]
    text: str

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.text}" if self.path else self.text


class ArgumentsError(ComponentError):
    """Arguments do not fit their model. subject: whose. mistakes: every one of them, not only the first."""

    def __init__(self, subject: str, mistakes: Iterable[Mistake]) -> None:
        self.subject, self.mistakes = subject, tuple(mistakes)
        super().__init__(f"{subject}: " + "; ".join(str(mistake) for mistake in self.mistakes))


def dotted(path: Iterable[Key]) -> str:
    """`scenes.0.path`: how `--set` and messages write a path."""
    return ".".join(str(key) for key in path)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion to end a sentence with: the nearest known word, else all of them."""
    known = sorted(known)
    if nearest := difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6):
        return f"did you mean '{nearest[0]}'?"
    by_lower = {name.lower(): name for name in known}
    if nearest := difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6):
        return f"did you mean '{by_lower[nearest[0]]}'?"
    return f"known are: {', '.join(known)}" if known else "nothing is known here"


def validate(model: type[M], value: Mapping[str, Any], subject: str) -> M:
    """`value` as an instance of `model`. Raises ArgumentsError with all mistakes, named `subject`."""
    try:
        return model.model_validate(dict(value))
    except ValidationError as error:
        raise ArgumentsError(subject, mistakes_of(error, model)) from error


def mistakes_of(error: ValidationError, model: type[BaseModel]) -> list[Mistake]:
    """Every error of a pydantic validation of `model`, in the order of the model's checks."""
    return [_mistake(detail, model) for detail in error.errors(include_url=False)]


def _mistake(detail: Any, model: type[BaseModel]) -> Mistake:
    path = tuple(detail["loc"])
    kind = detail["type"]
    if kind == "extra_forbidden":
        known = _keys_at(model, path[:-1])
        return Mistake(path, f"unknown key '{path[-1]}'; {did_you_mean(str(path[-1]), known)}")
    if kind == "missing":
        return Mistake(path, f"key '{path[-1]}' is missing")
    if kind == "value_error":
        return Mistake(path, str(detail["ctx"]["error"]))
    text = detail["msg"][0].lower() + detail["msg"][1:]
    given = detail.get("input", _MISSING)
    if given is _MISSING or isinstance(given, (dict, list)):
        return Mistake(path, text)
    shown = repr(given)
    if len(shown) > _SHOWN_CHARACTERS:
        shown = shown[:_SHOWN_CHARACTERS] + "…"
    return Mistake(path, f"{text}, but it is {shown}")


def _keys_at(model: type[BaseModel], path: Iterable[Key]) -> set[str]:
    """The keys that models reachable at `path` know. Union tags in pydantic's path are passed over."""
    kinds: list[Any] = [model]
    for key in path:
        models = [kind for kind in _flat(kinds) if _is_model(kind)]
        fields = [
            field.annotation
            for kind in models
            for name, field in kind.model_fields.items()
            if key in (name, field.alias)
        ]
        items = [arg for kind in _flat(kinds) for arg in typing.get_args(kind) if not _is_model(kind)]
        kinds = fields or items or kinds
    return {
        field.alias or name for kind in _flat(kinds) if _is_model(kind) for name, field in kind.model_fields.items()
    }


def _flat(kinds: Iterable[Any]) -> list[Any]:
    """Unions and Annotated taken apart."""
    flat: list[Any] = []
    for kind in kinds:
        origin = typing.get_origin(kind)
        if origin in (Union, types.UnionType):
            flat += _flat(typing.get_args(kind))
        elif origin is typing.Annotated:
            flat += _flat(typing.get_args(kind)[:1])
        else:
            flat.append(kind)
    return flat


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
