"""A planned episode as a file: how a sequence goes from the process that plans to the one that renders.

msgpack, never pickle: a map {"v": version, "sequence": …, "timings_s": …, "began_unix_s": …}. Dataclasses are maps of
their fields, tuples are arrays, numpy arrays an extension type that holds dtype, shape and the raw bytes in C order.
What is read equals what was written, bit for bit, so that an episode does not depend on who rendered it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from nimbusd.stages.errors import NimbusError
from nimbusd.stages.types import Camera, Feature, Sequence

VERSION = 1
MAX_BYTES = 1 << 30
_ARRAY = 1
_KINDS = "biuf"
"""Arrays of booleans, integers and floats: what has one meaning on every machine of a byte order."""


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

    Raises PlanFileError for a sequence that cannot be written (an array of objects, or larger than MAX_BYTES).
    """
    values = {"v": VERSION, **{field.name: getattr(planned, field.name) for field in dataclasses.fields(planned)}}
    data: bytes = msgpack.packb(_plain(values), default=_pack_array, use_bin_type=True)
    if len(data) > MAX_BYTES:
        raise PlanFileError(f"a planned sequence has {len(data)} bytes; more than {MAX_BYTES} cannot be handed on")
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
    data = path.read_bytes()
    try:
        values = msgpack.unpackb(data, ext_hook=_unpack_array, raw=False, max_ext_len=MAX_BYTES, max_bin_len=MAX_BYTES)
        if values["v"] != VERSION:
            raise PlanFileError(f"{path} is a planned episode of version {values['v']!r}, this is version {VERSION}")
        return Planned(_sequence(values["sequence"]), dict(values["timings_s"]), float(values["began_unix_s"]))
    except (KeyError, TypeError, ValueError, AttributeError, msgpack.UnpackException) as error:
        raise PlanFileError(f"{path} holds no planned episode: {error!r}") from error


def _sequence(fields: Mapping[str, Any]) -> Sequence:
    features = {key: {name: _feature(f) for name, f in fields[key].items()} for key in ("states", "actions")}
    return Sequence(**{**fields, "cameras": tuple(Camera(**camera) for camera in fields["cameras"]), **features})


def _feature(fields: Mapping[str, Any]) -> Feature:
    names = fields["names"]
    return Feature(fields["values"], None if names is None else tuple(names))


def _plain(value: object) -> object:
    """Dataclasses as maps of their fields, all the way down."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _pack_array(value: object) -> msgpack.ExtType:
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if isinstance(value, os.PathLike):
        raise PlanFileError(f"a sequence holds a path, {value}, which may mean nothing elsewhere: make it text")
    if not isinstance(value, np.ndarray):
        raise PlanFileError(f"a sequence holds a {type(value).__name__}; only arrays and JSON values can be handed on")
    if value.dtype.kind not in _KINDS:
        raise PlanFileError(f"a sequence holds an array of dtype {value.dtype}; only numbers can be handed on")
    head = msgpack.packb([value.dtype.str, list(value.shape)])
    return msgpack.ExtType(_ARRAY, head + np.ascontiguousarray(value).tobytes())


def _unpack_array(code: int, data: bytes) -> npt.NDArray[Any]:
    if code != _ARRAY:
        raise ValueError(f"unknown extension type {code}")
    unpacker = msgpack.Unpacker()
    unpacker.feed(data[:4096])
    name, shape = unpacker.unpack()
    dtype = np.dtype(name)
    if dtype.kind not in _KINDS:
        raise ValueError(f"an array of dtype {name}")
    return np.frombuffer(data, dtype, offset=unpacker.tell()).reshape(shape).copy()
