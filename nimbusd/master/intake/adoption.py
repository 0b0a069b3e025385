"""Adoption: pieces in an output folder that the ledger does not know are taken on before a job goes on there, or not.

A whole piece of an episode that the ledger has not settled is *adopted* once its checksums hold: a ledger that was
lost, copied too early, or another one's, is so rebuilt from the pieces. A second piece of a settled episode, and one
that is torn, goes to the trash. A piece of another job, or made with other settings, is never touched.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from nimbusd.core.ids import EpisodeKey, JobId
from nimbusd.core.records import Record, State
from nimbusd.job import Job
from nimbusd.master.intake.sight import record_fault
from nimbusd.master.ledger.reads import EpisodeStanding, LedgerReads
from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.piece import PIECES, manifest_digest, piece_faults, piece_folder, read_piece
from nimbusd.stages.store.record import RECORD
from nimbusd.stages.types import EpisodeRequest, Piece
from nimbusd.transport.messages.node import Stored

DRAFT = ".tmp"
_ENDING = re.compile(r"__(\d{6,})\.(\d+)$")
_MOST = 2**53


@dataclass(frozen=True, slots=True)
class Found:
    """A folder of pieces that the ledger does not have as committed. key: of its episode; None: none of the job's."""

    folder: str
    key: EpisodeKey | None
    attempt: int
    draft: bool = False


@dataclass(slots=True)
class Adoption:
    """The result of a look at an output folder.

    records: for the ledger: adopted episodes, and attempts that were seen and must not be leased again. lost: committed
    episodes whose piece is gone while another whole piece of them is adopted. garbage: folders for the trash, and why.
    drafts: of attempts that are over. strangers: folders that are left alone. missing: committed episodes without a
    piece. first_attempt: the number of the first attempt at an episode, as no other ledger has leased it.
    """

    records: list[Record] = field(default_factory=list)
    lost: list[EpisodeKey] = field(default_factory=list)
    garbage: dict[str, str] = field(default_factory=dict)
    drafts: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    missing: list[EpisodeKey] = field(default_factory=list)
    first_attempt: int = 1

    @property
    def adopted(self) -> int:
        """Episodes that come from pieces."""
        return sum(record.state is State.COMMITTED for record in self.records)


class NotOfThisJob(StoreError):
    """Pieces in an output folder are of other episodes than the job's, so that it must not be mixed with them."""


def look_at_pieces(job: Job, output: Path, ledger: LedgerReads, *, anyway: bool) -> Adoption:
    """Decide what becomes of each folder of pieces. Reads and checks pieces; changes nothing.

    The ledger need not have the job yet. anyway: pieces without the job's fingerprint are its own where seed, scene,
    index and component versions are the same. Raises NotOfThisJob.
    """
    names = _folders(output)
    gone = _without_committed(names, JobId(job.name), ledger)
    adoption = Adoption()
    candidates = _sorted_out(job, names, ledger, adoption)
    others: list[str] = []
    for key, found in candidates.items():
        standing = ledger.standing(key)
        if standing is not None and standing.state is State.FAILED:
            adoption.strangers += [one.folder for one in found]
            continue
        whole = _whole(job, output, key, found, adoption, others, anyway=anyway)
        is_there = standing is not None and standing.state is State.COMMITTED and key not in gone
        _settle(key, found, whole, standing, is_there, adoption)
    if others:
        raise NotOfThisJob(
            f"output {output} holds {len(others)} pieces that were made with other scenes, seed or pipeline than job "
            f"{job.name!r} has now, such as {others[0]}. Choose another --output, restore the job file to resume it, "
            "or take over those of the same seed and component versions with --adopt."
        )
    adopted = {record.key for record in adoption.records if record.state is State.COMMITTED}
    adoption.lost = sorted((key for key in gone if key in adopted), key=_order)
    adoption.missing = sorted((key for key in gone if key not in adopted), key=_order)
    return adoption


def _without_committed(names: set[str], name: JobId, ledger: LedgerReads) -> set[EpisodeKey]:
    """Take the folders of committed pieces out of `names`. Returns the committed episodes whose folder is not there."""
    gone = set()
    for piece in ledger.committed(name):
        if piece.folder in names:
            names.discard(piece.folder)
        else:
            gone.add(piece.key)
    return gone


def _sorted_out(
    job: Job, names: Iterable[str], ledger: LedgerReads, adoption: Adoption
) -> dict[EpisodeKey, list[Found]]:
    """The whole pieces by episode; drafts that are over, and what is no attempt of the job, go into `adoption`."""
    folders, live = Folders(job), live_attempts(JobId(job.name), ledger)
    whole: dict[EpisodeKey, list[Found]] = {}
    for folder in sorted(names):
        one = folders.found(folder)
        if one.key is None:
            adoption.strangers.append(folder)
        elif not one.draft:
            whole.setdefault(one.key, []).append(one)
        elif (one.key, one.attempt) not in live:
            adoption.drafts.append(folder)
    return whole


def _whole(
    job: Job,
    output: Path,
    key: EpisodeKey,
    found: Iterable[Found],
    adoption: Adoption,
    others: list[str],
    *,
    anyway: bool,
) -> list[tuple[Found, Piece]]:
    """The job's own pieces of an episode whose checksums hold, and that can be published, the latest attempt first."""
    whole = []
    for one in sorted(found, key=lambda one: -one.attempt):
        try:
            piece = read_piece(output, one.folder)
            faults = piece_faults(output, piece, deep=True)
            if not is_of_job(job, output, piece, anyway=anyway):
                others.append(one.folder)
            elif why := next(iter(faults), "") or record_fault(output, key, piece):
                adoption.garbage[one.folder] = why
            else:
                whole.append((one, piece))
        except StoreError as error:
            adoption.garbage[one.folder] = str(error)
    return whole


