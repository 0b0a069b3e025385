"""Plain values, arrays and sequences as bytes (msgpack), for what a planning process tells a rendering one.

Never pickle: what comes from another process must not be able to run anything. `unpack(pack(value))` gives an equal
value of the same types (lists, tuples, arrays with their dtype), the same bytes on every machine of one byte order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeAlias

import msgpack
import numpy as np

from nimbusd.stages.errors import ComponentError
from nimbusd.stages.types import Camera, Feature, Sequence

PlanValue: TypeAlias = Any
"""None, bool, int, float, str, bytes, arrays and scalars of numbers; lists, tuples and dicts of these."""

MAX_BYTES = 1 << 30
_ARRAY, _TUPLE = 1, 2
_HEAD_BYTES = 4
_PICKLE_PROTOCOLS = range(2, 6)


def pack(value: PlanValue) -> bytes:
    """`value` as bytes. Raises ComponentError that names the place of what cannot be packed."""
    try:
        packed: bytes = msgpack.packb(_plain(value, "value"), default=_extension, strict_types=True)
    except (OverflowError, ValueError) as error:
        raise ComponentError(f"this cannot be packed for another process: {error}") from error
    if len(packed) > MAX_BYTES:
        raise ComponentError(f"{len(packed)} bytes are too many: at most {MAX_BYTES} can cross processes")
    return packed


def unpack(packed: bytes) -> PlanValue:
    """Inverse of `pack`. Raises ComponentError for anything else than its output."""
    try:
        return msgpack.unpackb(packed, strict_map_key=False, ext_hook=_value)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ComponentError(f"these {len(packed)} bytes are no packed values: {error}") from error


def is_pickle(content: bytes) -> bool:
    """True if `content` looks like a pickle of protocol 2 to 5."""
    return len(content) > 2 and content[0] == 0x80 and content[1] in _PICKLE_PROTOCOLS and content[-1:] == b"."


def _plain(value: PlanValue, place: str) -> PlanValue:
    """`value` if all in it can be packed, tuples and arrays still in place."""
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.kind not in "biufc":
            raise ComponentError(f"{place} is an array of {value.dtype}; only numbers can cross processes")
        return np.asarray(value) if isinstance(value, np.ndarray) else value
    if isinstance(value, tuple):
        return tuple(_plain(item, f"{place}[{index}]") for index, item in enumerate(value))
    if isinstance(value, list):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        if strange := [key for key in value if not isinstance(key, (str, int))]:
            raise ComponentError(f"{place} has the key {strange[0]!r}; keys are words or whole numbers")
        return {key: _plain(item, f"{place}[{key!r}]") for key, item in value.items()}
    raise ComponentError(
        f"{place} is a {type(value).__module__}.{type(value).__qualname__}; only numbers, text, bytes, "
        "numpy arrays and lists, tuples and dicts of these cross processes. Turn it into these first (a workflow: in "
        "dump_plan_info(), and back in recover_seq_from_mem())."
    )


def _extension(value: PlanValue) -> msgpack.ExtType:
    if isinstance(value, tuple):
        return msgpack.ExtType(_TUPLE, msgpack.packb(list(value), default=_extension, strict_types=True))
    array = np.asarray(value)
    head = msgpack.packb([array.dtype.str, list(array.shape), isinstance(value, np.generic)])
    return msgpack.ExtType(
        _ARRAY, len(head).to_bytes(_HEAD_BYTES, "big") + head + np.ascontiguousarray(array).tobytes()
    )


def _value(code: int, content: bytes) -> PlanValue:
    if code == _TUPLE:
        return tuple(msgpack.unpackb(content, strict_map_key=False, ext_hook=_value))
    if code != _ARRAY:
        raise ValueError(f"unknown extension type {code}")
    end = _HEAD_BYTES + int.from_bytes(content[:_HEAD_BYTES], "big")
    dtype_name, shape, scalar = msgpack.unpackb(content[_HEAD_BYTES:end])
    dtype = np.dtype(dtype_name)
    if dtype.kind not in "biufc":
        raise ValueError(f"array of {dtype}")
    array = np.frombuffer(content, dtype, offset=end).reshape(shape).copy()
    return array[()] if scalar else array


def pack_sequence(seq: Sequence) -> bytes:
    """A sequence as bytes, arrays bit for bit. Raises ComponentError for notes that are no plain values."""
    plain: dict[str, PlanValue] = {entry.name: getattr(seq, entry.name) for entry in fields(seq)}
    plain["cameras"] = [asdict(camera) for camera in seq.cameras]
    for kind in ("states", "actions"):
        plain[kind] = {key: (np.asarray(feature.values), feature.names) for key, feature in plain[kind].items()}
    return pack(plain)


def unpack_sequence(packed: bytes) -> Sequence:
    """Inverse of `pack_sequence`. Raises ComponentError for anything else than its output."""
    plain = unpack(packed)
    try:
        plain["cameras"] = tuple(Camera(**camera) for camera in plain["cameras"])
        for kind in ("states", "actions"):
            plain[kind] = {key: Feature(values, names) for key, (values, names) in plain[kind].items()}
        return Sequence(**plain)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ComponentError(f"these {len(packed)} bytes are not a packed sequence: {error}") from error
