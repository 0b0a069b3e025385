"""The outcome of a job: its episodes in the ledger, in the master's events, and as pieces on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from nimbusd.core.ids import EpisodeKey, JobId
from nimbusd.job import Job
from nimbusd.master.ledger.ledger import Ledger
from nimbusd.master.output.folder import committed_pieces
from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.piece import PIECES, piece_faults
from nimbusd.stages.store.publish import DATASET
from nimbusd.stages.store.verify.verify import verify_dataset

Columns: TypeAlias = pa.Table | Mapping[str, bytes]
"""The published values of a job: state columns of a dataset, or the files that a writer of another format made."""
_DRAFT = ".tmp"


@dataclass(frozen=True, slots=True)
class Inspection:
    """Figures of a job that has ended; all but `wanted` and `committed` must be 0, and `faults` empty."""

    wanted: int
    committed: int
    lost: int
    """Episodes that were neither committed nor given up with a reason."""
    duplicated_in_ledger: int
    """Commits beyond the first of an episode, in the ledger."""
    duplicated_in_events: int
    """The same in the master's events."""
    duplicated_on_disk: int
    """The same among the pieces that lie in the output."""
    torn: int
    """Committed pieces that are not whole."""
    leftover_pieces: int
    """Pieces without a commit."""
    other_state_columns: int
    """1 if the published columns are not those of an undisturbed run."""
    faults: tuple[str, ...]
    """Other findings, as sentences."""
    settled: frozenset[EpisodeKey] = frozenset()
    """Episodes that are committed or cannot be made."""

    @property
    def duplicated(self) -> int:
        """Over all who count."""
        return self.duplicated_in_ledger + self.duplicated_in_events + self.duplicated_on_disk

    @property
    def clean(self) -> bool:
        """True where nothing is wrong."""
        wrong = self.lost, self.duplicated, self.torn, self.leftover_pieces, self.other_state_columns
        return not any(wrong) and not self.faults


def inspect_job(
    job: Job, ledger: Path, announced: Mapping[EpisodeKey, int], expected: Columns | None = None
) -> Inspection:
    """Inspect a job that has ended.

    announced: commit events by episode. expected: see `published_columns`; None: nothing to compare with.
    """
    with Ledger.read(ledger) as reader:
        episodes = Counter(piece.key for piece in reader.committed(JobId(job.name)))
        history = reader.history(JobId(job.name))
        torn = _torn(job, job.output, reader)
        wrong = [] if torn else _wrong_with_dataset(job, reader)
    lost = 0
    for scene in job.scenes:
        count = history[scene].count if scene in history else None
        made, failed = (count.committed, count.failed) if count is not None else (0, 0)
        tries = job.episodes_per_scene * (job.max_tries_per_episode if job.exact else 1)
        # Plans that fail are results; where all tries were used up there is nothing more to be had.
        lost += 0 if made + failed >= tries else max(0, job.episodes_per_scene - made)
    pieces = pieces_of(job.output)
    on_disk = Counter(name.rpartition(".")[0] for name in pieces if not name.endswith(_DRAFT))
    faults = [*torn, *wrong]
    same = expected is None or equal_columns(published_columns(job.output), expected)
    return Inspection(
        wanted=job.total_episodes,
        committed=len(episodes),
        lost=lost,
        duplicated_in_ledger=_beyond_first(episodes),
        duplicated_in_events=_beyond_first(announced),
        duplicated_on_disk=_beyond_first(on_disk),
        torn=len(torn),
        leftover_pieces=len(pieces) - len(episodes),
        other_state_columns=int(not same),
        faults=tuple(faults),
        settled=frozenset(
            EpisodeKey(JobId(job.name), scene, index)
            for scene, past in history.items()
            for span in past.settled
            for index in range(span.start, span.stop)
        ),
    )


def torn_pieces(job: Job, ledger: Path, output: Path) -> list[str]:
    """Pieces that are committed and not whole, one sentence each; may be asked while the job runs.

    output: where the job's output is now.
    """
    with Ledger.read(ledger) as reader:
        return _torn(job, output, reader)


def unreadable(output: Path) -> list[str]:
    """The faults that a reader finds in the published dataset, now; none while there is no dataset.

    May be asked while it is published: a snapshot that is replaced twice while it is read is read again.
    """
    while (output / DATASET).exists():
        snapshot = (output / DATASET).resolve()
        faults = verify_dataset(snapshot)
        if not faults or snapshot.exists():
            return faults
    return []


def published_columns(output: Path) -> Columns:
    """The published values, without those that need not be the same each time (images, who made it, when)."""
    if (output / DATASET).exists():
        tables = [pq.read_table(path) for path in sorted((output / DATASET).rglob("data/*/*.parquet"))]
        table = pa.concat_tables(tables)
        return table.select([field.name for field in table.schema if not pa.types.is_struct(field.type)])
    files = (path for path in output.iterdir() if path.is_file() and not path.name.startswith("."))
    return {path.name: path.read_bytes() for path in files}


def pieces_of(output: Path) -> list[str]:
    """The contents of an output's folder of pieces, drafts included."""
    folder = output / PIECES
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _torn(job: Job, output: Path, ledger: Ledger) -> list[str]:
    try:
        pieces = committed_pieces(job, output, ledger)
    except StoreError as error:
        return [str(error)]
    return [fault for piece in pieces for fault in piece_faults(output, piece, deep=True)]


def _wrong_with_dataset(job: Job, ledger: Ledger) -> list[str]:
    """The faults that `nimbusctl verify` finds, a dataset that does not hold just what is committed among them."""
    if not (job.output / DATASET).exists():
        return []  # a writer with a format of its own
    return verify_dataset(job.output, committed_pieces(job, job.output, ledger))


def equal_columns(one: Columns, other: Columns) -> bool:
    if isinstance(one, pa.Table):
        return isinstance(other, pa.Table) and one.equals(other)
    return bool(one == other)


def _beyond_first(counts: Mapping[str, int] | Mapping[EpisodeKey, int]) -> int:
    return sum(number - 1 for number in counts.values())
