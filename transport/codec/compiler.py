"""Readers and writers of dataclasses, compiled into straight code as dataclasses compile their `__init__`.

They are compiled because the master decodes a heartbeat of every node every second.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import MISSING
from typing import Any

from nimbusd.transport.messages.bounds import MOST_INT, Bound

MAX_DEPTH = 32
MAX_INT = MOST_INT
"""msgpack can say integers up to 2**64 - 1, which databases and other languages cannot."""

_INFINITY = float("inf")
_EXACT: dict[type, str] = {int: "int", float: "float", str: "str", bool: "bool", bytes: "bytes"}
_JSON_TYPES = frozenset({int, float, str, bool, type(None), list, dict})


class MessageError(ValueError):
    """Bytes that are not a message of this protocol, or a message that cannot become bytes."""

    request = 0
    """The message's number, if it was a request as far as could be seen: to refuse it by."""


class Compiler:
    """Writes and compiles one reader and one writer per dataclass, nested ones included."""

    def __init__(self) -> None:
        self._readers: dict[type[Any], Callable[[dict[str, Any]], Any]] = {}
        self._writers: dict[type[Any], Callable[[Any], dict[str, Any]]] = {}
        self._names: dict[str, Any] = {}
        """What the code of the class at hand refers to."""

    def reader(self, cls: type[Any]) -> Callable[[dict[str, Any]], Any]:
        """A function from a map of fields to the dataclass, which raises MessageError."""
        if cls not in self._readers:
            outer, self._names = self._names, _READER_NAMES | {"cls": cls}
            required, optional, checks = [], [], []
            hints = typing.get_type_hints(cls, include_extras=True)
            for number, field in enumerate(dataclasses.fields(cls)):
                var, where = f"f_{field.name}", f"{cls.__name__}.{field.name}"
                check = self._check(hints[field.name], var, where)
                if field.default is MISSING and field.default_factory is MISSING:
                    required.append(f"{var} = body[{field.name!r}]")
                    checks += check
                    continue
                made = field.default is MISSING
                self._names[f"default_{number}"] = field.default_factory if made else field.default
                optional += [
                    f"if {field.name!r} in body:",
                    f"    {var} = body[{field.name!r}]",
                    "    known += 1",
                    *(f"    {line}" for line in check),
                    "else:",
                    f"    {var} = default_{number}" + ("()" if made else ""),
                ]
            lines = ["try:", *(f"    {line}" for line in required or ["pass"])]
            lines += ["except KeyError:", "    raise wrong_fields(cls, body) from None", f"known = {len(required)}"]
            lines += [*optional, "if len(body) != known:", "    raise wrong_fields(cls, body)", *checks]
            lines.append(f"return cls({', '.join(f'f_{field.name}' for field in dataclasses.fields(cls))})")
            self._readers[cls] = _compiled(f"read_{cls.__name__}", "body", lines, self._names)
            self._names = outer
        return self._readers[cls]

    def writer(self, cls: type[Any]) -> Callable[[Any], dict[str, Any]]:
        """A function from the dataclass to a map of fields that msgpack can pack."""
        if cls not in self._writers:
            outer, self._names = self._names, {}
            hints = typing.get_type_hints(cls)
            items = [f"{f.name!r}: {self._dump(hints[f.name], f'message.{f.name}')}" for f in dataclasses.fields(cls)]
            body = [f"return {{{', '.join(items)}}}"]
            self._writers[cls] = _compiled(f"write_{cls.__name__}", "message", body, self._names)
            self._names = outer
        return self._writers[cls]

    def _check(self, hint: Any, var: str, where: str) -> list[str]:
        """Lines that leave in `var` what `hint` says, or raise."""
        hint = _without_new_types(hint)
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if hint is Any:
            return [f"check_json({where!r}, {var})"]
        if origin is typing.Annotated:
            return [*self._check(args[0], var, where), *self._check_bounds(args[1:], var, where)]
        if hint is int:
            return [f"if {var}.__class__ is not int or {var} > max_int:", f"    raise wrong({where!r}, 'int', {var})"]
        if hint is float:
            return [
                f"if {var}.__class__ is int:",
                f"    {var} = float({var})",
                f"if {var}.__class__ is not float or not -infinity < {var} < infinity:",
                f"    raise wrong({where!r}, 'float', {var})",
            ]
        if hint in _EXACT:
            kind = _EXACT[hint]
            return [f"if {var}.__class__ is not {kind}:", f"    raise wrong({where!r}, {kind!r}, {var})"]
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            members = self._name(hint.__name__, {member.value: member for member in hint})
            return [
                f"if {var}.__class__ is not str or {var} not in {members}:",
                f"    raise out_of_bounds({where!r}, {'one of ' + ', '.join(member.value for member in hint)!r})",
                f"{var} = {members}[{var}]",
            ]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            read = self._name(f"read_{hint.__name__}", self.reader(hint))
            return [
                f"if {var}.__class__ is not dict:",
                f"    raise wrong({where!r}, 'a map', {var})",
                f"{var} = {read}({var})",
            ]
        if origin in (typing.Union, types.UnionType) and len(args) == 2 and args[1] is type(None):
            return [f"if {var} is not None:", *(f"    {line}" for line in self._check(args[0], var, where))]
        if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
            start = [f"if {var}.__class__ is not list:", f"    raise wrong({where!r}, 'a list', {var})"]
            return [*start, *self._check_items(args[0], var, var, where), f"{var} = tuple({var})"]
        if origin is tuple:
            return self._check_tuple(args, var, where, made="")
        if _is_named_tuple(hint):
            fields = typing.get_type_hints(hint, include_extras=True)
            return self._check_tuple(tuple(fields.values()), var, where, made=self._name(hint.__name__, hint))
        if origin is dict and args[0] is str:
            return [
                f"if {var}.__class__ is not dict:",
                f"    raise wrong({where!r}, 'a map', {var})",
                f"if not only_str(map(type, {var})):",
                f"    raise wrong_items({where!r}, 'str as keys')",
                *self._check_items(args[1], var, f"{var}.values()", where),
            ]
        raise TypeError(f"{where}: messages cannot have fields of type {hint}")

    def _check_tuple(self, hints: tuple[Any, ...], var: str, where: str, made: str) -> list[str]:
        """Lines for a list of so many items. made: the name of the class to make of them; empty: a tuple."""
        text = f"a list of {len(hints)}"
        items = ", ".join(f"{self._item(hint, where)}({var}[{i}])" for i, hint in enumerate(hints))
        return [
            f"if {var}.__class__ is not list or len({var}) != {len(hints)}:",
            f"    raise wrong({where!r}, {text!r}, {var})",
            f"{var} = {made}({items},)",
        ]

    def _check_bounds(self, bounds: Iterable[Bound], var: str, where: str) -> list[str]:
        """Lines that raise if what is in `var`, whose type is right, is out of bounds."""
        lines = []
        for bound in bounds:
            broken = bound.broken(var, self._name)
            lines += [f"if {broken}:", f"    raise out_of_bounds({where!r}, {bound.words!r})"]
        return lines

    def _check_items(self, hint: Any, var: str, items: str, where: str) -> list[str]:
        """Lines that check all items of the list or the values of the map in `var`; short ones for plain types."""
        hint = _without_new_types(hint)
        if hint is Any:
            return [f"check_json({where!r}, {var})"]
        if typing.get_origin(hint) is typing.Annotated and hint.__origin__ in (str, int):
            lines = self._check_items(hint.__origin__, var, items, where)
            for bound in hint.__metadata__:
                broken = bound.broken("item", self._name)
                lines += [f"if any({broken} for item in {items}):"]
                lines += [f"    raise out_of_bounds({where!r}, {bound.words!r})"]
            return lines
        if hint in (str, int, bool, bytes):
            kind = _EXACT[hint]
            large = f" or ({var} and max({items}) > max_int)" if hint is int else ""
            bad = f"if not only_{kind}(map(type, {items})){large}:"
            return [bad, f"    raise wrong_items({where!r}, {kind!r})"]
        item = self._item(hint, where)
        if items == var:
            return [f"{var} = map({item}, {var})"]
        return [f"{var} = {{key: {item}(value) for key, value in {var}.items()}}"]

    def _item(self, hint: Any, where: str) -> str:
        """The name of a function that checks one item."""
        lines = [*self._check(hint, "item", where), "return item"]
        function = _compiled("check_item", "item", lines, self._names)
        return self._name("item", function)

    def _dump(self, hint: Any, value: str) -> str:
        """An expression for `value` as msgpack takes it."""
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            return f"{value}.value"
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            return f"{self._name(f'write_{hint.__name__}', self.writer(hint))}({value})"
        if origin in (typing.Union, types.UnionType):
            dumped = self._dump(args[0], value)
            return value if dumped == value else f"(None if {value} is None else {dumped})"
        if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
            dumped = self._dump(args[0], "item")
            return value if dumped == "item" else f"[{dumped} for item in {value}]"
        if origin is dict:
            dumped = self._dump(args[1], "item")
            return value if dumped == "item" else f"{{key: {dumped} for key, item in {value}.items()}}"
        return value

    def _name(self, wish: str, value: object) -> str:
        name = f"{wish}_{len(self._names)}"
        self._names[name] = value
        return name


