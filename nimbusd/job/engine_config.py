"""A configuration of the open-source engine whose keys are ticked off as they are used, so that none gets lost.

Keys that are neither taken nor remarked on by the end are reported as left out, whether we know them or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nimbusd.job.problems import JobError, Problem
from nimbusd.job.source import Source, as_mapping
from nimbusd.stages.plain import Key

_REFERENCE = re.compile(r"\$\{([^${}]*)\}")
_MOST_REFERENCES = 10_000
_LEFT_OUT = "is left out: a job has nothing like it"


class EngineConfig:
    """A parsed configuration with its references (`${name}`, `${load_stage.…}`) filled in.

    name: what `${name}` means where the configuration has no name.
    """

    def __init__(self, source: Source, name: str) -> None:
        self.path = source.path
        self._source = source
        self._written = {"name": name, **source.value}
        self._unfilled: list[tuple[tuple[Key, ...], str]] = []
        self._followed = 0
        self.value: Mapping[Key, Any] = {
            key: self._filled(value, (key,)) for key, value in source.value.items()
        }  # keys may be anything that YAML allows
        self._used: set[tuple[Key, ...]] = set()
        self._remarks: list[Problem] = []

    def __contains__(self, key: str) -> bool:
        return key in self.value

    def at(self, *path: Key) -> Any:
        """The value there, None if there is none. Does not tick it off."""
        value: Any = self.value
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def mapping(self, *path: Key) -> Mapping[Any, Any]:
        """The mapping that stands there, else an empty one. Does not tick it off."""
        return as_mapping(self.at(*path))

    def take(self, *path: Key) -> Any:
        """The value there, ticked off with all that is in it."""
        self._used.add(path)
        return self.at(*path)

    def is_used(self, *path: Key) -> bool:
        """True if it was taken or remarked on."""
        return path in self._used

    def remark(self, path: Iterable[Key], text: str) -> None:
        """Say `text` about what stands there, which is ticked off."""
        keys = tuple(path)
        self._used.add(keys)
        self._remarks.append(Problem(self.where(keys), text))

    def where(self, path: Iterable[Key]) -> str:
        """The file and line of `path`, or of what is around it."""
        return self._source.where(path)

    def remarks(self) -> tuple[Problem, ...]:
        """All that was said, and what was used by nobody, by line."""
        for path, reference in self._unfilled:
            self._remarks.append(
                Problem(self.where(path), f"'{reference}' has no value in this file; write it in the job yourself")
            )
        for path in self._unused((), self.value):
            self.remark(path, f"'{'.'.join(str(key) for key in path)}' {_LEFT_OUT}")
        return tuple(sorted(self._remarks, key=_line))

    def _unused(self, path: tuple[Key, ...], value: Any) -> Iterator[tuple[Key, ...]]:
        """The outermost keys in which nothing was used."""
        if path in self._used:
            return
        touched = not path or any(used[: len(path)] == path for used in self._used)
        if not touched:
            yield path
            return
        for key, item in as_mapping(value).items():
            yield from self._unused((*path, key), item)

    def _filled(self, value: Any, place: tuple[Key, ...], inside: tuple[str, ...] = ()) -> Any:
        """`value` with every reference replaced by what it refers to; those that lead nowhere stay."""
        if isinstance(value, Mapping):
            return {key: self._filled(item, (*place, key), inside) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item, (*place, position), inside) for position, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        if whole := _REFERENCE.fullmatch(value):
            return self._referred(whole, place, inside)
        return _REFERENCE.sub(lambda found: str(self._referred(found, place, inside)), value)

    def _referred(self, found: re.Match[str], place: tuple[Key, ...], inside: tuple[str, ...]) -> Any:
        word = found[1].strip()
        self._followed += 1
        if self._followed > _MOST_REFERENCES:
            text = f"more than {_MOST_REFERENCES:,} references ('${{name}}'), those within what is referred to included"
            raise JobError([Problem(self.where(place), text)])
        target: Any = self._written
        for key in word.split("."):
            target = as_mapping(target).get(key)
        if target is None or word in inside:
            self._unfilled.append((place, found[0]))
            return found[0]
        return self._filled(target, place, (*inside, word))


def is_filled(text: str) -> bool:
    """True where no reference is left in `text`."""
    return "${" not in text


def _line(remark: Problem) -> int:
    line = remark.where.rpartition(":")[2]
    return int(line) if line.isdigit() else 0
