"""A compute worker: one process that loads, plans, renders and stores the episodes it is leased.

Started by the daemon as `python -m nimbusd.worker.compute`. It keeps its components, the loaded scene and the
renderer from one episode to the next, and stores each episode while it works on the next one.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import platform
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nimbusd import __version__
from nimbusd.job import Job
from nimbusd.master.manifest import manifest_digest
from nimbusd.stages.errors import NimbusError
from nimbusd.stages.runner import Pipeline, run_stages
from nimbusd.stages.types import Episode, EpisodeRequest
from nimbusd.supervisor.prctl import die_with_parent
from nimbusd.transport import messages as m
from nimbusd.worker.link import DaemonLink

log = logging.getLogger(__name__)

BEAT_EVERY_S = 0.2
"""Beats closer together than this are not sent: progress within a fifth of a second is the same progress."""


class ComputeWorker:
    """Turns leases into pieces. `link` leads to the daemon; `slot` is the name it knows us by."""

    def __init__(self, link: DaemonLink, slot: str, device: str) -> None:
        self._link = link
        self._slot = slot
        self._device = device
        self._leases: deque[m.Lease] = deque()
        self._current: m.EpisodeRef | None = None
        self._entry: Mapping[str, Any] = {}
        self._lease_of: dict[tuple[str, int, int], m.EpisodeRef] = {}
        self._stage = ""
        self._last_beat = 0.0

    def run(self) -> None:
        """Introduce ourselves, make the components, and work until told to leave."""
        self._link.send(m.Hello(self._slot, os.getpid(), __version__))
        welcome = self._link.receive()
        if isinstance(welcome, m.Drain):
            return
        if not isinstance(welcome, m.Welcome):
            raise NimbusError(f"the daemon said {type(welcome).__name__} instead of Welcome")
        job = Job.from_dict(welcome.job)
        output = Path(welcome.output)
        try:
            pipeline = self._open(job)
        except NimbusError as error:
            self._link.send(m.Fatal(self._slot, job.name, str(error)))
            return
        try:
            self._work(job, output, pipeline)
        except NimbusError as error:
            self._link.send(m.Fatal(self._slot, job.name, str(error)))
        finally:
            pipeline.close()

    def _open(self, job: Job) -> Pipeline:
        pipeline = Pipeline(
            loader=job.make("load"),
            randomizer=job.make("randomize") if "randomize" in job.stages else None,
            planner=job.make("plan"),
            renderer=job.make("render"),
            writer=job.make("store"),
        )
        for component in pipeline.components().values():
            component.beat = self._beat
        pipeline.renderer.open(self._device)
        device = str(getattr(pipeline.renderer, "device_name", self._device))
        self._link.send(m.Ready(self._slot, device))
        return pipeline

    def _work(self, job: Job, output: Path, pipeline: Pipeline) -> None:
        context: dict[str, Any] = {
            "job": {"name": job.name, "seed": job.seed, "fingerprint": job.fingerprint()},
            "components": pipeline.describe(),
            "node": platform.node(),
            "slot": self._slot,
            "nimbusd": __version__,
        }
        self._link.send(m.Pull(self._slot, 2))  # one to work on and one to go on with
        episodes = run_stages(
            pipeline,
            self._requests(job),
            job_seed=job.seed,
            scene_config=lambda scene: job.scene_config(scene, self._entry),
            output=output,
            context=context,
            stored=self._report,
            seen=self._stage_began,
        )
        try:
            for episode in episodes:
                log.debug("done with %s", episode.request.episode_id)
        finally:
            episodes.close()

    def _requests(self, job: Job) -> Iterator[EpisodeRequest]:
        """Leases as they come, until the daemon drains us; then unstarted ones go back."""
        while (lease := self._next_lease()) is not None:
            self._link.send(m.Pull(self._slot, 1))
            ref = lease.episode
            self._current, self._entry = ref, lease.entry
            self._lease_of[ref.scene, ref.index, ref.attempt] = ref
            yield EpisodeRequest(job.name, ref.scene, ref.index, job.variant(ref.index), ref.attempt)
            self._current = None

    def _next_lease(self) -> m.Lease | None:
        while True:
            message = self._link.receive(timeout_s=0.0 if self._leases else None)
            if isinstance(message, m.Lease):
                self._leases.append(message)
            elif isinstance(message, m.Drain):
                self._link.send(m.GiveBack(self._slot, tuple(lease.episode for lease in self._leases)))
                return None
            elif message is None:
                return self._leases.popleft()
            else:
                raise NimbusError(f"the daemon sent an unexpected {type(message).__name__}")

    # --- progress; called from the working threads only ---

    def _stage_began(self, stage: str, episode: Episode) -> None:
        if stage == "load":
            episode.context = {**episode.context, "started_unix_s": time.time()}
        if stage != "store":  # storing overlaps the next episode, whose stage is the one to show
            self._stage = stage
        self._link.send(m.Beat(self._slot, self._ref(episode), stage))

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._last_beat < BEAT_EVERY_S or self._current is None:
            return
        self._last_beat = now
        self._link.send(m.Beat(self._slot, self._current, self._stage))

    def _ref(self, episode: Episode) -> m.EpisodeRef:
        request = episode.request
        return self._lease_of[request.scene, request.index, request.attempt]

    def _report(self, episode: Episode) -> None:
        """Tell the daemon how an episode ended. Called from the writer thread, or ours if it failed before."""
        ref = self._ref(episode)
        del self._lease_of[ref.scene, ref.index, ref.attempt]
        if (failure := episode.failure) is not None:
            self._link.send(
                m.Fail(
                    self._slot,
                    ref,
                    failure.stage,
                    failure.reason,
                    failure.detail[:2000],
                    failure.planned,
                    failure.evidence[-20000:],
                    dict(episode.timings_s),
                )
            )
            return
        piece = episode.piece
        assert piece is not None
        size_bytes = sum(file.size_bytes for file in piece.files)
        digest = manifest_digest(piece)
        timings_s = dict(episode.timings_s)
        self._link.send(m.Commit(self._slot, ref, piece.folder, piece.length, size_bytes, digest, timings_s))


def main() -> int:
    parser = argparse.ArgumentParser(prog="nimbusd.worker.compute", description=__doc__)
    parser.add_argument("--endpoint", required=True, help="ZeroMQ address of the daemon")
    parser.add_argument("--slot", required=True, help="name that the daemon knows this worker by")
    parser.add_argument("--parent", type=int, required=True, help="pid of the daemon; we die with it")
    parser.add_argument("--device", default="auto", help="device for the renderer: auto, cpu, cuda:0")
    parser.add_argument("--cpus", default="", help="CPU cores to run on, such as 0,1; default all")
    args = parser.parse_args()
    die_with_parent(args.parent)
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    if args.cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in args.cpus.split(",")})
    link = DaemonLink(args.endpoint)
    try:
        ComputeWorker(link, args.slot, args.device).run()
        link.send(m.Bye(args.slot))
    finally:
        link.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
