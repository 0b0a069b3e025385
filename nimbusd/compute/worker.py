"""A compute worker: one process that does its part of the episodes it is leased, as its role says.

Started by the daemon as `python -m nimbusd.compute.worker`. It keeps its components, the loaded scene and the
renderer from one episode to the next. One that is `fused` does all stages, one in the role `plan` hands what it has
planned to the backlog, one in the role `render` takes it from there. Storing goes on while the next episode is made.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nimbusd import __version__
from nimbusd.compute.beats import Beats
from nimbusd.compute.episode_orders import EpisodeOrders
from nimbusd.compute.link import DaemonLink
from nimbusd.compute.progress import ThreadProgress, wait_for_message
from nimbusd.compute.results import result_of
from nimbusd.compute.spare import Spare
from nimbusd.core.ids import JobId, WorkerId
from nimbusd.core.node.split import Role
from nimbusd.job import Job
from nimbusd.machine.memory import die_first, own_gpu_bytes, own_rss_bytes
from nimbusd.makers import faults
from nimbusd.makers.leaving import LEAVE_S, leave_soon
from nimbusd.stages.base import SceneConfig
from nimbusd.stages.errors import NimbusError
from nimbusd.stages.modules import what_is_missing
from nimbusd.stages.planned import Planned, write_planned
from nimbusd.stages.runner import Components, failure_of, plan_stages, store_stages
from nimbusd.stages.types import Episode, EpisodeRequest
from nimbusd.supervisor.cgroups import join_group
from nimbusd.supervisor.page import FIRST_WORKER, Line, own_line
from nimbusd.supervisor.prctl import become_subreaper, die_with_parent, reap_zombies
from nimbusd.supervisor.target import dump_stacks_when_asked
from nimbusd.transport.messages import local as m
from nimbusd.transport.messages.failures import Failure

log = logging.getLogger(__name__)

WAIT_S = 10.0
"""A worker that waits for a job or for work says within this time that it could take it."""
CLOSE_S = 30.0
"""For components to close what they have opened."""
REAP_EVERY_S = 60.0


class ComputeWorker:
    """Makes the episodes that the daemon orders.

    link: to the daemon, which calls this worker by its name. device: for its renderer. line: on the heartbeat page.
    """

    def __init__(self, link: DaemonLink, worker: WorkerId, device: str, line: Line) -> None:
        self._link = link
        self._worker = worker
        self._device = device
        self._line = line
        self._working = ThreadProgress(line.work)
        self._reaped_at = time.monotonic()

    def run(self) -> None:
        """Introduce ourselves, make the components, and work until told to leave."""
        self._link.send(m.WorkerHello(self._worker, os.getpid(), __version__))
        assignment = wait_for_message(self._link, self._working, WAIT_S)
        if isinstance(assignment, m.Leave):
            return
        if not isinstance(assignment, m.Assign):
            raise NimbusError(f"the daemon said {type(assignment).__name__} instead of Assign")
        self._working.promise("open", assignment.open_timeout_s)
        job = Job.from_dict(assignment.job)
        self._role = Role(assignment.role)
        self._plans = tuple(Path(folder) for folder in assignment.plans)
        self._orders = EpisodeOrders(self._link, self._worker, self._working, min(WAIT_S, job.limits.beat_timeout_s))
        costly_stage = "plan" if self._role is Role.PLAN else "render"
        self._beats = Beats(self._link, self._worker, self._line, self._working, job.limits, costly_stage)
        try:
            pipeline = self._open(job)
        except (NimbusError, ModuleNotFoundError) as error:
            why = what_is_missing(error) if isinstance(error, ModuleNotFoundError) else str(error)
            self._link.send(m.Fatal(self._worker, JobId(job.name), why))
            return
        try:
            self._work(job, assignment, pipeline)
        except NimbusError as error:
            self._link.send(m.Fatal(self._worker, JobId(job.name), str(error)))
        finally:
            self._working.promise("close", CLOSE_S)
            pipeline.close()
            self._working.promise("close", 3 * LEAVE_S)  # the last resort, should this process not even end itself

    def _open(self, job: Job) -> Components:
        pipeline = job.make_components(plans=self._role is not Role.RENDER, renders=self._role is not Role.PLAN)
        for stage, component in pipeline.by_stage().items():
            component.beat = self._beats.store_beat if stage == "store" else self._beats.beat
        faults.arm(pipeline.by_stage(), self._worker)
        device = "none, it plans"
        if pipeline.renderer is not None:
            pipeline.renderer.open(self._device)
            device = pipeline.renderer.device_name or self._device
        self._link.send(m.Ready(self._worker, device))
        return pipeline

    def _work(self, job: Job, assignment: m.Assign, pipeline: Components) -> None:
        context: dict[str, Any] = {
            "job": {"name": job.name, "seed": job.seed, "fingerprint": job.fingerprint()},
            "components": job.describe(),
            "node": platform.node(),
            "slot": self._worker,
            "nimbusd": __version__,
            "environment": assignment.environment,
        }
        self._link.send(m.WorkerPulls(self._worker, 2))  # one to work on and one to go on with

        def scene_config(scene: str) -> SceneConfig:
            assert self._orders.current is not None
            return job.scene_config(scene, self._orders.current.entry)

        planned = plan_stages(
            pipeline,
            self._requests(job),
            job_seed=job.seed,
            scene_config=scene_config,
            output=Path(assignment.output),
            context=context,
            seen=self._begin_stage,
            plan_of=self._plan_of,
        )
        if self._role is Role.PLAN:
            for episode in planned:
                self._hand_over(episode)
            return
        episodes = store_stages(
            pipeline,
            planned,
            writers=job.writers,
            stored=self._report,
            seen=self._begin_stage,
            waits=self._beats.wait_for_writer,
        )
        try:
            for episode in episodes:
                log.debug("done with %s", episode.request.episode_id)
        finally:
            episodes.close()

    def _plan_of(self, episode: Episode) -> Path | None:
        path = self._orders.of(episode.request).plan
        return Path(path) if path else None

    def _hand_over(self, episode: Episode) -> None:
        """Put a planned episode into the backlog, or tell why there is none."""
        if episode.failure is None:
            assert episode.sequence is not None
            order = self._orders.of(episode.request)
            attempt = order.attempt
            path = self._plans[order.spill] / f"{attempt.lease}.{attempt.key.index}.{attempt.number}"
            planned = Planned(episode.sequence, dict(episode.timings_s), episode.context["started_unix_s"])
            try:
                size_bytes = write_planned(path, planned)
            except (NimbusError, OSError) as error:
                episode.failure = failure_of("plan", error)
            else:
                self._orders.end(episode.request)
                plan = m.Plan(str(path), size_bytes, order.spill, sum(episode.timings_s.values()))
                self._link.send(m.EpisodePlanned(self._worker, attempt, plan, _memory()))
                return
        self._tell_end(episode)

    def _requests(self, job: Job) -> Iterator[EpisodeRequest]:
        """Orders as they come, until the daemon wants us to leave."""
        fingerprint = job.fingerprint()
        while (order := self._orders.next()) is not None:
            self._link.send(m.WorkerPulls(self._worker, 1))
            key, number = order.attempt.key, order.attempt.number
            request = EpisodeRequest(job.name, key.scene, key.index, job.variant(key.index), number, fingerprint)
            self._orders.begin(order, request)
            yield request
            self._beats.made()
            if (now := time.monotonic()) - self._reaped_at > REAP_EVERY_S:
                self._reaped_at = now
                reap_zombies()

    def _begin_stage(self, stage: str, episode: Episode) -> None:
        if stage == "load":
            episode.context = {**episode.context, "started_unix_s": time.time()}
        self._beats.begin(stage, episode.request, self._orders.of(episode.request).attempt)

    def _report(self, episode: Episode) -> None:
        """Tell the daemon how an episode ended. Called from a writer thread, or ours if it failed before."""
        self._tell_end(episode)
        if "store" in episode.timings_s:
            self._beats.stored()

    def _tell_end(self, episode: Episode) -> None:
        attempt = self._orders.end(episode.request)
        cost_s = sum(episode.timings_s.values())
        made = result_of(episode, cost_s)
        if isinstance(made, Failure):
            self._link.send(m.AttemptFailed(self._worker, attempt, made.plain(), cost_s, _memory()))
        else:
            self._link.send(m.EpisodeStored(self._worker, attempt, made, _memory()))


def _join(group: str) -> None:
    try:
        join_group(group)
    except OSError as error:
        log.warning("not in a control group of its own (%s): what it leaves behind is found otherwise", error)


def _memory() -> m.Memory:
    return m.Memory(own_rss_bytes(), own_gpu_bytes())


def main() -> int:
    parser = argparse.ArgumentParser(prog="nimbusd.compute.worker", description=__doc__)
    parser.add_argument("--endpoint", required=True, help="ZeroMQ address of the daemon")
    parser.add_argument("--worker", required=True, help="name that the daemon knows this worker by, such as cpu:0#1")
    parser.add_argument("--parent", type=int, required=True, help="pid of the daemon; we die with it")
    parser.add_argument("--device", default="auto", help="device for the renderer: auto, cpu, cuda:0")
    parser.add_argument("--cpus", default="", help="CPU cores to run on, such as 0,1; default all")
    parser.add_argument("--page", type=int, help="file descriptor of the heartbeat page; default: nobody watches")
    parser.add_argument("--line", type=int, default=FIRST_WORKER, help="our line on the page")
    parser.add_argument("--stacks", help="file to write our threads' stacks to, if we are asked")
    parser.add_argument("--group", help="folder of the control group to join; default: stay in the daemon's")
    parser.add_argument("--spare", action="store_true", help="prepare for a job, and wait for a slot")
    parser.add_argument(
        "--start-timeout",
        type=float,
        default=300.0,
        help="seconds that a spare may take to import what it prepares for",
    )
    args = parser.parse_args()
    die_with_parent(args.parent)
    become_subreaper()  # so that what components start stays below us, and goes with us
    if args.group:
        _join(args.group)
    die_first()
    if args.stacks:
        dump_stacks_when_asked(args.stacks)
    faulthandler.enable()
    line = own_line(args.page, args.line)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    if args.cpus:
        os.sched_setaffinity(0, {int(cpu) for cpu in args.cpus.split(",")})
    link = DaemonLink(args.endpoint)
    status = 1
    try:
        _serve(link, line, args)
        status = 0
    finally:
        leave_soon(status)
        link.close()
    return status


def _serve(link: DaemonLink, line: Line, args: argparse.Namespace) -> None:
    worker, device = WorkerId(args.worker), args.device
    if args.spare:
        if (place := Spare(link, worker, line, args.start_timeout).wait()) is None:
            return
        worker, device = place.worker, place.device
    ComputeWorker(link, worker, device, line).run()
    link.send(m.WorkerBye(worker))


if __name__ == "__main__":
    sys.exit(main())