# --- what the compiled code calls ---


def _without_new_types(hint: Any) -> Any:
    """A hint with the types that its NewTypes are made of."""
    if isinstance(hint, typing.NewType):
        return _without_new_types(hint.__supertype__)
    if typing.get_origin(hint) is typing.Annotated and isinstance(hint.__origin__, typing.NewType):
        return typing.Annotated[(_without_new_types(hint.__origin__), *hint.__metadata__)]
    return hint


def _is_named_tuple(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields")


def _wrong(where: str, expected: str, value: object) -> MessageError:
    got = "one out of range" if type(value).__name__ == expected else type(value).__name__
    return MessageError(f"{where}: expected {expected}, got {got}")


def _wrong_items(where: str, expected: str) -> MessageError:
    return MessageError(f"{where}: expected only {expected} in it")


def _out_of_bounds(where: str, expected: str) -> MessageError:
    return MessageError(f"{where}: expected {expected}")


def _wrong_fields(cls: type[Any], body: dict[str, Any]) -> MessageError:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    required = {n for n, f in fields.items() if f.default is MISSING and f.default_factory is MISSING}
    missing = sorted(required.difference(body))
    unknown = sorted(f"{name!r:.40}" for name in body if name not in fields)[:8]
    said = [f"the fields {', '.join(missing)} are missing"] if missing else []
    said += [f"the fields {', '.join(unknown)} are unknown"] if unknown else []
    return MessageError(f"{cls.__name__}: {' and '.join(said)}")


def _check_json(where: str, value: object) -> None:
    """Only what JSON can say, and not too deep: who gets it may walk it by recursion."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        if not _JSON_TYPES.issuperset(map(type, level)):
            raise MessageError(f"{where}: expected what JSON can say")
        deeper: list[Any] = []
        for item in level:
            if item.__class__ is dict:
                if not all(key.__class__ is str for key in item):
                    raise MessageError(f"{where}: expected only str as keys")
                deeper += item.values()
            elif item.__class__ is list:
                deeper += item
        if not deeper:
            return
        level = deeper
    raise MessageError(f"{where}: nested more than {MAX_DEPTH} deep")


_READER_NAMES: dict[str, Any] = {
    "max_int": MAX_INT,
    "infinity": _INFINITY,
    "wrong": _wrong,
    "wrong_items": _wrong_items,
    "wrong_fields": _wrong_fields,
    "out_of_bounds": _out_of_bounds,
    "check_json": _check_json,
    **{f"only_{kind.__name__}": frozenset({kind}).issuperset for kind in (str, int, bool, bytes)},
}


def _compiled(name: str, argument: str, lines: list[str], names: dict[str, Any]) -> Callable[[Any], Any]:
    source = f"def {name}({argument}):\n" + "\n".join(f"    {line}" for line in lines)
    scope: dict[str, Any] = names
    exec(compile(source, f"<codec {name}>", "exec"), scope)
    function: Callable[[Any], Any] = scope.pop(name)
    return function
