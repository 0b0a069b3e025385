"""A planned episode as a file: how a sequence goes from the process that plans to the one that renders.

What is read equals what was written, bit for bit, so that an episode does not depend on who rendered it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nimbusd.stages.errors import ComponentError, NimbusError
from nimbusd.stages.packing import pack, pack_sequence, unpack, unpack_sequence
from nimbusd.stages.types import Sequence

VERSION = 1


class PlanFileError(NimbusError):
    """A file holds no planned episode, or one of another version."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A sequence, and what planning took. timings_s: stage → seconds. began_unix_s: when the episode was begun."""

    sequence: Sequence
    timings_s: Mapping[str, float]
    began_unix_s: float


def write_planned(path: Path, planned: Planned) -> int:
    """Write a file that appears whole or not at all; returns its size in bytes. Not synced: it may be lost with power.

    Raises ComponentError for a sequence with anything in it but plain values and arrays of numbers.
    """
    content = (VERSION, pack_sequence(planned.sequence), dict(planned.timings_s), planned.began_unix_s)
    data = pack(content)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return len(data)


def read_planned(path: Path) -> Planned:
    """The planned episode in a file. Raises PlanFileError if that is none, OSError if it cannot be read."""
    try:
        version, *content = unpack(path.read_bytes())
        if version != VERSION:
            raise PlanFileError(f"{path} is a planned episode of version {version!r}, this is version {VERSION}")
        packed, timings_s, began_unix_s = content
        return Planned(unpack_sequence(packed), dict(timings_s), float(began_unix_s))
    except (ComponentError, TypeError, ValueError) as error:
        raise PlanFileError(f"{path} holds no planned episode: {error}") from error
