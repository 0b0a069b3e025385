"""Ledger entries as rows, and rows as what they were. Texts that people read are kept to a sane size."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from nimbusd.core.ids import JobId, Span
from nimbusd.core.records import JobRow, JobState, Record, State
from nimbusd.master.ledger import schema as schema
from nimbusd.transport.messages.bounds import MOST_DETAIL, MOST_EVIDENCE, MOST_REASON, cut
from nimbusd.transport.messages.failures import Failure

Value: TypeAlias = str | int | float

FULL_EVIDENCE = 1_000
"""Attempts of a job that failed for the same reason and keep all of it; those after them keep MOST_DETAIL."""

CODES = {
    State.PENDING.value: schema.PENDING,
    State.COMMITTED.value: schema.COMMITTED,
    State.FAILED.value: schema.FAILED,
    State.QUARANTINED.value: schema.QUARANTINED,
}
STATES = {code: State(value) for value, code in CODES.items()}

_NO_PIECE: tuple[Value, ...] = ("", 0, 0, "")
_NO_FAILURE = Failure("", "", "")

JOB_COLUMNS = (
    "name, fingerprint, spec, user, priority, max_nodes, dynload, environment, submitted_unix_s, state, why, "
    "packages, began_with"
)


def episode_row(scene: int, record: Record) -> tuple[Value, ...]:
    """Values of `episode`, in the order of its columns."""
    piece = record.piece
    made = _NO_PIECE if piece is None else (piece.folder, piece.frames, piece.size_bytes, piece.digest)
    return (
        scene,
        record.key.index,
        CODES[record.state._value_],  # `.value` is a descriptor, and this is called for every episode
        record.attempt,
        record.losses,
        record.node,
        *made,
    )


def failure_row(scene: int, record: Record, earlier: int) -> tuple[Value, ...]:
    """Values of `failure`. earlier: attempts of the job that failed before for the same reason."""
    most = MOST_EVIDENCE if earlier < FULL_EVIDENCE else MOST_DETAIL
    failure = record.failure or _NO_FAILURE
    return (
        scene,
        record.key.index,
        shortened(failure.stage, MOST_REASON),
        shortened(failure.reason, MOST_REASON),
        shortened(failure.detail, MOST_DETAIL),
        shortened(failure.evidence, most),
    )


def shortened(text: str, most: int) -> str:
    """`text`, cut. Surrogates, which bytes that are no UTF-8 may have been decoded to, become question marks."""
    text = cut(text, most)
    return text if text.isascii() else text.encode(errors="replace").decode()


def job_row(row: JobRow) -> tuple[Value, ...]:
    """Values for JOB_COLUMNS."""
    return (
        row.job,
        row.fingerprint,
        json_text(row.spec),
        row.user,
        row.priority,
        row.max_nodes,
        int(row.dynload),
        row.environment,
        row.submitted_unix_s,
        row.state.value,
        row.why,
        json_text(row.packages),
        json_text(row.began_with),
    )


def json_text(value: Mapping[str, Any]) -> str:
    """A JSON object as the ledger holds it."""
    return json.dumps(dict(value), ensure_ascii=False, separators=(",", ":"))


def to_job(values: Sequence[Any]) -> JobRow:
    """The job of a row with JOB_COLUMNS."""
    name, fingerprint, spec, user, priority, max_nodes, dynload, environment, submitted, state, why, *packages = values
    return JobRow(
        JobId(name),
        fingerprint,
        json.loads(spec),
        user,
        priority,
        max_nodes,
        bool(dynload),
        environment,
        submitted,
        JobState(state),
        why,
        *map(json.loads, packages),
    )


def spans_text(spans: Sequence[Span]) -> str:
    """Spans as `start-stop` with commas between."""
    return ",".join(f"{span.start}-{span.stop}" for span in spans)


def to_spans(text: str) -> tuple[Span, ...]:
    """The spans of such a text."""
    return tuple(Span(int(start), int(stop)) for start, stop in (part.split("-") for part in text.split(",") if part))
