"""Troubles of a whole job that last for a while: it must say why it waits, lose nothing, and go on afterwards."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

from nimbusd.chaos.cluster import ProcessCluster
from nimbusd.chaos.liar import Liar
from nimbusd.client import JobSummary
from nimbusd.core.ids import EpisodeKey, JobId
from nimbusd.core.master.facts import Cause
from nimbusd.job import Job
from nimbusd.master.backup import make_backup
from nimbusd.master.ledger.ledger import Ledger, LedgerError
from nimbusd.node.environment import environment_for
from nimbusd.stages.store.piece import PIECES
from nimbusd.supervisor.process import python

PACKAGE = "pillow"
"""The package that changes: one of those that count for every job."""
_ADOPTED_WITHIN_S = 60.0
_COMMAND_S = 120.0


class Trouble(ABC):
    """A trouble from `begin` to `end`.

    what: in words. lasts: it goes on for a while; otherwise it ends once it has had its effect. output: the present
    place of the job's output.
    """

    what = ""
    lasts = True

    def __init__(self, job: Job) -> None:
        self.job = job
        self.output = job.output

    @abstractmethod
    def begin(self) -> None:
        """Start it. Raises LookupError if that cannot be done now."""

    @abstractmethod
    def end(self) -> list[str]:
        """Make all as it was. Returns what was not as it must be, one sentence each."""

    def undo(self) -> None:
        """Make all as it was, though nothing came of it."""
        self.end()

    def hear(self, summary: JobSummary) -> None:  # noqa: B027 - most need not
        """Take what the master says of the job meanwhile."""

    @property
    def has_come(self) -> bool:
        """True once it had its effect, so that it may end."""
        return True

    @property
    def since_s(self) -> float | None:
        """The earliest moment of recovery (CLOCK_MONOTONIC); None: from its end on."""
        return None

    @property
    def episodes(self) -> tuple[EpisodeKey, ...]:
        """Episodes one of which is settled afterwards; none: any episode is."""
        return ()


class ReasonedWait(Trouble):
    """One that the job must give as the reason why it waits. words: one of them is in the reason."""

    causes: tuple[Cause, ...] = (Cause.STORAGE, Cause.HELD_UP, Cause.PUBLISHING)
    words: tuple[str, ...] = ()

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._reason = ""

    def hear(self, summary: JobSummary) -> None:
        """Look for the reason."""
        if summary.waiting in {cause.value for cause in self.causes} and any(w in summary.why for w in self.words):
            self._reason = summary.why

    @property
    def has_come(self) -> bool:
        """True once the reason was given."""
        return bool(self._reason)


class ReadOnly(ReasonedWait):
    """The output is read-only: by a mount of its own on top of it if we may, otherwise by its permissions."""

    what = "output is read-only"
    words = ("read-only", "Read-only", "Permission denied")

    def begin(self) -> None:
        """Make it read-only."""
        self._is_mounted = os.geteuid() == 0 and _run("mount", "--bind", str(self.output), str(self.output))
        if self._is_mounted and not _run("mount", "-o", "remount,ro,bind", str(self.output)):
            _run("umount", "-l", str(self.output))
            raise LookupError("it cannot be mounted read-only")
        if not self._is_mounted:
            (self.output / PIECES).chmod(0o555)

    def end(self) -> list[str]:
        """Make it writable again."""
        if not self._is_mounted:
            (self.output / PIECES).chmod(0o755)
        elif not _run("umount", "-l", str(self.output)):
            return [f"{self.output} cannot be unmounted: `umount -l` it by hand"]
        return []


class Away(ReasonedWait):
    """The output is somewhere else."""

    what = "output is moved away"
    words = ("was removed or moved away", "cannot be seen here", "was replaced by another folder")

    def begin(self) -> None:
        """Move it."""
        self.output = self.job.output.with_name(f"{self.job.output.name}.away")
        self.job.output.rename(self.output)

    def end(self) -> list[str]:
        """Move it back."""
        wrong = []
        with contextlib.suppress(FileNotFoundError):
            made = self.job.output.with_name(f"{self.job.output.name}.made-{time.monotonic_ns()}")
            self.job.output.rename(made)
            wrong.append(f"while {self.job.output} was away, somebody made another one, which is {made} now")
        self.output.rename(self.job.output)
        self.output = self.job.output
        return wrong


class OtherPackages(ReasonedWait):
    """All nodes have another package than the job began with. restart: starts all of them again, with an environment.

    ledger: of the master. folder: for what looks like the package.
    """

    what = "all nodes have another package"
    causes = (Cause.ENVIRONMENT,)
    words = (PACKAGE,)

    def __init__(
        self, job: Job, ledger: Path, folder: Path, version: str, restart: Callable[[Mapping[str, str]], None]
    ) -> None:
        super().__init__(job)
        self._ledger = ledger
        self._place = folder / f"packages-{version}"
        self._version = version
        self._restart = restart

    def begin(self) -> None:
        """Start the nodes with it. A job that has no environment yet would take theirs."""
        with Ledger.read(self._ledger) as ledger:
            row = ledger.job(JobId(self.job.name))
        if row is None or row.environment != environment_for(self.job, row.began_with).hash:
            raise LookupError("the job has no environment yet")
        info = self._place / f"{PACKAGE}-{self._version}.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {self._version}\n")
        self._restart({"PYTHONPATH": str(self._place)})

    def end(self) -> list[str]:
        """Start the nodes as they were."""
        self._restart({})
        return []


class Lies(Trouble):
    """A hostile node takes leases and lies. It leaves once it was refused, and others make its episodes."""

    what = "a hostile node joins"
    lasts = False

    def __init__(self, job: Job, address: str, name: str, seed: int) -> None:
        super().__init__(job)
        self.liar = Liar(address, name, job.name, job.output, seed)

    def begin(self) -> None:
        """Let it join."""
        self.liar.start()

    def end(self) -> list[str]:
        """Let it leave."""
        self.liar.leave()
        believed = sorted((episode.scene, episode.index) for episode in self.liar.believed)
        return [f"{self.liar.name} was believed: {scene}/{index}" for scene, index in believed]

    @property
    def since_s(self) -> float | None:
        """The moment of its first lie: others may make the episodes of its lies while it is there."""
        return self.liar.first_lie_s

    @property
    def has_come(self) -> bool:
        """True once a lie was refused."""
        return bool(self.liar.refused)

    @property
    def episodes(self) -> tuple[EpisodeKey, ...]:
        """Those that it lied about."""
        return tuple(self.liar.refused)


class OlderLedger(Trouble):
    """A backup is made, and put back once more was committed."""

    what = "ledger is backed up"
    lasts = False

    def __init__(self, job: Job, cluster: ProcessCluster, name: str) -> None:
        super().__init__(job)
        self._cluster = cluster
        self._file = cluster.folder / f"{name}.tar.gz"
        self._committed = 0
        self._heard = 0

    def begin(self) -> None:
        """Make the backup, while all work; at once, or the job is over before anything is newer."""
        make_backup(self._cluster.state, self._file)
        with Ledger.read(ledger_of(self._cluster)) as ledger:
            self._committed = ledger.totals(JobId(self.job.name)).committed

    def hear(self, summary: JobSummary) -> None:
        """Note how many episodes are committed."""
        self._heard = summary.committed

    @property
    def has_come(self) -> bool:
        """True once the backup is older than the ledger."""
        return self._heard > self._committed

    def undo(self) -> None:
        """Forget the backup."""
        self._file.unlink()

    def end(self) -> list[str]:
        """Kill the master, put the backup in the place of its ledger, and start it."""
        self._cluster.master.kill()
        before = committed(self._cluster, self.job)
        wrong = _nimbusctl("restore", self._file, self._cluster.state, "--replace")
        self._file.unlink()
        self._cluster.start_master()
        return wrong + not_adopted(self._cluster, self.job, before)


def lose_ledger(cluster: ProcessCluster, job: Job, submit: Callable[[], None]) -> list[str]:
    """Kill the master, remove its ledger, start it, and submit the job again. Returns what was not adopted."""
    cluster.master.kill()
    before = committed(cluster, job)
    for path in cluster.state.glob("ledger.sqlite*"):
        path.unlink()
    cluster.start_master()
    submit()
    return not_adopted(cluster, job, before)


def ledger_of(cluster: ProcessCluster) -> Path:
    """The place of the master's ledger."""
    return cluster.state / "ledger.sqlite"


