"""Signs of life of a compute worker: on its line of the heartbeat page, by which the watchdog goes, and to the daemon.

Each thread gives its own: the one that loads, plans and renders, and the writer threads, which store meanwhile.
"""

from __future__ import annotations

import threading
import time

from nimbusd.compute.deadlines import Deadlines
from nimbusd.compute.link import DaemonLink
from nimbusd.compute.progress import SharedPulse, ThreadProgress
from nimbusd.core.ids import Attempt, WorkerId
from nimbusd.job.model import Limits
from nimbusd.stages.types import EpisodeRequest
from nimbusd.supervisor.page import Line
from nimbusd.transport.messages import local as m

BEAT_EVERY_S = 0.2
"""Beats closer together than this are not sent: progress within a fifth of a second is the same progress. On the
heartbeat page, which is what deadlines go by, every one counts."""


class Beats:
    """The signs of life of a worker while it works on a job.

    limits: of the job. costly_stage: the last stage that a new scene makes slow; once through it, the worker knows the
    scene, and its silences there are usual ones.
    """

    def __init__(
        self, link: DaemonLink, worker: WorkerId, line: Line, working: ThreadProgress, limits: Limits, costly_stage: str
    ) -> None:
        self._link = link
        self._worker = worker
        self._line = line
        self._working = working
        self._limits = limits
        self._costly_stage = costly_stage
        self._deadlines = Deadlines(limits.beat_timeout_s, limits.stage_limits_s())
        self._stores = SharedPulse(line.store)
        self._storing: dict[int, ThreadProgress] = {}
        """By thread."""
        self._stored: dict[int, Attempt] = {}
        """The episode that each writer thread is at."""
        self._made: Attempt | None = None
        """The episode that the working thread is at."""
        self._stage = ""
        self._familiar: tuple[str, int] | None = None
        """Scene and variant that the worker has been through."""
        self._sent_at = 0.0

    def begin(self, stage: str, request: EpisodeRequest, attempt: Attempt) -> None:
        """The calling thread begins a stage of an episode."""
        first = request.attempt == 1  # what was perhaps killed too soon has all its time at the next attempt
        if stage == "store":  # in a writer thread: it overlaps the next episode, whose stage is the one to show
            thread = threading.get_ident()
            self._stored[thread] = attempt
            if thread not in self._storing:
                self._storing[thread] = ThreadProgress(self._stores.part())
            self._storing[thread].begin(stage, self._deadlines, first)
        else:
            self._made, self._stage = attempt, stage
            self._working.begin(stage, self._deadlines, first and self._familiar == (request.scene, request.variant))
        if stage == "load" and (limit_s := self._limits.episode_timeout_s) is not None:
            self._line.limit_episode(time.monotonic_ns() + int(limit_s * 1e9))
        if stage == self._costly_stage:
            self._familiar = (request.scene, request.variant)
        self._link.send(m.Beat(self._worker, attempt, stage))

    def beat(self) -> None:
        """The working thread gets on."""
        self._working.beat()
        self._send(self._made, self._stage)

    def store_beat(self) -> None:
        """The calling writer thread gets on."""
        thread = threading.get_ident()
        self._storing[thread].beat()
        self._send(self._stored.get(thread), "store")

    def made(self) -> None:
        """The working thread is through with its episode."""
        self._made = None
        self._line.limit_episode(0)

    def wait_for_writer(self) -> None:
        """The working thread can do nothing until a writer thread is free."""
        self._line.limit_episode(0)
        self._working.rest()

    def stored(self) -> None:
        """The calling writer thread is through with its episode."""
        thread = threading.get_ident()
        del self._stored[thread]
        self._storing[thread].rest()

    def _send(self, attempt: Attempt | None, stage: str) -> None:
        now = time.monotonic()
        if now - self._sent_at < BEAT_EVERY_S or attempt is None:
            return
        self._sent_at = now
        self._link.send(m.Beat(self._worker, attempt, stage))
