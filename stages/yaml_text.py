"""YAML as people write it, read within bounds: plain values and the line of each.

A text is looked through as a stream of events first, so that one which would grow without end (aliases of aliases), go
round in circles or nest too deep is refused before anything is made of it. Aliases as such are welcome; each is a copy.
Keys are text, whatever they look like, and so are dates. Numbers may be written as in JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from nimbusd.stages.errors import NimbusError
from nimbusd.stages.plain import MOST_DEPTH, Key, is_printable

MOST_BYTES = 8 << 20
MOST_VALUES = 500_000
MOST_ALIASES = 1_000
_NULL, _BOOL, _INT, _FLOAT, _MERGE = (f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "merge"))
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq")} | {"!"}
_WORDS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}
_FORMS = (
    (_NULL, re.compile(r"~|null|Null|NULL|"), ("~", "n", "N", "")),
    (_BOOL, re.compile(r"(?i:yes|no|true|false|on|off)"), tuple("yYnNtTfFoO")),
    (
        _INT,
        re.compile(r"[-+]?(0b[01_]{1,70}|0x[0-9a-fA-F_]{1,20}|0[0-7_]{0,30}|[1-9][0-9_]{0,30})"),
        tuple("-+0123456789"),
    ),
    (
        _FLOAT,
        re.compile(
            r"[-+]?(\.[0-9]{1,30}([eE][-+]?[0-9]{1,4})?"
            r"|[0-9][0-9_]{0,30}(\.[0-9_]{0,30}([eE][-+]?[0-9]{1,4})?|[eE][-+]?[0-9]{1,4})"
            r"|\.(?i:inf))|\.(?i:nan)"
        ),
        tuple("-+0123456789."),
    ),
    (_MERGE, re.compile("<<"), ("<",)),
)


class YamlError(NimbusError):
    """A text is not YAML that can be used. mistakes: line (from 1) and sentence of each."""

    def __init__(self, mistakes: Iterable[tuple[int, str]]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(f"line {line}: {text}" for line, text in self.mistakes))


@dataclass
class YamlText:
    """The content of a text. value: plain values. lines: path of keys → line, of every value."""

    value: Any = None
    lines: dict[tuple[Key, ...], int] = field(default_factory=dict)

    def line(self, path: Iterable[Key]) -> int:
        """The line of what stands at `path`, or of the nearest thing around it."""
        keys = tuple(path)
        while keys not in self.lines and keys:
            keys = keys[:-1]
        return self.lines.get(keys, 1)


def read_yaml(text: str) -> YamlText:
    """The one document in `text`. Raises YamlError with every key that is given twice, or with what else is wrong."""
    text = text.removeprefix("\ufeff")
    if len(text) > MOST_BYTES:
        _refuse(1, f"the text has {len(text):,} characters; the limit is {MOST_BYTES:,}")
    try:
        _look_through(text)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = str(error.problem or error.context)
        tab = "; indent with spaces" if _is_tab(text, mark) else ""
        _refuse(mark.line + 1 if mark else 1, f"not valid YAML: {words}{tab}")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        _refuse(line, "there is a control character, which YAML does not allow; is this a text file?")
    except UnicodeEncodeError as error:
        _refuse(text.count("\n", 0, error.start) + 1, "there are characters that are not valid text")
    reader = _Reader()
    read = YamlText(None if root is None else reader.value(root, ()), reader.lines)
    if reader.mistakes:
        raise YamlError(reader.mistakes)
    return read


def read_yaml_file(path: Path) -> YamlText:
    """The document in a file, of which no more is read than may be. Raises OSError, or YamlError as `read_yaml`."""
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        _refuse(1, f"the file is larger than {MOST_BYTES:,} bytes")
    try:
        return read_yaml(content.decode())
    except UnicodeDecodeError as error:
        _refuse(content.count(b"\n", 0, error.start) + 1, "not UTF-8 text")


def write_yaml(value: Any) -> str:
    """`value` as a text that `read_yaml` reads, in the order of its keys."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _refuse(line: int, text: str) -> NoReturn:
    raise YamlError([(line, text)])


def _is_tab(text: str, mark: yaml.Mark | None) -> bool:
    """True where the character at `mark` is one."""
    lines = text.splitlines()
    return mark is not None and mark.line < len(lines) and lines[mark.line][mark.column : mark.column + 1] == "\t"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Composes nodes; what a plain scalar is, is decided by _FORMS."""

    yaml_implicit_resolvers: Mapping[str, Any] = {}


class _Dumper(yaml.SafeDumper):
    """Puts text in quotes that would be read as something else."""


_LINE_ENDS = re.compile("[\x85\u2028\u2029]")
"""Ends of lines for YAML beside the usual ones: it folds them, in text that is not in double quotes."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if _LINE_ENDS.search(text) else None)


