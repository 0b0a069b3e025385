"""A chaos run: one job after another on a cluster of its own, with faults from a plan, until there were enough."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nimbusd.chaos.cluster import ProcessCluster
from nimbusd.chaos.commit_events import CommitEvents
from nimbusd.chaos.injector import Injector
from nimbusd.chaos.inspection import Columns, inspect_job, pieces_of, published_columns, torn_pieces, unreadable
from nimbusd.chaos.plan import IN_COMPONENTS, Fault, Kind, plan_faults
from nimbusd.chaos.recovery import Hit, Recoveries
from nimbusd.chaos.verdict import ChaosVerdict, JobFigures, rows_of
from nimbusd.client import ENDED, ClientError
from nimbusd.job import Job
from nimbusd.job.model import StageTimeouts
from nimbusd.makers.faults import ENVIRON
from nimbusd.stages.errors import NimbusError
from nimbusd.stages.store.publish import DATASET

T = TypeVar("T")

HEARTBEAT_S = 0.5
PUBLISH_EVERY_S = 1.0
"""Often, so that there is a dataset to read after most faults, and one that is being replaced."""
MOST_ATTEMPTS = 1_000
"""An episode that is hit again and again is not to blame: none shall be set aside."""
_LOOK_S = 0.05
_ASK_S = 0.5
_QUIET_S = 30.0
MOST_CALM = 3
"""The most jobs that follow, undisturbed, until everybody who was hit was seen at work again."""
_STUCK_S = 400.0
"""A job that commits nothing for this time, and met no fault, never will: longer than a worker may start."""


class ChaosFailed(NimbusError):
    """The run itself could not go on."""


@dataclass(frozen=True, slots=True)
class ChaosSettings:
    """The faults to inject, and the cluster to inject them into."""

    kinds: tuple[Kind, ...]
    count: int
    """Faults in all."""
    seed: int = 0
    nodes: int = 3
    workers: int = 1
    """Compute workers of each node."""
    spares: int = 1
    """Warm spares of each node."""
    pause_s: float = 2.0
    """The longest time between two faults."""
    dead_after_s: float = 3.0
    beat_timeout_s: float | None = 3.0
    """For every job; None: the job's own."""
    compare: bool = False
    """Run the job undisturbed first, to compare state columns."""
    keep: bool = False
    """Leave outputs of clean jobs, too."""


@dataclass(frozen=True, slots=True)
class ChaosProgress:
    """The progress of a run. what: has just happened, in words; empty if nothing worth a line."""

    what: str
    injected: int
    recoveries: Recoveries
    figures: JobFigures
    job: str
    committed: int
    wanted: int


