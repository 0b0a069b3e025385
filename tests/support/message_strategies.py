"""Hypothesis strategies for any message, made from its type hints."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from typing import Any

from hypothesis import strategies as st

from nimbusd.transport.messages.bounds import Keys, Length, Letters, Printable, Range, plain_line

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)

_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    Any: JSON,
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(max_size=12),
    bool: st.booleans(),
    bytes: st.binary(max_size=12),
}


def messages_of(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Any message of this class."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return st.builds(cls, **{field.name: _values(hints[field.name]) for field in dataclasses.fields(cls)})


def _within(hint: Any, bounds: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """Values of a type that keep to bounds, mostly near them."""
    hint = getattr(hint, "__supertype__", hint)
    match bounds:
        case (Range(low, high),) if hint is int:
            return st.integers(int(low), int(high))
        case (Range(low, high),):
            return st.floats(low, high)
        case (Letters(pattern),):
            return st.from_regex(pattern, fullmatch=True)
        case (Length(_, least), Printable()):
            return st.text(min_size=least, max_size=12).map(lambda text: plain_line(text, 12))
        case (Length(), Keys()) | (Length(),):
            return _values(hint)
    raise AssertionError(f"no strategy for {bounds}")


def _values(hint: Any) -> st.SearchStrategy[Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _within(args[0], args[1:])
    if (made_of := getattr(hint, "__supertype__", None)) is not None:
        return _values(made_of)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    if isinstance(hint, type) and issubclass(hint, tuple):
        fields = typing.get_type_hints(hint)
        return st.builds(hint, **{name: _values(field) for name, field in fields.items()})
    if dataclasses.is_dataclass(hint):
        return messages_of(typing.cast("type[Any]", hint))
    if origin is types.UnionType:
        return st.one_of([st.none() if arg is type(None) else _values(arg) for arg in args])
    if origin is tuple and args[1] is Ellipsis:
        return st.lists(_values(args[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(_values, args))
    assert origin is dict, f"no strategy for {hint}"
    return st.dictionaries(_values(args[0]), _values(args[1]), max_size=3)
