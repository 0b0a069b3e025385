"""The local protocol: the messages between a daemon and its compute workers as frames.

Unknown types, wrong fields and oversized frames raise `MessageError`, which the receiver counts and drops; they never
crash it. Nothing is pickled.
"""

from __future__ import annotations

import typing
from typing import TypeAlias

from nimbusd.transport.codec.codec import MAX_MESSAGE_BYTES, Codec, MessageError
from nimbusd.transport.messages.worker import (
    Assign,
    AttemptFailed,
    Beat,
    EpisodePlanned,
    EpisodeStored,
    Fatal,
    Leave,
    MakeEpisode,
    Memory,
    Plan,
    Prepare,
    Ready,
    TakePlace,
    Warm,
    WorkerBye,
    WorkerHello,
    WorkerPulls,
    WorkerReturns,
)

__all__ = [
    "CODEC",
    "MAX_JOB_BYTES",
    "MAX_MESSAGE_BYTES",
    "WORKER_PROTOCOL_VERSION",
    "Assign",
    "AttemptFailed",
    "Beat",
    "EpisodePlanned",
    "EpisodeStored",
    "Fatal",
    "FromWorker",
    "Leave",
    "MakeEpisode",
    "Memory",
    "Message",
    "MessageError",
    "Plan",
    "Prepare",
    "Ready",
    "TakePlace",
    "ToWorker",
    "Warm",
    "WorkerBye",
    "WorkerHello",
    "WorkerPulls",
    "WorkerReturns",
    "decode",
    "encode",
]

WORKER_PROTOCOL_VERSION = 2
"""Of what a node and its own processes say to each other."""
MAX_JOB_BYTES = 16 << 20
"""Of what holds a job: it may have thousands of scenes."""

FromWorker: TypeAlias = (
    WorkerHello
    | Warm
    | Ready
    | WorkerPulls
    | Beat
    | EpisodePlanned
    | EpisodeStored
    | AttemptFailed
    | WorkerReturns
    | Fatal
    | WorkerBye
)
ToWorker: TypeAlias = Assign | MakeEpisode | Prepare | TakePlace | Leave
Message: TypeAlias = FromWorker | ToWorker

CODEC: Codec[Message] = Codec(
    typing.get_args(Message), version=WORKER_PROTOCOL_VERSION, limits={Assign: MAX_JOB_BYTES, Prepare: MAX_JOB_BYTES}
)


def encode(message: Message) -> bytes:
    """Pack a message. Raises MessageError if it is too large."""
    return CODEC.encode(message)


def decode(frame: bytes) -> Message:
    """Unpack and check a message. Raises MessageError for anything that is not one."""
    return CODEC.decode(frame)