class ChaosRun:
    """One run of chaos in `folder`, which takes the cluster's state, its logs and the jobs' outputs.

    see: called with the progress.
    """

    def __init__(self, job: Job, settings: ChaosSettings, folder: Path, see: Callable[[ChaosProgress], None]) -> None:
        limits = job.limits.model_copy(update={"attempts": MOST_ATTEMPTS})
        if settings.beat_timeout_s is not None:
            own = {"beat_timeout_s": settings.beat_timeout_s, "stage_timeout_s": StageTimeouts()}
            limits = limits.model_copy(update=own)
        self._template = dataclasses.replace(job, limits=limits)
        self._settings = settings
        self._folder = folder
        self._see = see
        self._faults = folder / "faults"
        self._plan = plan_faults(
            settings.seed, settings.kinds, pause_s=settings.pause_s, dead_after_s=settings.dead_after_s
        )
        self._recoveries = Recoveries()
        self._figures = JobFigures()
        self._began = time.monotonic()
        self._injected = 0
        self._to_come = settings.count
        self._due: list[Fault] = []
        """Faults whose turn it is, the oldest first: some hit nobody now, and wait while others go ahead."""
        self._looks = self._datasets = 0
        self._unreadable: list[str] = []
        self._expected: Columns | None = None
        self._job = self._template
        self._last_hit_at = self._began
        self._interrupted = self._stuck = False

    def run(self) -> ChaosVerdict:
        """Run jobs until there were enough faults, or until KeyboardInterrupt, which gives up the job that runs.

        Raises ChaosFailed, or ProcessFailed if a daemon does not start.
        """
        settings = self._settings
        self._faults.mkdir(parents=True)
        environ = {ENVIRON: str(self._faults), "TMPDIR": str(self._folder)}
        with ProcessCluster(
            self._folder,
            heartbeat_s=HEARTBEAT_S,
            dead_after_s=settings.dead_after_s,
            publish_every_s=PUBLISH_EVERY_S,
            env=environ,
        ) as cluster:
            self._ledger = cluster.state / "ledger.sqlite"
            self._client = cluster.client()
            self._commits = CommitEvents(cluster.client())
            self._commits.start()
            self._injector = Injector(
                cluster,
                self._faults,
                settings.nodes,
                settings.workers,
                settings.spares,
                lambda: self._submit(self._job),
                self._say,
            )
            try:
                if settings.compare:
                    self._run_undisturbed()
                self._next_at = time.monotonic()
                while self._injected < settings.count and not self._stuck:
                    self._run_and_inspect(stormy=True)
                for _ in range(MOST_CALM):
                    if self._recoveries.unfinished and not self._stuck:
                        self._run_and_inspect(stormy=False)
            except KeyboardInterrupt:
                self._interrupted = True
            finally:
                self._injector.close()
        return self._verdict()

    # --- jobs ---

    def _run_undisturbed(self) -> None:
        """Run the job undisturbed, and remember what it publishes."""
        job = self._begin(f"{self._template.name}-calm")
        self._say(f"{job.name}: undisturbed, to compare with")
        if (state := self._follow(job, stormy=False)) != "complete":
            raise ChaosFailed(f"the job is {state} although nothing disturbs it; see {self._folder}")
        self._expected = published_columns(job.output)
        self._remove(job)

    def _run_and_inspect(self, *, stormy: bool) -> None:
        """One job, from its submission to what became of it. stormy: with faults."""
        before = self._injected
        job = self._begin(f"{self._template.name}-{self._figures.jobs}")
        state = self._follow(job, stormy=stormy)
        self._note(self._injector.heal_all())
        self._note(self._injector.at_job.lay_down())
        self._due += self._injector.at_job.in_vain()
        self._wait_until_quiet(job)
        self._take_in()
        found = inspect_job(job, self._ledger, self._commits.of(job.name), self._expected)
        self._recoveries.ended(found.settled, time.monotonic())
        self._figures.add(found, state == "complete")
        self._recoveries.forget(job.name)
        how = "all is well" if found.clean else "; ".join(found.faults) or str(found)
        self._say(f"{job.name} is {state}: {how}")
        if found.clean and not self._settings.keep:
            self._remove(job)
        if stormy and self._injected == before:
            self._to_come += len(self._due)
            self._due.clear()  # nobody whom they could hit was there in a whole job

    def _begin(self, name: str) -> Job:
        output = self._folder / "outputs" / name
        self._job = dataclasses.replace(self._template, name=name, output=output)
        self._injector.at_job.take_up(self._job)
        self._submit(self._job)
        return self._job

    def _submit(self, job: Job) -> None:
        self._again(lambda: self._client.submit(job))

    def _remove(self, job: Job) -> None:
        shutil.rmtree(job.output)

    def _follow(self, job: Job, *, stormy: bool) -> str:
        """Until the job has ended, and how: injects what is due meanwhile."""
        self._last_hit_at = asked_at = time.monotonic()
        committed = 0
        while True:
            time.sleep(_LOOK_S)
            self._take_in()
            if stormy:
                self._inject_if_due()
            now = time.monotonic()
            if (number := len(self._commits.of(job.name))) != committed:
                committed, self._last_hit_at = number, now
            if now - asked_at < _ASK_S:
                continue
            asked_at = now
            with contextlib.suppress(ClientError):
                summary = self._client.job(job.name).summary
                self._injector.at_job.hear(summary)
                self._tell("", summary.committed, summary.wanted)
                if summary.state in ENDED:
                    return summary.state
            if now - self._last_hit_at > _STUCK_S:
                self._stuck = True
                return f"stuck: nothing was committed for {_STUCK_S:g} s"

    def _wait_until_quiet(self, job: Job) -> None:
        """Wait until nodes have put away what they had in hand at the end of a job; until then it may lie about."""
        ends = time.monotonic() + _QUIET_S
        while time.monotonic() < ends:
            self._take_in()
            nodes = self._again(self._client.nodes)
            at_work = any(node.state != "lost" and (node.episodes or node.running) for node in nodes)
            if not at_work and len(pieces_of(job.output)) <= self._committed(job):
                return
            time.sleep(_ASK_S)

    def _committed(self, job: Job) -> int:
        return self._again(lambda: self._client.job(job.name)).summary.committed

    def _again(self, ask: Callable[[], T]) -> T:
        """Ask the master, which may be starting."""
        ends = time.monotonic() + _QUIET_S
        while True:
            try:
                return ask()
            except ClientError:
                if time.monotonic() > ends:
                    raise
                time.sleep(_ASK_S)

    # --- faults ---

    def _inject_if_due(self) -> None:
        """The next fault that hits somebody now, if it is time for one and not too much is under way."""
        injector = self._injector
        if time.monotonic() < self._next_at or self._injected + injector.under_way() >= self._settings.count:
            return
        workers_are_due = injector.waiting() < self._settings.nodes * self._settings.workers
        for fault in self._due:
            if fault.kind in IN_COMPONENTS and not workers_are_due:
                continue
            try:
                self._note(injector.inject(fault))
            except LookupError:
                continue  # everybody whom it could hit is down; they come back
            self._due.remove(fault)
            self._next_at = time.monotonic() + fault.delay_s
            return
        # One that was ordered may be lost with the process that took it: another one takes its place.
        is_left = self._to_come > 0 or not (self._due or injector.under_way())
        if is_left and len(self._due) < len(self._settings.kinds):
            self._to_come -= 1
            self._due.append(next(self._plan))

    def _take_in(self) -> None:
        """The news since the last look."""
        hits, done, back = self._injector.look()
        self._note(hits)
        for episode, at_s in self._commits.news():
            self._recoveries.settled(episode, at_s)
        for work in done:
            self._recoveries.done(work)
        for number, at_s in back:
            self._recoveries.back(number, at_s)

    def _note(self, hits: Iterable[Hit]) -> None:
        for hit in hits:
            self._injected += 1
            self._last_hit_at = time.monotonic()
            self._recoveries.hit(hit)
            self._look()

    def _look(self) -> None:
        """After every fault: what is published can be read, and what is committed is whole."""
        self._looks += 1
        output = self._injector.at_job.output(self._job)
        self._datasets += (output / DATASET).exists()
        for fault in (*unreadable(output), *torn_pieces(self._job, self._ledger, output)):
            self._unreadable.append(fault)
            self._say(f"AFTER A FAULT: {fault}")

    # --- telling ---

    def _say(self, what: str) -> None:
        self._tell(what, len(self._commits.of(self._job.name)), self._job.total_episodes)

    def _tell(self, what: str, committed: int, wanted: int) -> None:
        self._see(
            ChaosProgress(what, self._injected, self._recoveries, self._figures, self._job.name, committed, wanted)
        )

    def _verdict(self) -> ChaosVerdict:
        return ChaosVerdict(
            seed=self._settings.seed,
            rows=rows_of(self._recoveries, self._settings.kinds),
            figures=self._figures,
            looks=self._looks,
            datasets=self._datasets,
            unreadable=tuple(self._unreadable),
            wrong=tuple(self._injector.at_job.wrong),
            not_over=tuple(f"{hit} was not seen to be over" for hit in self._recoveries.open),
            compared=self._settings.compare,
            ended_themselves=self._injector.ended_themselves,
            orphans=self._injector.orphans,
            elapsed_s=time.monotonic() - self._began,
            interrupted=self._interrupted,
        )