def _settle(
    key: EpisodeKey,
    found: Iterable[Found],
    whole: list[tuple[Found, Piece]],
    standing: EpisodeStanding | None,
    is_there: bool,
    adoption: Adoption,
) -> None:
    """Adopt the latest whole piece of an episode whose committed one is not there; its other pieces are garbage."""
    highest = max([one.attempt for one in found] + ([standing.attempt] if standing is not None else []))
    losses = standing.losses if standing is not None else 0
    if not is_there and whole:
        (_, piece), *whole = whole
        adoption.records.append(_record(key, highest, losses, piece))
    elif standing is None or standing.state is State.PENDING:
        adoption.records.append(Record(key, State.PENDING, highest, losses))
    for one, _ in whole:
        adoption.garbage[one.folder] = "another attempt at the episode is committed"


def is_of_job(job: Job, output: Path, piece: Piece, *, anyway: bool) -> bool:
    """True where a whole piece holds an episode that this very job makes.

    By the fingerprint in its manifest; of those that were stored before manifests had one, by the record's.
    anyway: or by seed and component versions alone.
    """
    if piece.fingerprint:
        if piece.fingerprint == job.fingerprint():
            return True
    elif (stated := _stated(output, piece)) is None:
        return True  # a writer without records; whose folder it is, is all that is known
    elif stated.get("fingerprint") in (job.fingerprint(), _fingerprint_of_old(job)):
        return True
    return anyway and _same_versions(job, output, piece)


def _fingerprint_of_old(job: Job) -> str:
    """The fingerprint that compute workers gave a job while they did not know its scenes."""
    return dataclasses.replace(job, scene_entries={}).fingerprint()


def _same_versions(job: Job, output: Path, piece: Piece) -> bool:
    """True where a piece was made with the job's seed, by components of the same names and versions."""
    facts = _facts(output, piece)
    if facts is None:
        return False
    config = facts.get("config", {}).get("job", {})
    made_by = {kind: (stage.get("name"), stage.get("version")) for kind, stage in facts.get("components", {}).items()}
    ours = {str(kind): (stage.component.rpartition(":")[2], stage.version) for kind, stage in job.stages.items()}
    return config.get("seed") == job.seed and made_by == ours


def _stated(output: Path, piece: Piece) -> Mapping[str, Any] | None:
    """The job as a piece's record describes it. None where the writer keeps no such record."""
    facts = _facts(output, piece)
    return None if facts is None else facts.get("config", {}).get("job")


def _facts(output: Path, piece: Piece) -> Mapping[str, Any] | None:
    try:
        record = orjson.loads((output / PIECES / piece.folder / RECORD).read_bytes())
        facts = record["facts"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return facts if isinstance(facts, dict) else None


def live_attempts(name: JobId, ledger: LedgerReads) -> set[tuple[EpisodeKey, int]]:
    """Attempts that may still be committed: of open leases, and the last one at an episode that is pending again."""
    live: set[tuple[EpisodeKey, int]] = set()
    for lease in ledger.open_leases(name):
        for span in lease.spans:
            live.update((EpisodeKey(name, lease.scene, i), lease.attempt) for i in range(span.start, span.stop))
    for scene, past in ledger.history(name).items():
        live.update((EpisodeKey(name, scene, index), tried.attempt) for index, tried in past.tried.items())
    return live


def garbage_of(job: Job, output: Path, ledger: LedgerReads) -> Iterator[Found]:
    """Folders of attempts that can never be committed any more: this ledger leased them, or has a committed piece.

    What it has never leased is not named: it is for the next look at all pieces. May be asked while nodes work: a lease
    is in the ledger before its node can write anything.
    """
    names = _folders(output)  # before the ledger is asked, see above
    name = JobId(job.name)
    folders, live = Folders(job), live_attempts(name, ledger)
    gone = _without_committed(names, name, ledger)
    for folder in sorted(names):
        one = folders.found(folder)
        if one.key is None or (one.key, one.attempt) in live or one.key in gone:
            continue
        standing = ledger.standing(one.key)
        if standing is not None and (standing.state is State.COMMITTED or one.attempt <= standing.attempt):
            yield one


def _folders(output: Path) -> set[str]:
    try:
        return {entry.name for entry in os.scandir(output / PIECES)}
    except FileNotFoundError:
        return set()


class Folders:
    """The attempt that a folder of pieces is of, by its name."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._scenes = {
            piece_folder(EpisodeRequest(job.name, scene, 0)).rpartition("__")[0]: scene for scene in job.scenes
        }

    def found(self, folder: str) -> Found:
        """The attempt; its key is None for what is none of the job's."""
        draft = folder.endswith(DRAFT)
        whole = folder.removesuffix(DRAFT)
        if (match := _ENDING.search(whole)) is not None:
            scene, index, attempt = self._scenes.get(whole[: match.start()]), int(match[1]), int(match[2])
            if scene is not None and index < _MOST and attempt < _MOST:
                request = EpisodeRequest(self._job.name, scene, index, attempt=attempt)
                if piece_folder(request) == whole:
                    return Found(folder, EpisodeKey(JobId(self._job.name), scene, index), attempt, draft)
        return Found(folder, None, 0, draft)


def _record(key: EpisodeKey, attempt: int, losses: int, piece: Piece) -> Record:
    size_bytes = sum(file.size_bytes for file in piece.files)
    stored = Stored(key.index, piece.folder, piece.length, size_bytes, manifest_digest(piece), cost_s=0.0)
    return Record(key, State.COMMITTED, attempt, losses, piece=stored)


def _order(key: EpisodeKey) -> tuple[str, int]:
    return key.scene, key.index