_Dumper.add_representer(str, _represent_text)


for _tag, _form, _first in _FORMS:
    whole = re.compile(rf"(?:{_form.pattern})\Z")
    _Loader.add_implicit_resolver(_tag, whole, _first)
    _Dumper.add_implicit_resolver(_tag, whole, _first)


def _look_through(text: str) -> None:
    """Raises YamlError for what must not be built. Takes time and memory in proportion to the text."""
    known: dict[str, tuple[int, int]] = {}  # anchor → values and levels below it, aliases followed
    open_: list[_Open] = [_Open("", 0)]
    aliases = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, (yaml.CollectionStartEvent, yaml.ScalarEvent)) and event.tag not in (None, *_PLAIN_TAGS):
            _refuse(line, f"the tag {event.tag!r:.60} has no meaning here; write the value without it")
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append(_Open(event.anchor or "", line))
            values, levels = 0, 0
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = open_.pop()
            values, levels = ended.values + 1, ended.levels + 1
            known[ended.anchor] = values, levels
        elif isinstance(event, yaml.ScalarEvent):
            values, levels = 1, 0
            known[event.anchor or ""] = 1, 0
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
            if any(event.anchor == around.anchor for around in open_):
                _refuse(line, f"'*{event.anchor}' stands inside of what it refers to")
            values, levels = known.get(event.anchor or "", (1, 0))
        else:
            continue
        around = open_[-1]
        around.values += values
        around.levels = max(around.levels, levels)
        if len(open_) - 1 + levels > MOST_DEPTH:
            _refuse(line, f"values are nested more than {MOST_DEPTH} levels deep")
        if around.values > MOST_VALUES:
            _refuse(
                around.line or line, f"more than {MOST_VALUES:,} values; aliases ('*name') count as what they refer to"
            )
        if aliases > MOST_ALIASES:
            _refuse(line, f"more than {MOST_ALIASES:,} aliases ('*name')")


@dataclass
class _Open:
    """A list or mapping that has begun, with what was in it so far."""

    anchor: str
    line: int
    values: int = 0
    levels: int = 0


class _Reader:
    """Makes plain values of nodes, and notes lines and mistakes."""

    def __init__(self) -> None:
        self.lines: dict[tuple[Key, ...], int] = {}
        self.mistakes: list[tuple[int, str]] = []

    def value(self, node: yaml.Node, path: tuple[Key, ...]) -> Any:
        """The value of a node, whose place is `path`."""
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, position)) for position, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        return _scalar(node.tag, node.value)

    def _mapping(self, node: yaml.MappingNode, path: tuple[Key, ...]) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self.mistakes.append((line, "a key must be a word"))
            elif key.tag == _MERGE:
                merged = {**self._merged(value, line), **merged}
            elif not is_printable(key.value):
                self.mistakes.append((line, f"the key {key.value!r:.60} has control characters"))
            else:
                name = str(key.value)
                if name in first:
                    self.mistakes.append((line, f"key '{name}' is given twice, first on line {first[name]}"))
                first[name] = line
                self.lines[(*path, name)] = line
                own[name] = self.value(value, (*path, name))
        return {**merged, **own}

    def _merged(self, node: yaml.Node, line: int) -> dict[str, Any]:
        """The keys that `<<` adds to a mapping: the earlier of several mappings goes before the later."""
        merged: dict[str, Any] = {}
        for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(part, yaml.MappingNode):
                merged = {**_Reader().value(part, ()), **merged}
            else:
                self.mistakes.append((line, "'<<' takes a mapping, or a list of mappings"))
        return merged


def _scalar(tag: str, text: str) -> Any:
    plain = text.replace("_", "")
    if tag == _NULL:
        return None
    if tag == _BOOL:
        return _WORDS[text.lower()]
    if tag == _INT:
        sign, digits = (-1 if plain[0] == "-" else 1), plain.lstrip("+-")
        if digits[:2] in ("0b", "0x"):
            return sign * int(digits, 0) if len(digits) > 2 else text
        return sign * int(digits, 8 if digits[0] == "0" else 10)
    if tag == _FLOAT:
        return float(plain.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
