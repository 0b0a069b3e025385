"""What is on record of an episode: how it ended, and the job that makes it again."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from nimbusd.client import Client, FailureReport
from nimbusd.core.episodes import EpisodeKey, JobId, State
from nimbusd.job import Job
from nimbusd.master.ledger import Ledger
from nimbusd.master.ledger_reads import FailureRow
from nimbusd.master.output import ledger_path, ledger_place, read_ledger, recall_job
from nimbusd.stages.errors import NimbusError
from nimbusd.stages.store.piece import MANIFEST, PIECES, piece_folder
from nimbusd.stages.types import EpisodeRequest

_PAGE = 500


class UnknownEpisode(NimbusError):
    """The job has no such episode."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An episode and how it ended.

    job: with this episode's scene at least. output: where the job's pieces are. state: `committed`, `failed`,
    `quarantined`, or `open` while there is no end of it. source: who says so, in words. attempt: of that end; 1 while
    it is open. stage, reason, detail, evidence: of a failure. folder, digest: of the committed piece; the digest is
    empty where no ledger vouches for it. changed: `job` is not the one that the record is of.
    """

    job: Job
    output: Path
    scene: str
    index: int
    source: str
    state: str = "open"
    attempt: int = 1
    stage: str = ""
    reason: str = ""
    detail: str = ""
    evidence: str = ""
    folder: str = ""
    digest: str = ""
    changed: bool = False

    @property
    def episode_id(self) -> str:
        """`job/scene/index`."""
        return f"{self.job.name}/{self.scene}/{self.index}"


def recorded_in_output(output: Path, scene: str, index: int, job: Job | None = None) -> Recorded:
    """What an output folder says of an episode. job: from a file, where the folder may not have been used yet.

    Raises UnknownEpisode, or LedgerError where there is neither a job nor a ledger.
    """
    if job is None:
        job = recall_job(output)
    check_episode(job, scene, index)
    known = Recorded(job, output, scene, index, f"{output}: no job has run there")
    if not ledger_path(output).parent.is_dir():
        return known
    known = dataclasses.replace(known, changed=recall_job(output).fingerprint() != job.fingerprint())
    place = ledger_place(output)
    if not place.here:
        return _found_on_disk(known)
    with read_ledger(output) as ledger:
        return _found_in_ledger(known, ledger)


def recorded_by_master(client: Client, name: str, scene: str, index: int) -> Recorded:
    """What a master says of an episode; the job and the pieces are read from its output, which is shared storage.

    Raises ClientError, UnknownEpisode, or LedgerError where the output cannot be read on this machine.
    """
    output = Path(client.job(name).summary.output)
    job = recall_job(output)
    check_episode(job, scene, index)
    known = Recorded(job, output, scene, index, f"the master at {client.address}")
    for report in client.failures(name):
        if (report.scene, report.index) == (scene, index):
            return _failed(known, report.state, report)
    return _found_on_disk(known)


def check_episode(job: Job, scene: str, index: int) -> None:
    """Raises UnknownEpisode, which names the nearest ones, if a job cannot have this episode."""
    if scene not in job.scene_entries:
        near = get_close_matches(scene, job.scenes, n=3, cutoff=0.4) or job.scenes[:3]
        raise UnknownEpisode(
            f"job {job.name} has no scene {scene!r}; the nearest are: "
            + ", ".join(f"{job.name}/{name}/{index}" for name in near)
        )
    number = job.episodes_per_scene * (job.max_tries_per_episode if job.exact else 1)
    if not 0 <= index < number:
        tries = f", reserve for failed plans included ({job.episodes_per_scene} are wanted)" if job.exact else ""
        raise UnknownEpisode(
            f"scene {scene!r} of job {job.name} has the episodes 0 to {number - 1}{tries}, so none with index {index}; "
            f"the nearest is {job.name}/{scene}/{min(max(index, 0), number - 1)}"
        )


def _found_in_ledger(known: Recorded, ledger: Ledger) -> Recorded:
    job, source = JobId(known.job.name), f"the ledger {ledger.path}"
    known = dataclasses.replace(known, source=source)
    key = EpisodeKey(job, known.scene, known.index)
    if (piece := ledger.committed_piece(key)) is not None:
        return dataclasses.replace(
            known, state=State.COMMITTED.value, attempt=piece.attempt, folder=piece.folder, digest=piece.digest
        )
    offset = 0
    while rows := ledger.failure_rows(job, offset, _PAGE):
        for row in rows:
            if row.key == key:
                return _failed(known, row.state.value, row)
        offset += len(rows)
    return known


def _failed(known: Recorded, state: str, row: FailureRow | FailureReport) -> Recorded:
    return dataclasses.replace(
        known,
        state=state,
        attempt=row.attempt,
        stage=row.stage,
        reason=row.reason,
        detail=row.detail,
        evidence=row.evidence,
    )


def _found_on_disk(known: Recorded) -> Recorded:
    """The whole piece of the greatest attempt, where the ledger cannot be asked."""
    first = piece_folder(EpisodeRequest(known.job.name, known.scene, known.index, attempt=1)).removesuffix("1")
    pieces = known.output / PIECES
    attempts = sorted(
        int(attempt)
        for path in (pieces.iterdir() if pieces.is_dir() else ())
        if path.name.startswith(first) and (attempt := path.name.removeprefix(first)).isdecimal()
        if (path / MANIFEST).is_file()
    )
    if not attempts:
        return known
    last = attempts[-1]
    return dataclasses.replace(
        known,
        source=f"its piece in {pieces}",
        state=State.COMMITTED.value,
        attempt=last,
        folder=f"{first}{last}",
    )
