"""Messages as bytes: a codec made from a tuple of frozen dataclasses, checked field by field.

On the wire a message is a msgpack map {"v": protocol version, "t": class name, "b": fields by name}. Nothing is
pickled. A field may be int, float, str, bool, bytes, a NewType of these, an enum of str, another dataclass,
`tuple[X, ...]`, `tuple[X, Y]`, a NamedTuple, `dict[str, X]`, `X | None`, or Any for what JSON can say (nested at most
MAX_DEPTH deep), each with bounds by `Annotated` (see `bounds`), outside of which a message is malformed for whoever
gets it. Fields with a default may be missing, so that adding such a field changes no version on the reading side;
unknown fields are errors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NoReturn, TypeVar

import msgpack

from nimbusd.transport.codec.compiler import MAX_DEPTH, MAX_INT, Compiler, MessageError

__all__ = ["MAX_DEPTH", "MAX_MESSAGE_BYTES", "Codec", "MessageError", "VersionError"]

MAX_MESSAGE_BYTES = 1 << 20
M = TypeVar("M")


class VersionError(MessageError):
    """A message of another protocol version."""

    def __init__(self, theirs: object, ours: int) -> None:
        super().__init__(
            f"the peer speaks protocol version {theirs!r:.40}, this side speaks version {ours}; "
            "install the same version of nimbusd on both"
        )
        self.version = theirs


class Codec(Generic[M]):
    """Packs and unpacks the messages of one protocol.

    limits: message class → its greatest size in bytes; MAX_MESSAGE_BYTES for the others. any_version: messages that
    are understood whatever version they claim, with fields that are unknown here left out (so that a refusal of a
    version can be read by the refused).
    """

    def __init__(
        self,
        messages: Iterable[type[Any]],
        *,
        version: int,
        limits: Mapping[type[Any], int] | None = None,
        any_version: tuple[type[Any], ...] = (),
    ) -> None:
        self.version = version
        self.messages = tuple(messages)
        self._any_version = frozenset(cls.__name__ for cls in any_version)
        limits = limits or {}
        self.max_bytes = max([MAX_MESSAGE_BYTES, *limits.values()])
        compiler = Compiler()
        self._writers: dict[type[Any], tuple[bytes, Callable[[Any], dict[str, Any]], int]] = {}
        self._readers: dict[str, tuple[Callable[[dict[str, Any]], Any], int]] = {}
        for cls in self.messages:
            limit = limits.get(cls, MAX_MESSAGE_BYTES)
            head = msgpack.packb({"v": version, "t": cls.__name__, "b": 0})[:-1]
            self._writers[cls] = (head, compiler.writer(cls), limit)
            self._readers[cls.__name__] = (compiler.reader(cls), limit)

    def encode(self, message: M) -> bytes:
        """The message as bytes. Raises MessageError if it is too large or holds what msgpack cannot say."""
        cls = type(message)
        try:
            head, write, limit = self._writers[cls]
        except KeyError:
            raise MessageError(f"{cls.__name__} is no message of this protocol") from None
        try:
            frame: bytes = head + msgpack.packb(write(message), buf_size=1024)
        except (ValueError, TypeError, OverflowError, AttributeError) as error:
            raise MessageError(f"{_title(message)} cannot be packed: {error}") from error
        if len(frame) > limit:
            raise MessageError(f"{_title(message)} is {len(frame)} bytes; the limit is {limit}")
        return frame

    def decode(self, frame: bytes) -> M:
        """The message in `frame`, checked. Raises VersionError or another MessageError, and nothing else."""
        if len(frame) > self.max_bytes:
            raise MessageError(f"frame of {len(frame)} bytes; the limit is {self.max_bytes}")
        envelope = _unpack(frame)
        try:
            version, kind, body = envelope["v"], envelope["t"], envelope["b"]
        except (TypeError, KeyError, IndexError):
            raise MessageError("not an envelope of version, type and body") from None
        if len(envelope) != 3 or body.__class__ is not dict:
            raise MessageError("not an envelope of version, type and body")
        try:
            message: M = self._read(len(frame), version, kind, body)
        except MessageError as error:
            request = body.get("request")
            error.request = request if request.__class__ is int and 0 <= request <= MAX_INT else 0
            raise
        return message

    def _read(self, size: int, version: Any, kind: Any, body: dict[str, Any]) -> Any:
        foreign = version.__class__ is not int or version != self.version
        known = kind.__class__ is str and kind in self._readers
        if foreign and not (known and kind in self._any_version):
            raise VersionError(version, self.version)
        if not known:
            raise MessageError(f"unknown message type {kind!r:.60}")
        read, limit = self._readers[kind]
        if size > limit:
            raise MessageError(f"{kind} of {size} bytes; the limit is {limit}")
        if foreign:
            body = _known_fields(next(cls for cls in self.messages if cls.__name__ == kind), body)
        return read(body)


def _unpack(frame: bytes) -> Any:
    try:
        # Lists reserve memory for as many items as they announce, at every level of nesting: a frame of 1 MiB could
        # take hundreds. So walk through it first, which makes nothing, to see that all that is announced is there.
        walker = msgpack.Unpacker(max_buffer_size=len(frame))
        walker.feed(frame)
        walker.skip()
        return msgpack.unpackb(frame, strict_map_key=True, max_ext_len=0, ext_hook=_refuse_extension)
    except (ValueError, msgpack.UnpackException) as error:
        # The library's text may quote the bytes themselves, however many.
        raise MessageError(f"not msgpack: {str(error) or type(error).__name__:.200}") from None


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    raise ValueError(f"extension type {code} of {len(data)} bytes")


def _known_fields(cls: type[Any], body: dict[str, Any]) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(cls)}
    return {name: value for name, value in body.items() if name in names}


def _title(message: object) -> str:
    """What a person looks for in the log: the message's class and what it is about."""
    about = ((name, getattr(message, name, None)) for name in ("node", "job", "scene"))
    said = ", ".join(f"{name} {value!r:.80}" for name, value in about if isinstance(value, str))
    return f"{type(message).__name__} ({said})" if said else type(message).__name__
