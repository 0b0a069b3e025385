"""YAML with a memory: every value knows the line it stands on, and no key is given twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nimbusd.job.problems import JobError, Problem
from nimbusd.stages.arguments import Key, dotted

_MERGE_TAG = "tag:yaml.org,2002:merge"


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
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise JobError(path, [Problem(str(path), f"the job file cannot be read: {reason}")]) from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise JobError(path, [Problem(f"{path}:{line}", f"not valid YAML: {error.problem}")]) from error
    if not isinstance(root, yaml.MappingNode):
        raise JobError(path, [Problem(str(path), "a job file is a mapping of keys, such as `name: my_job`")])
    walk = _Walk(path)
    walk.visit(root, ())
    if walk.problems:
        raise JobError(path, walk.problems)
    source = Source(path, yaml.load(text, Loader=yaml.SafeLoader), walk.places)
    problems = [problem for text in overrides if (problem := _override(source, text))]
    if problems:
        raise JobError(path, problems)
    return source


class _Walk:
    """Notes the line of every value and the keys that are given twice."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: dict[tuple[Key, ...], str] = {}
        self.problems: list[Problem] = []

    def visit(self, node: yaml.Node, path: tuple[Key, ...]) -> None:
        self.places.setdefault(path, f"{self.path}:{node.start_mark.line + 1}")
        if isinstance(node, yaml.SequenceNode):
            for position, item in enumerate(node.value):
                self.visit(item, (*path, position))
        elif isinstance(node, yaml.MappingNode):
            self._visit_mapping(node, path)

    def _visit_mapping(self, node: yaml.MappingNode, path: tuple[Key, ...]) -> None:
        seen: dict[str, int] = {}
        for key, value in node.value:
            if key.tag == _MERGE_TAG:
                continue
            line = key.start_mark.line + 1
            place = f"{self.path}:{line}"
            if not isinstance(key, yaml.ScalarNode):
                self.problems.append(Problem(place, "a key must be a word"))
                continue
            name = str(key.value)
            if name in seen:
                self.problems.append(Problem(place, f"key '{name}' is given twice, first on line {seen[name]}"))
            seen[name] = line
            self.places[(*path, name)] = place
            self.visit(value, (*path, name))


def _override(source: Source, text: str) -> Problem | None:
    """Apply one `KEY=VALUE` to `source`; a Problem where it cannot be."""
    key, equals, written = text.partition("=")
    where = f"--set {key}"
    if not equals or not key:
        return Problem(where, "an override is written KEY=VALUE, such as scenes.0.path=/data/house.glb")
    try:
        value = yaml.safe_load(written)
    except yaml.YAMLError:
        return Problem(where, f"the value {written!r} is not valid YAML; put it in quotes")
    keys = [int(part) if part.isdigit() else part for part in key.split(".")]
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
