"""The record of an episode: how it ended, and the job that makes it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from nimbusd.client import Client, FailureReport
from nimbusd.core.environments import environment_of
from nimbusd.core.ids import EpisodeKey, JobId
from nimbusd.core.records import JobRow, State
from nimbusd.job import Job
from nimbusd.master.ledger.ledger import Ledger
from nimbusd.master.output.folder import ledger_path, ledger_place, read_ledger, recall_job
from nimbusd.replay.compare import record_of
from nimbusd.replay.configuration import configuration_on_record
from nimbusd.stages.errors import NimbusError
from nimbusd.stages.store.piece import MANIFEST, PIECES, piece_folder
from nimbusd.stages.types import EpisodeRequest
from nimbusd.transport.messages.failures import Failure

_PAGE = 500


class UnknownEpisode(NimbusError):
    """The job has no such episode."""


NO_FAILURE = Failure("", "", "")


@dataclass(frozen=True, slots=True)
class Recorded:
    """An episode and how it ended, and what decided over it.

    job: with this episode's scene at least. output: where the job's pieces are. state: `committed`, `failed`,
    `quarantined`, or `open` while there is no end of it. source: who says so, in words. attempt: of that end; 1 while
    it is open. failure: of an episode that was not made; empty for others. folder, digest: of the committed piece; the
    digest is empty where no ledger vouches for it. changed: `job` is not the one that the record is of. configuration:
    see `configuration_on_record`; empty where there is none. packages: version by name; empty where not recorded.
    """

    job: Job
    output: Path
    scene: str
    index: int
    source: str
    state: str = "open"
    attempt: int = 1
    failure: Failure = NO_FAILURE
    folder: str = ""
    digest: str = ""
    changed: bool = False
    configuration: Mapping[str, Any] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)

    @property
    def episode_id(self) -> str:
        """`job/scene/index`."""
        return f"{self.job.name}/{self.scene}/{self.index}"


def recorded_in_output(output: Path, scene: str, index: int, job: Job | None = None) -> Recorded:
    """Look an episode up in an output folder. job: from a file, where the folder may not have been used yet.

    Raises UnknownEpisode, or LedgerError where there is neither a job nor a ledger.
    """
    if job is None:
        job = recall_job(output)
    check_episode(job, scene, index)
    known = Recorded(job, output, scene, index, f"{output}: no job has run there")
    if not ledger_path(output).parent.is_dir():
        return known
    then = recall_job(output)
    known = dataclasses.replace(known, changed=then.fingerprint() != job.fingerprint())
    place = ledger_place(output)
    if not place.here:
        return _configured(_found_on_disk(known), then, None)
    with read_ledger(output) as ledger:
        return _configured(_found_in_ledger(known, ledger), then, ledger.job(JobId(job.name)))


def recorded_by_master(client: Client, name: str, scene: str, index: int) -> Recorded:
    """Ask a master about an episode; the job and the pieces are read from its output, which is shared storage.

    Raises ClientError, UnknownEpisode, or LedgerError where the output cannot be read on this machine.
    """
    output = Path(client.job(name).summary.output)
    job = recall_job(output)
    check_episode(job, scene, index)
    known = Recorded(job, output, scene, index, f"the master at {client.address}")
    for report in client.failures(name):
        if (report.scene, report.index) == (scene, index):
            return _configured(_failed(known, report), job, None)
    return _configured(_found_on_disk(known), job, None)


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
    while rows := ledger.failure_reports(job, offset, _PAGE):
        for row in rows:
            if (row.scene, row.index) == (key.scene, key.index):
                return _failed(known, row)
        offset += len(rows)
    return known


def _configured(known: Recorded, then: Job, row: JobRow | None) -> Recorded:
    """Add what decided over the episode. then: the job that the output remembers. row: of it in the ledger."""
    record = record_of(known.output, known.folder) if known.folder else None
    return dataclasses.replace(
        known, configuration=configuration_on_record(then, known.scene, record), packages=_packages(record, row)
    )


def _packages(record: Mapping[str, Any] | None, row: JobRow | None) -> Mapping[str, str]:
    """The packages that made the episode, by its own record, else by the ledger where its job kept the same."""
    environment: dict[str, dict[str, str]] = (record["run"].get("environment") if record else None) or {}
    if packages := environment.get("packages"):
        return packages
    if row is None or not row.began_with:
        return {}
    if now := environment.get("now"):
        gone = environment.get("before") or {}
        began_with = environment_of(row.began_with, None).packages
        return {name: version for name, version in began_with.items() if name not in gone} | now
    return row.began_with if row.packages == row.began_with else {}


def _failed(known: Recorded, report: FailureReport) -> Recorded:
    return dataclasses.replace(known, state=report.state, attempt=report.attempt, failure=report.failure)


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
