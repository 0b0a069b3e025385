"""Damaged control messages, and a loop that feeds them to the decoder."""

from __future__ import annotations

import dataclasses
import enum
import functools
import random
import sys
import time
import types
import typing
from collections import Counter
from collections.abc import Hashable
from typing import Any

import msgpack

from nimbusd.transport.codec.codec import MessageError
from nimbusd.transport.messages import control as c
from nimbusd.transport.messages.bounds import Length, Letters, Printable, Range

_ODD = [0, 1, -1, 2**31, 2**63 - 1, -(2**63), 0.0, 1e308, "", "x" * 300, "\0", "é", None, True, [], {}, [[[]]], b"b"]


def any_message(rng: random.Random) -> c.Message:
    """A well-formed message of any type."""
    message: c.Message = _any(rng.choice(c.MESSAGES), rng)
    return message


def _any(hint: Any, rng: random.Random) -> Any:
    hint = getattr(hint, "__supertype__", hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        cls: Any = hint
        hints = _hints(cls)
        return cls(*(_any(hints[f.name], rng) for f in dataclasses.fields(hint)))
    if origin is typing.Annotated:
        return _within(getattr(args[0], "__supertype__", args[0]), args[1:], rng)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return rng.choice(list(hint))
    if isinstance(hint, type) and issubclass(hint, tuple):
        return hint(*(_any(field, rng) for field in _hints(hint).values()))
    if origin is types.UnionType:
        return _any(rng.choice(args), rng)
    if origin is tuple:
        items = args[:1] * rng.randrange(4) if args[1] is Ellipsis else args
        return tuple(_any(item, rng) for item in items)
    if origin is dict:
        return {_any(args[0], rng): _any(args[1], rng) for _ in range(rng.randrange(4))}
    if hint is Any:
        return rng.choice([1, 0.5, "text", None, True, [1, {"a": []}], {"k": {"l": [1]}}])
    plain = {int: rng.choice([0, 7, 300, 2**40]), float: rng.random() * 100, bool: rng.random() < 0.5, type(None): None}
    return "".join(rng.choices("abé/_0", k=rng.randrange(12))) if hint is str else plain[hint]


def _within(hint: Any, bounds: tuple[Any, ...], rng: random.Random) -> Any:
    match bounds:
        case (Range(low, high),) if hint is int:
            return rng.choice([int(low), int(high), rng.randint(int(low), int(high))])
        case (Range(low, high),):
            return rng.choice([float(low), float(high), rng.random()])
        case (Letters(),):
            return rng.randbytes(32).hex()
        case (Length(_, least), Printable()) if least:
            return _any(hint, rng) or "n"
    return _any(hint, rng)


@functools.cache
def _hints(cls: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """`data` with a few of the changes that find bugs."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(7):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                del out[at : at + rng.randrange(1, 9)]
            case 2:
                out[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 3:  # headers of containers, texts and extensions that announce much
                out[at : at + 1] = bytes([rng.choice(range(0xC4, 0xE0))]) + rng.randbytes(4)
            case 4:
                out[at:at] = out[at : at + rng.randrange(1, 64)] * rng.randrange(1, 4)
            case 5:
                out[at : at + 1] = bytes([rng.randrange(256)]) * rng.choice([1, 1, 50, 2000])
            case _:
                del out[at:]
    return bytes(out)


def odd_fields(rng: random.Random) -> bytes:
    """A well-formed envelope whose fields have types and values of any kind."""
    cls = rng.choice(c.MESSAGES)
    body = {field.name: rng.choice(_ODD) for field in dataclasses.fields(cls) if rng.random() < 0.95}
    packed: bytes = msgpack.packb({"v": c.PROTOCOL_VERSION, "t": cls.__name__, "b": body})
    return packed


def fuzz_decoder(rng: random.Random, *, rounds: int = sys.maxsize, seconds: float = float("inf")) -> Counter[str]:
    """Decode nonsense. Raises whatever the decoder should not have raised, with the frame that did it."""
    counts: Counter[str] = Counter()
    ends = time.monotonic() + seconds
    while counts["frames"] < rounds and time.monotonic() < ends:
        kind = rng.random()
        if kind < 0.75:
            data = damaged(c.encode(any_message(rng)), rng)
        else:
            data = odd_fields(rng) if kind < 0.95 else rng.randbytes(rng.randrange(64))
        counts["frames"] += 1
        try:
            message = c.decode(data)
        except MessageError as error:
            counts["refused"] += 1
            if len(str(error)) > 1000:
                raise AssertionError(f"an error of {len(str(error))} characters for {data.hex()}") from error
            continue
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error} for the frame {data.hex()}") from error
        counts["accepted"] += 1
        c.encode(message)  # what came in can go out
    return counts