def committed(cluster: ProcessCluster, job: Job) -> frozenset[tuple[str, int]]:
    """The job's episodes that the ledger has as committed."""
    with Ledger.read(ledger_of(cluster)) as ledger:
        return frozenset((piece.key.scene, piece.key.index) for piece in ledger.committed(JobId(job.name)))


def not_adopted(cluster: ProcessCluster, job: Job, before: frozenset[tuple[str, int]]) -> list[str]:
    """Episodes that were committed and are not, after a while in which the master may adopt them."""
    ends = time.monotonic() + _ADOPTED_WITHIN_S
    while True:
        with contextlib.suppress(LedgerError):
            if not (gone := before - committed(cluster, job)):
                return []
            if time.monotonic() > ends:
                return [f"{scene}/{index} was not adopted from its piece" for scene, index in sorted(gone)]
        time.sleep(0.1)


class Foreign:
    """A piece that is nobody's here, in a job's output."""

    def __init__(self, job: Job, number: int) -> None:
        self.name = f"stranger__scene__{number:06d}.1"
        self._folder = job.output / PIECES / self.name
        self._content = f"nothing of {job.name}"

    def put(self) -> None:
        """Lay it there."""
        self._folder.mkdir()
        (self._folder / "state.txt").write_text(self._content)

    def take(self) -> list[str]:
        """Take it away again. Returns what was not as it must be."""
        try:
            unchanged = (self._folder / "state.txt").read_text() == self._content
            (self._folder / "state.txt").unlink()
            self._folder.rmdir()
        except OSError as error:
            return [f"the foreign piece {self.name} was not left alone: {error}"]
        return [] if unchanged else [f"the foreign piece {self.name} was changed"]


def _run(*argv: str) -> bool:
    return subprocess.run(argv, capture_output=True, timeout=_COMMAND_S).returncode == 0


def _nimbusctl(*args: str | Path) -> list[str]:
    """Returns what it says if it fails."""
    done = subprocess.run(
        python("nimbusd.cli", *map(str, args)), capture_output=True, text=True, timeout=_COMMAND_S, env=os.environ
    )
    return [f"nimbusctl {args[0]}: {done.stderr}"] if done.returncode else []
