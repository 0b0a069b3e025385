"""What became of a job: episodes in the ledger, in what the master told, and as pieces on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from nimbusd.core.ids import JobId
from nimbusd.job import Job
from nimbusd.master.ledger.ledger import Ledger
from nimbusd.master.output.folder import committed_pieces
from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.piece import PIECES, piece_faults
from nimbusd.stages.store.publish import DATASET
from nimbusd.stages.store.verify.verify import verify_dataset

Columns: TypeAlias = pa.Table | Mapping[str, bytes]
"""What a job published: the state columns of a dataset, or the files that a writer with a format of its own made."""
_DRAFT = ".tmp"


@dataclass(frozen=True, slots=True)
class Inspection:
    """Figures of a job that has ended; all but `wanted` and `committed` must be 0, and `faults` empty.

    lost: episodes that nothing became of. duplicated_…: commits beyond the first of an episode, by who counts.
    torn: committed pieces that are not whole. leftover_pieces: without a commit. other_state_columns: 1 if what is
    published is not what an undisturbed run publishes. faults: what else is wrong, as sentences. settled:
    episodes that are committed or cannot be.
    """

    wanted: int
    committed: int
    lost: int
    duplicated_in_ledger: int
    duplicated_in_events: int
    duplicated_on_disk: int
    torn: int
    leftover_pieces: int
    other_state_columns: int
    faults: tuple[str, ...]
    settled: frozenset[tuple[str, int]] = frozenset()

    @property
    def duplicated(self) -> int:
        """Over all who count."""
        return self.duplicated_in_ledger + self.duplicated_in_events + self.duplicated_on_disk

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        wrong = self.lost, self.duplicated, self.torn, self.leftover_pieces, self.other_state_columns
        return not any(wrong) and not self.faults


def inspect_job(
    job: Job, ledger: Path, told: Mapping[tuple[str, int], int], expected: Columns | None = None
) -> Inspection:
    """Look at a job that has ended. told: how often each episode was said to be committed. expected: see
    `published_columns`; None: nothing to compare with.
    """
    with Ledger.read(ledger) as reader:
        episodes = Counter((piece.key.scene, piece.key.index) for piece in reader.committed(JobId(job.name)))
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
        duplicated_in_events=_beyond_first(told),
        duplicated_on_disk=_beyond_first(on_disk),
        torn=len(torn),
        leftover_pieces=len(pieces) - len(episodes),
        other_state_columns=int(not same),
        faults=tuple(faults),
        settled=frozenset(
            (scene, index)
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
    """What a reader finds wrong with the published dataset, now; nothing while there is none.

    May be asked while it is published: a snapshot that is replaced twice while it is read is read again.
    """
    while (output / DATASET).exists():
        snapshot = (output / DATASET).resolve()
        faults = verify_dataset(snapshot)
        if not faults or snapshot.exists():
            return faults
    return []


def published_columns(output: Path) -> Columns:
    """What was published, without what need not be the same each time (images, and who made it when)."""
    if (output / DATASET).exists():
        tables = [pq.read_table(path) for path in sorted((output / DATASET).rglob("data/*/*.parquet"))]
        table = pa.concat_tables(tables)
        return table.select([field.name for field in table.schema if not pa.types.is_struct(field.type)])
    files = (path for path in output.iterdir() if path.is_file() and not path.name.startswith("."))
    return {path.name: path.read_bytes() for path in files}


def pieces_of(output: Path) -> list[str]:
    """What lies in an output's folder of pieces, drafts included."""
    folder = output / PIECES
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _torn(job: Job, output: Path, ledger: Ledger) -> list[str]:
    try:
        pieces = committed_pieces(job, output, ledger)
    except StoreError as error:
        return [str(error)]
    return [fault for piece in pieces for fault in piece_faults(output, piece, deep=True)]


def _wrong_with_dataset(job: Job, ledger: Ledger) -> list[str]:
    """What `nimbusctl verify` finds: also whether the dataset holds just what is committed."""
    if not (job.output / DATASET).exists():
        return []  # a writer with a format of its own
    return verify_dataset(job.output, committed_pieces(job, job.output, ledger))


def equal_columns(one: Columns, other: Columns) -> bool:
    if isinstance(one, pa.Table):
        return isinstance(other, pa.Table) and one.equals(other)
    return bool(one == other)


def _beyond_first(counts: Mapping[object, int] | Mapping[str, int] | Mapping[tuple[str, int], int]) -> int:
    return sum(number - 1 for number in counts.values())
