"""The messages between a daemon and its compute workers: frozen dataclasses, packed as msgpack maps.

Every message is safe to repeat. Unknown types, wrong fields and oversized frames raise `MessageError`, which
the receiver counts and drops; they never crash it. Nothing is pickled.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgpack

PROTOCOL_VERSION = 1
MAX_MESSAGE_BYTES = 1 << 20


class MessageError(ValueError):
    """Bytes that are not a message of this protocol."""


@dataclass(frozen=True, slots=True)
class EpisodeRef:
    """An attempt at an episode: the scene, the index in it, and the lease's fencing number."""

    scene: str
    index: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Hello:
    """Worker → daemon, first: who I am. version: of nimbusd."""

    slot: str
    pid: int
    version: str


@dataclass(frozen=True, slots=True)
class Welcome:
    """Daemon → worker: the job to work on. job: `Job.to_dict()`."""

    job: dict[str, Any]
    output: str


@dataclass(frozen=True, slots=True)
class Ready:
    """Worker → daemon: components are made, the backend is open. device: what renders, in words."""

    slot: str
    device: str


@dataclass(frozen=True, slots=True)
class Pull:
    """Worker → daemon: I can take `credit` more leases."""

    slot: str
    credit: int


@dataclass(frozen=True, slots=True)
class Lease:
    """Daemon → worker: make this episode. variant: which randomization of the scene."""

    episode: EpisodeRef
    variant: int


@dataclass(frozen=True, slots=True)
class Beat:
    """Worker → daemon: a thread that works on `episode` is alive; sent at once when a stage begins."""

    slot: str
    episode: EpisodeRef
    stage: str


@dataclass(frozen=True, slots=True)
class Commit:
    """Worker → daemon: the piece is durable. digest: of its manifest; timings_s: stage → seconds."""

    slot: str
    episode: EpisodeRef
    folder: str
    frames: int
    size_bytes: int
    digest: str
    timings_s: dict[str, float]


@dataclass(frozen=True, slots=True)
class Fail:
    """Worker → daemon: this attempt came to nothing. planned: a planning result, not a fault."""

    slot: str
    episode: EpisodeRef
    stage: str
    reason: str
    detail: str
    planned: bool
    evidence: str
    timings_s: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Worker → daemon: leases that I have not started and will not."""

    slot: str
    episodes: tuple[EpisodeRef, ...]


@dataclass(frozen=True, slots=True)
class Fatal:
    """Worker → daemon: no episode can succeed here (the backend is unavailable)."""

    slot: str
    error: str


@dataclass(frozen=True, slots=True)
class Bye:
    """Worker → daemon, last: I leave, and have said all."""

    slot: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Daemon → worker: finish what you have started, give back the rest, and leave."""


Message: TypeAlias = Hello | Welcome | Ready | Pull | Lease | Beat | Commit | Fail | GiveBack | Fatal | Bye | Drain

_TYPES: dict[str, type[Any]] = {cls.__name__: cls for cls in typing.get_args(Message)}


def encode(message: Message) -> bytes:
    """Pack a message. Raises MessageError if it is larger than MAX_MESSAGE_BYTES."""
    body = {f.name: _plain(getattr(message, f.name)) for f in dataclasses.fields(message)}
    packed: bytes = msgpack.packb({"v": PROTOCOL_VERSION, "t": type(message).__name__, "b": body})
    if len(packed) > MAX_MESSAGE_BYTES:
        raise MessageError(f"{type(message).__name__} is {len(packed)} bytes; the limit is {MAX_MESSAGE_BYTES}")
    return packed


def decode(frame: bytes) -> Message:
    """Unpack and check a message. Raises MessageError for anything that is not one."""
    if len(frame) > MAX_MESSAGE_BYTES:
        raise MessageError(f"frame of {len(frame)} bytes; the limit is {MAX_MESSAGE_BYTES}")
    try:
        envelope = msgpack.unpackb(frame, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise MessageError(f"not msgpack: {error}") from error
    if not isinstance(envelope, dict) or set(envelope) != {"v", "t", "b"}:
        raise MessageError("not an envelope of version, type and body")
    if envelope["v"] != PROTOCOL_VERSION:
        raise MessageError(f"protocol version {envelope['v']!r}, this side speaks {PROTOCOL_VERSION}")
    kind = envelope["t"]
    cls = _TYPES.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise MessageError(f"unknown message type {kind!r}")
    message: Message = _build(cls, envelope["b"], cls.__name__)
    return message


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _build(cls: type[Any], body: Any, where: str) -> Any:
    hints = typing.get_type_hints(cls)
    if not isinstance(body, dict) or set(body) != set(hints):
        raise MessageError(f"{where}: expected the fields {sorted(hints)}")
    return cls(**{name: _checked(hint, body[name], f"{where}.{name}") for name, hint in hints.items()})


def _checked(hint: Any, value: Any, where: str) -> Any:
    """`value` as `hint` says, or MessageError. Knows the few shapes that messages use."""
    origin = typing.get_origin(hint) or hint
    if dataclasses.is_dataclass(origin):
        return _build(typing.cast("type[Any]", origin), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise MessageError(f"{where}: expected a list")
        return tuple(_checked(typing.get_args(hint)[0], item, where) for item in value)
    if origin is dict:
        key_hint, value_hint = typing.get_args(hint)
        if not isinstance(value, dict):
            raise MessageError(f"{where}: expected a map")
        return {_checked(key_hint, k, where): _checked(value_hint, v, where) for k, v in value.items()}
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, types.UnionType) or not isinstance(value, origin) or (hint is int and isinstance(value, bool)):
        raise MessageError(f"{where}: expected {getattr(hint, '__name__', hint)}, got {type(value).__name__}")
    return value
