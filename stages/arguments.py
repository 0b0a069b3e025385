"""Validation of what people write: strict, and what is wrong in sentences that name the key and the nearest right one.

Values are taken as JSON says them: text stays text and a truth value never becomes a number, while a path, a choice or
a tuple is made of the text or list that stands for it.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, Union

import orjson
from pydantic import BaseModel, ValidationError

from nimbusd.stages.errors import ComponentError
from nimbusd.stages.plain import Key, unplain

M = TypeVar("M", bound=BaseModel)

_MISSING = object()
_SHOWN_CHARACTERS = 60
_MOST_TOLD = 20


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
        told = [str(mistake) for mistake in self.mistakes[:_MOST_TOLD]]
        if len(self.mistakes) > _MOST_TOLD:
            told.append(f"and {len(self.mistakes) - _MOST_TOLD} more")
        super().__init__(f"{subject}: " + "; ".join(told))


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
    made = parsed(model, value)
    if isinstance(made, list):
        raise ArgumentsError(subject, made)
    return made


def parsed(model: type[M], value: object) -> M | list[Mistake]:
    """`value` as an instance of `model`, or every mistake in it, in the order of the model's checks."""
    found = list(itertools.islice(unplain(value), _MOST_TOLD))
    if found:
        return [Mistake(path, text) for path, text in found]
    try:
        return model.model_validate_json(orjson.dumps(value), strict=True)
    except ValidationError as error:
        return [_mistake(detail, model) for detail in error.errors(include_url=False)]


def _mistake(detail: Any, model: type[BaseModel]) -> Mistake:
    path = tuple(detail["loc"])
    kind, context = detail["type"], {name: _short(value) for name, value in detail.get("ctx", {}).items()}
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _keys_at(model, path[:-1])
        return Mistake(path, f"unknown key {str(path[-1])!r}; {did_you_mean(str(path[-1]), known)}")
    if kind == "missing":
        return Mistake(path, f"key '{path[-1]}' is missing")
    if kind in ("value_error", "assertion_error"):
        return Mistake(path, str(context["error"]))
    if kind in ("string_too_short", "too_short") and context.get("min_length") == 1:
        return Mistake(path, "must not be empty")
    text = _SENTENCES.get(kind, "").format_map(context) or detail["msg"].replace("Input should be", "must be")
    given = detail.get("input", _MISSING)
    if given is _MISSING or isinstance(given, (dict, list)):
        return Mistake(path, text)
    return Mistake(path, f"{text}, but it is {shown(given)}")


def _short(value: object) -> object:
    """`0` for `0.0`."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_SENTENCES = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("string_type", "string_sub_type"), "must be text (put it in quotes)"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"), "must be a list"),
    **dict.fromkeys(("dict_type", "model_type", "mapping_type", "model_attributes_type"), "must be a mapping of keys"),
    "path_type": "must be the path of a file or folder",
    "none_required": "must be left out",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "multiple_of": "must be a multiple of {multiple_of}",
    "string_too_short": "must have {min_length} characters or more",
    "string_too_long": "must have {max_length} characters or less",
    "string_pattern_mismatch": "must match {pattern}",
    "too_short": "must have {min_length} entries or more, and has {actual_length}",
    "too_long": "must have {max_length} entries or less, and has {actual_length}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
}
"""Kind of a pydantic error → what we say of it."""


def shown(value: object) -> str:
    """A plain value as a file would say it, shortened, without control characters."""
    text = _WORDS.get(value, repr(value)) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


_WORDS = {None: "empty", True: "true", False: "false"}


def _keys_at(model: type[BaseModel], path: Iterable[Key]) -> set[str]:
    """The keys that models reachable at `path` know. Union tags in pydantic's path are passed over."""
    kinds: list[Any] = [model]
    for key in path:
        flat = _flat(kinds)
        fields = [annotation for kind in flat for name, annotation in _fields(kind).items() if name == key]
        items = [arg for kind in flat for arg in typing.get_args(kind)]
        kinds = fields or items or kinds
    return {name for kind in _flat(kinds) for name in _fields(kind)}


def _fields(kind: Any) -> dict[str, Any]:
    """Key → type of a model or dataclass; none of anything else."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return {field.name: field.type for field in dataclasses.fields(kind)}
    return {}


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
