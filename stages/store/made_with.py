"""`meta/environment.json`: with which versions of which packages the episodes of a dataset were made.

A piece's record has the packages of the node that made it (`run.environment.packages`); here each set of them is
written once, with the ranges of episodes that it made. Packages may change in the middle of a job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from nimbusd.stages.errors import StoreError

ENVIRONMENT = "meta/environment.json"


@dataclass(frozen=True, slots=True)
class MadeWith:
    """Packages, and the episodes that were made with them.

    packages: version by name; empty where the episodes were made before that was recorded. hash: see `packages_hash`;
    empty where nobody recorded it. episodes: ranges of episode_index, first and last included.
    """

    hash: str
    packages: Mapping[str, str]
    episodes: tuple[tuple[int, int], ...]


def packages_hash(packages: Mapping[str, str]) -> str:
    """SHA-256 (hex) of packages and their versions: nodes with the same one make the same episodes."""
    return hashlib.sha256(orjson.dumps(dict(packages), option=orjson.OPT_SORT_KEYS)).hexdigest()


def environments_of(runs: Iterable[Mapping[str, Any]]) -> list[MadeWith]:
    """The environments of episodes 0 … N - 1, in the order in which they first occur. runs: `run` of their records."""
    episodes: dict[str, list[int]] = {}
    found: dict[str, tuple[str, Mapping[str, str]]] = {}
    for episode, run in enumerate(runs):
        said = run.get("environment") or {}
        packages = said.get("packages") or {}
        digest = packages_hash(packages) if packages else str(said.get("hash", ""))
        episodes.setdefault(digest, []).append(episode)
        if packages or digest not in found:
            found[digest] = (digest, packages)
    return [MadeWith(*found[digest], ranges(indexes)) for digest, indexes in episodes.items()]


def environment_json(environments: Iterable[MadeWith]) -> dict[str, Any]:
    """Content of `meta/environment.json`."""
    return {"environments": [asdict(one) for one in environments]}


def environments_from_json(content: bytes, where: str) -> list[MadeWith]:
    """Inverse of writing `environment_json`. Raises StoreError, which names `where`, if it is not that."""
    try:
        return [
            MadeWith(
                str(row["hash"]),
                {str(name): str(version) for name, version in row["packages"].items()},
                tuple((int(first), int(last)) for first, last in row["episodes"]),
            )
            for row in orjson.loads(content)["environments"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{where} is not a table of environments ({type(error).__name__}: {error})") from error


def joined(parts: Sequence[tuple[int, Sequence[MadeWith]]]) -> list[MadeWith]:
    """The environments of several trees together. parts: of each, its number of episodes and its environments."""
    found: dict[str, MadeWith] = {}
    start = 0
    for episodes, environments in parts:
        for one in environments:
            moved = [(first + start, last + start) for first, last in one.episodes]
            before = found.get(one.hash, MadeWith(one.hash, one.packages, ()))
            found[one.hash] = MadeWith(one.hash, before.packages or one.packages, _merged([*before.episodes, *moved]))
        start += episodes
    return list(found.values())


def ranges(indexes: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Ascending numbers as ranges, first and last included."""
    return _merged((index, index) for index in indexes)


def _merged(parts: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for first, last in parts:
        if merged and merged[-1][1] + 1 == first:
            merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return tuple(merged)
