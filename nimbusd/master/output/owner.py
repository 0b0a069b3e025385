"""The owner of an output folder: `<output>/.nimbusd/owner.json`, and what it means for who wants to work there.

The mark names the job, its fingerprint, and the ledger that has the episodes, by an identity that a move of the
ledger does not change. A ledger that was copied before the mark was written is told apart from the one that wrote it
by the token of its opening (`LedgerIdentity`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import orjson

from nimbusd.master.ledger.errors import LedgerError
from nimbusd.master.ledger.reads import ATTEMPTS_APART, LedgerIdentity
from nimbusd.stages.errors import NimbusError
from nimbusd.stages.store.durable import sync_file
from nimbusd.stages.store.trash import PRIVATE

_MARK = "owner.json"
_FORMAT = 1


class OutputTaken(NimbusError):
    """An output folder is another job's, or a newer ledger's."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The job that works, or last worked, on an output folder.

    host, path: where the ledger is; a relative path starts at the output, and is good wherever that is moved.
    released: whoever has the same job may take the folder over, whatever its ledger. first_attempt: the number of the
    first attempt at an episode, beyond those that ledgers before this one have leased.
    """

    job: str
    fingerprint: str
    ledger: LedgerIdentity
    host: str
    path: Path
    released: bool = False
    first_attempt: int = 1


class Whose(Enum):
    """The meaning of an owner mark for a job that wants the folder."""

    FREE = "free"
    OURS = "ours"
    OTHER_LEDGER = "the same job, of another ledger"
    STALE = "the same job, of a newer state of this ledger"
    OTHER_SETTINGS = "a job of the same name with other scenes, seed or pipeline"
    OTHER_JOB = "another job"


def judge(
    mark: Owner | None, job: str, fingerprint: str, ledger: LedgerIdentity, knows: Callable[[str], bool]
) -> Whose:
    """The meaning of the mark for a job of a ledger. knows: says whether that ledger was once opened under a token."""
    if mark is None:
        return Whose.FREE
    if mark.job != job:
        return Whose.OTHER_JOB
    if mark.fingerprint != fingerprint:
        return Whose.OTHER_SETTINGS
    if mark.ledger.ledger != ledger.ledger:
        return Whose.OTHER_LEDGER
    if mark.released or not mark.ledger.token or knows(mark.ledger.token):
        return Whose.OURS
    return Whose.STALE


def first_attempt(mark: Owner | None, job: str, ledger: LedgerIdentity, knows: Callable[[str], bool]) -> int:
    """The number of the first attempt at an episode of a job, where the mark of its output folder is this.

    Nodes may be at work for a ledger that this one knows nothing of, another one or a newer state of it: their pieces
    must have other names than ours, or they would throw away ours with theirs. knows: as in `judge`.
    """
    if mark is None or mark.job != job:
        return 1
    is_ours = mark.ledger.ledger == ledger.ledger and knows(mark.ledger.token)
    return mark.first_attempt + (0 if is_ours else ATTEMPTS_APART)


def mark_path(output: Path) -> Path:
    """The path of an output folder's mark."""
    return output / PRIVATE / _MARK


def read_owner(output: Path) -> Owner | None:
    """The mark in an output folder; None if there is none. Raises LedgerError if it cannot be read."""
    path = mark_path(output)
    try:
        stated = orjson.loads(path.read_bytes())
        ledger = stated["ledger"]
        identity = LedgerIdentity(str(ledger["ledger"]), int(ledger["epoch"]), str(ledger["token"]))
        return Owner(
            str(stated["job"]),
            str(stated["fingerprint"]),
            identity,
            str(stated["host"]),
            Path(stated["path"]),
            bool(stated["released"]),
            int(stated.get("first_attempt", 1)),
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LedgerError(f"{path} cannot be read: {error.strerror}.", path, error.errno or 0) from error
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(
            f"{path} is damaged: {error}. `nimbusctl output adopt {output}` writes it anew.", path
        ) from error


def write_owner(output: Path, owner: Owner) -> None:
    """Replace the mark, durably. Raises OSError."""
    described = {"format": _FORMAT, **asdict(owner), "path": str(owner.path)}
    replace_json(mark_path(output), described)


def replace_json(path: Path, described: Mapping[str, Any]) -> None:
    """Write a JSON document in place of the one before, durably. Raises OSError."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(orjson.dumps(described, option=orjson.OPT_INDENT_2))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_file(path.parent)


def refusal(output: Path, mark: Owner, whose: Whose, job: str) -> OutputTaken:
    """An error that says why a job may not work on an output folder, and the ways out."""
    elsewhere = "Choose another --output"
    match whose:
        case Whose.STALE:
            return OutputTaken(
                f"output {output} was written by a newer state of this ledger: the ledger of job {job!r} was restored "
                "from a copy, or another master has gone on with it. Nothing was changed. To go on here with all that "
                f"lies there: --adopt, or `nimbusctl output adopt {output}`."
            )
        case Whose.OTHER_SETTINGS:
            return OutputTaken(
                f"output {output} holds job {job!r} with other scenes, seed or pipeline. {elsewhere}, restore the job "
                f"file to resume it, or make room: `nimbusctl output move {output} FOLDER`. If the settings mean the "
                "same episodes, --adopt takes those of the same seed and component versions over."
            )
        case _:
            return OutputTaken(
                f"output {output} belongs to job {mark.job!r}. {elsewhere} for {job!r}, or make room: "
                f"`nimbusctl output move {output} FOLDER`."
            )
