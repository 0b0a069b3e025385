"""Records of a ledger in few words."""

from __future__ import annotations

from nimbusd.core.ids import EpisodeKey
from nimbusd.core.records import Record, State
from nimbusd.transport.messages.failures import Failure
from nimbusd.transport.messages.node import Stored


def record_of(
    key: EpisodeKey,
    state: State,
    attempt: int = 1,
    losses: int = 0,
    node: str = "",
    *,
    folder: str = "",
    frames: int = 0,
    size_bytes: int = 0,
    digest: str = "",
    stage: str = "",
    reason: str = "",
    detail: str = "",
    evidence: str = "",
) -> Record:
    """A record with a piece, if the episode is committed, or with a failure, if there is a reason for one."""
    piece = Stored(key.index, folder, frames, size_bytes, digest, 0.0) if state is State.COMMITTED else None
    failure = Failure(stage, reason, detail, evidence) if reason else None
    return Record(key, state, attempt, losses, node, piece, failure)
