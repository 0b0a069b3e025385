"""YAML with a memory: every value knows the line it stands on, and no key is given twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nimbusd.job.problems import JobError, Problem
from nimbusd.stages.arguments import dotted, shown
from nimbusd.stages.plain import MOST_DEPTH, Key, is_printable
from nimbusd.stages.yaml_text import YamlError, YamlText, read_yaml, read_yaml_file


@dataclass
class Source:
    """A job file's values and where each stands.

    value: plain dicts, lists and scalars. places: path of keys → `job.yaml:LINE` or `--set KEY`.
    """

    path: Path
    value: dict[str, Any]
    places: dict[tuple[Key, ...], str] = field(default_factory=dict)

    def where(self, path: Iterable[Key]) -> str:
        """The place of `path`, or of the nearest thing around it that is in the file."""
        keys = tuple(path)
        while keys not in self.places and keys:
            keys = keys[:-1]
        return self.places.get(keys, str(self.path))


def read_source(path: Path, overrides: Iterable[str] = ()) -> Source:
    """Parse `path`, then apply `KEY=VALUE` overrides (`scenes.0.path=/data/house.glb`; values are YAML).

    Raises JobError for a file that cannot be read, is not a YAML mapping, has a key twice or a bad override.
    """
    read = _read(path)
    if not isinstance(read.value, dict):
        raise JobError([Problem(str(path), "a job file is a mapping of keys, such as `name: my_job`")])
    source = Source(path, read.value, {keys: f"{path}:{line}" for keys, line in read.lines.items()})
    problems = [problem for text in overrides if (problem := _override(source, text))]
    if problems:
        raise JobError(problems)
    return source


def _read(path: Path) -> YamlText:
    try:
        return read_yaml_file(path)
    except OSError as error:
        raise JobError([Problem(str(path), f"the job file cannot be read: {error.strerror}")]) from error
    except YamlError as error:
        raise JobError(Problem(f"{path}:{line}", text) for line, text in error.mistakes) from error


def _override(source: Source, text: str) -> Problem | None:
    """Apply one `KEY=VALUE` to `source`; a Problem where it cannot be."""
    key, equals, written = text.partition("=")
    where = f"--set {key[:100]}"
    if not equals or not key:
        return Problem(where, "an override is written KEY=VALUE, such as scenes.0.path=/data/house.glb")
    try:
        value = read_yaml(written).value
    except YamlError as error:
        (_, wrong), *_ = error.mistakes
        return Problem(where, f"the value {shown(written)}: {wrong}. Put it in quotes if it is text")
    keys = [int(part) if part.isascii() and part.isdecimal() and len(part) < 10 else part for part in key.split(".")]
    if len(keys) > MOST_DEPTH or not all(part == 0 or part for part in keys) or not is_printable(key):
        return Problem(where, "a key is words joined by dots, such as scenes.0.path")
    target: Any = source.value
    for depth, part in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(target, list):
            if not isinstance(part, int) or part >= len(target):
                return Problem(where, f"'{dotted(keys[:depth])}' is a list of {len(target)}; {part!r} is none of them")
        elif not isinstance(target, dict):
            return Problem(where, f"'{dotted(keys[:depth])}' is a plain value and has no key '{part}'")
        if last:
            target[part] = value
        elif isinstance(target, dict) and target.get(part) is None:
            target[part] = {}
        target = target[part]
    prefix = tuple(keys)
    for path in [path for path in source.places if path[: len(prefix)] == prefix]:
        del source.places[path]
    source.places[prefix] = where
    return None


def as_mapping(value: object) -> Mapping[str, Any]:
    """`value` if it is a mapping, else an empty one (what is wrong with it is reported elsewhere)."""
    return value if isinstance(value, Mapping) else {}
