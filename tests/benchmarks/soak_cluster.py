"""A master and two nodes in namespaces of their own at real work for hours, one of their processes killed now and then.

    python -m tests.benchmarks.soak_cluster [--hours 24] [--kill-every-s 180] [--seed 0] [--jobs blender --jobs mujoco]
                                            [--folder /var/tmp] [--json]

Master and nodes each have a network, a /tmp and a /dev/shm of their own (see `soak_places`); nodes join by tokens and
talk to the master by encrypted TCP. One job of each kind is open at any time, each on one node. In turn a node's
daemon, a compute worker, a watchdog and the master get SIGKILL, each time another one drawn from the seed; daemons
are started again at once, the rest comes back by itself. Every process is sampled: memory, descriptors, threads.

At the end of its time no job is added; those that are open are made to their end, and every output is looked at.
Exits with 1 if an episode was lost or made twice, a piece is torn or left over, `nimbusctl verify` finds anything, a
job does not come to its end, what was killed is not back in time, a process ended that nobody had killed, or memory,
descriptors or threads grow beyond their bounds. Exits with 2, and a sentence, where there are no namespaces.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import psutil

from nimbusd.chaos.cluster import ProcessCluster
from nimbusd.chaos.commit_events import CommitEvents
from nimbusd.chaos.inspection import inspect_job
from nimbusd.chaos.processes import Daemon
from nimbusd.client import ENDED, Client, ClientError
from nimbusd.core.ids import EpisodeKey
from nimbusd.job import Job
from tests.benchmarks.soak_jobs import KINDS, make_job, size_for
from tests.benchmarks.soak_lives import Course, Sample, course
from tests.benchmarks.soak_places import NoPlaces, Places, enter, must_be_shared
from tests.support.cluster import REPOSITORY

LOOK_S = 3.0
BACK_S = 120.0
"""The longest absence of something that was killed."""
STUCK_S = 1200.0
"""A job that has committed nothing for so long never will."""
VERIFY_S = 600.0
NODES = ("node1", "node2")
DAEMON_BOUND_KIB = 8 << 10
WORKER_BOUND_KIB = 64 << 10
"""KiB per hour. What a day adds stays below 200 MiB for a daemon; a compute worker is replaced before its limit."""
WARM_UP_S = 120.0
WORKER_WARM_UP_S = 300.0
"""Of each process; the memory of renderers takes a dozen episodes to come to its height."""
LONG_H = 0.5
"""From here on every role must have been measured."""
_LIBRARIES = {"/bpy/": "Blender worker", "libmujoco": "MuJoCo worker"}


class ApartCluster(ProcessCluster):
    """A cluster each of whose processes is in the place of its name."""

    def __init__(self, folder: Path, places: Places) -> None:
        self._places = places
        address = f"tcp://{places['master'].address}:7600"
        super().__init__(folder, bind=address, heartbeat_s=1.0, dead_after_s=10.0, publish_every_s=20.0)

    def start(self, argv: Sequence[str], log: str, env: Mapping[str, str] | None = None) -> Daemon:
        return super().start(self._places[log].command(argv), log, env)

    def admin(self) -> Client:
        """A client with the keys that the master made."""
        return self.client(master_key=str(self.state / "master.pub"), key=str(self.state / "admin.key"))

    def join(self, name: str, token: str) -> None:
        """Start a node that the master does not know."""
        options = ["--state", str(self.folder / name), "--name", name, "--workers", "1", "--join", token]
        self.nodes[name] = self._start("worker", options, {}, name)


# --- processes over time ---


class Lives:
    """Samples of all processes, by role and pid."""

    def __init__(self) -> None:
        self._lives: dict[str, dict[int, list[Sample]]] = {}
        self._began: dict[int, float] = {}
        self._roles: dict[int, str] = {}

    def look(self, cluster: ApartCluster) -> None:
        """Sample everybody who is there."""
        self._take("master", cluster.master.pid)
        for node in cluster.nodes.values():
            self._take("node daemon", node.pid)
            for watchdog in node.watchdogs():
                self._take("watchdog", watchdog.pid)
            for worker in node.compute_workers():
                if (role := self._roles.get(worker.pid) or _role_of(worker.pid)) is not None:
                    self._roles[worker.pid] = role
                    self._take(role, worker.pid)

    def _take(self, role: str, pid: int) -> None:
        now = time.monotonic()
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(pid)
            at_s = now - self._began.setdefault(pid, now)
            sample = Sample(at_s, process.memory_info().rss // 1024, process.num_fds(), process.num_threads())
            self._lives.setdefault(role, {}).setdefault(pid, []).append(sample)

    def courses(self) -> tuple[list[Course], list[str]]:
        """The growth of each role, and the roles none of whose lives was long enough to judge."""
        found = {
            role: course(role, list(lives.values()), *_expected(role)) for role, lives in sorted(self._lives.items())
        }
        return [each for each in found.values() if each is not None], [role for role in found if found[role] is None]


def _expected(role: str) -> tuple[float, float]:
    """Of a process of this role: how long it warms up in seconds, and how it may grow then in KiB per hour."""
    return (WORKER_WARM_UP_S, WORKER_BOUND_KIB) if "worker" in role else (WARM_UP_S, DAEMON_BOUND_KIB)


def _role_of(pid: int) -> str | None:
    """By what a compute worker has loaded; None while that is neither renderer."""
    with contextlib.suppress(OSError):
        loaded = Path(f"/proc/{pid}/maps").read_text()
        for part, role in _LIBRARIES.items():
            if part in loaded:
                return role
    return None


# --- kills ---


@dataclass(frozen=True, slots=True)
class Away:
    """Something that was killed and is not back yet."""

    what: str
    since: float
    is_back: Callable[[], bool]


@dataclass(slots=True)
class Killer:
    """Kills in turn; who it is follows from the seed. slowest_s: what kind was away the longest."""

    cluster: ApartCluster
    client: Client
    rng: random.Random
    every_s: float
    due_at: float
    killed: Counter[str] = field(default_factory=Counter)
    slowest_s: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    _turn: Iterator[str] = field(default_factory=lambda: itertools.cycle(("daemon", "worker", "watchdog", "master")))
    _away: Away | None = None

    def look(self, on: bool) -> None:
        """Kill what is due, if `on` and nothing else is away; note what is back."""
        now = time.monotonic()
        if self._away is not None:
            if self._away.is_back():
                kind = self._away.what.partition(" ")[0]
                self.slowest_s[kind] = round(max(self.slowest_s.get(kind, 0.0), now - self._away.since), 1)
                self._away = None
            elif now - self._away.since > BACK_S:
                self.faults.append(f"{self._away.what} is not back after {BACK_S:g} s")
                self._away = None
        elif on and now >= self.due_at:
            self.due_at = now + self.every_s
            self._away = self._kill(next(self._turn))

    def _kill(self, kind: str) -> Away:
        name = self.rng.choice(NODES)
        node = self.cluster.nodes[name]
        now = time.monotonic()
        what = f"{kind} of {name}" if kind != "master" else "master"
        match kind:
            case "master":
                self.cluster.master.kill()
                self.cluster.start_master()
                is_back = self._both_work
            case "daemon":
                node.kill()
                self.cluster.start_node(name)
                is_back = self._both_work
            case _:
                of = node.watchdogs if kind == "watchdog" else node.compute_workers
                before = of()
                if not before:  # it is being replaced: the next turn is another one's
                    return Away(what, now, lambda: True)
                victim = self.rng.choice(before)
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.kill()
                known = {process.pid for process in before}
                is_back = lambda: any(process.pid not in known for process in of())  # noqa: E731
        self.killed[kind] += 1
        say(f"{what}: SIGKILL")
        return Away(what, now, is_back)

    def _both_work(self) -> bool:
        with contextlib.suppress(ClientError):
            states = {node.node: node.state for node in self.client.nodes()}
            return all(states.get(name) == "ready" for name in NODES)
        return False


# --- work ---


@dataclass(slots=True)
class Work:
    """Jobs, one after another of each kind."""

    client: Client
    folder: Path
    kinds: tuple[str, ...]
    size: int
    jobs: list[Job] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    episodes: int = 0
    _open: dict[str, tuple[Job, int, float]] = field(default_factory=dict)
    """kind → (job, committed when it last moved, when that was)"""

    def look(self, on: bool) -> None:
        """Submit what is missing, if `on`; take in what has ended."""
        for kind in self.kinds:
            with contextlib.suppress(ClientError):  # the master is being started: the next look finds it
                if kind in self._open:
                    self._follow(kind)
                elif on:
                    job = make_job(kind, len(self.jobs) + 1, self.folder, self.size)
                    self.client.submit(job, max_nodes=1)  # so that both renderers are at work, for long
                    self.jobs.append(job)
                    self._open[kind] = job, -1, time.monotonic()

    @property
    def is_open(self) -> bool:
        return bool(self._open)

    def _follow(self, kind: str) -> None:
        job, before, since = self._open[kind]
        summary = self.client.job(job.name).summary
        if summary.state in ENDED:
            del self._open[kind]
            self.episodes += summary.committed
            made = f"{summary.committed} of {summary.wanted}, {summary.failed} without a plan"
            say(f"{job.name} is {summary.state}: {made}")
            if summary.quarantined or summary.state == "cancelled":
                self.faults.append(f"{job.name} is {summary.state}, with {summary.quarantined} episodes set aside")
            return
        if summary.committed != before:
            self._open[kind] = job, summary.committed, time.monotonic()
        elif time.monotonic() - since > STUCK_S:
            self.faults.append(f"{job.name} has committed nothing for {STUCK_S:g} s: {summary.waiting} {summary.why}")
            del self._open[kind]


# --- the verdict ---


@dataclass(frozen=True)
class Verdict:
    """The outcome. faults: what should not have been, as sentences."""

    hours: float
    jobs: int
    episodes: int
    wanted: int
    lost: int
    twice: int
    verified: int
    kills: dict[str, int]
    slowest_back_s: dict[str, float]
    processes: list[Course]
    faults: list[str]


def soak(hours: float, kill_every_s: float, seed: int, kinds: tuple[str, ...], folder: Path) -> Verdict:
    """Run it. folder: for everything; all places must see it."""
    began = time.monotonic()
    lives = Lives()
    with Places(("master", *NODES)) as places, ApartCluster(folder, places) as cluster:
        client = cluster.admin()
        for name in NODES:
            cluster.join(name, client.token(600.0).token)
        for name in NODES:
            cluster.master.wait_for(f"node {name} joined")
        commits = CommitEvents(cluster.admin())
        commits.start()
        killer = Killer(cluster, client, random.Random(seed), kill_every_s, began + kill_every_s)
        work = Work(client, folder, kinds, size_for(hours))
        ends = began + hours * 3600
        while work.is_open or time.monotonic() < ends:
            on = time.monotonic() < ends
            work.look(on)
            killer.look(on)
            lives.look(cluster)
            _tell_of_the_dead(cluster, killer.faults)
            time.sleep(LOOK_S)
        measured_h = (time.monotonic() - began) / 3600
        _wait_until_quiet(client)
        cluster.stop_nodes()
        counts = {job.name: dict(commits.of(job.name)) for job in work.jobs}
        courses, unmeasured = lives.courses()
        if measured_h >= LONG_H:
            killer.faults += [f"no {role} lived long enough to be measured" for role in unmeasured]
        return _judged(cluster, work, killer, counts, courses, measured_h)


def _tell_of_the_dead(cluster: ApartCluster, faults: list[str]) -> None:
    """Daemons that have ended though nobody killed them are told of, and started again."""
    if not cluster.master.alive:
        faults.append(f"the master has ended by itself: {cluster.master.tail()[-2000:]}")
        cluster.start_master()
    for name, node in list(cluster.nodes.items()):
        if not node.alive:
            faults.append(f"{name} has ended by itself: {node.tail()[-2000:]}")
            cluster.start_node(name)


def _wait_until_quiet(client: Client) -> None:
    """Wait until nodes have put away what they had in hand at the end of the last job."""
    ends = time.monotonic() + BACK_S
    while time.monotonic() < ends and any(node.episodes or node.running for node in client.nodes()):
        time.sleep(1.0)


def _judged(
    cluster: ApartCluster,
    work: Work,
    killer: Killer,
    counts: Mapping[str, Mapping[EpisodeKey, int]],
    courses: list[Course],
    hours: float,
) -> Verdict:
    faults = [*work.faults, *killer.faults]
    lost = twice = verified = 0
    for job in work.jobs:
        found = inspect_job(job, cluster.state / "ledger.sqlite", counts[job.name])
        lost += found.lost
        twice += found.duplicated
        if not found.clean:
            faults.append(f"{job.name}: {found}")
        if (why := _verified(job)) is None:
            verified += 1
        else:
            faults.append(f"{job.name} does not verify: {why}")
    faults += [f"{each.role}: {' and '.join(each.grows)} grow" for each in courses if each.grows]
    if not work.jobs or not work.episodes:
        faults.append("nothing was made")
    wanted = sum(job.total_episodes for job in work.jobs)
    return Verdict(
        round(hours, 3),
        len(work.jobs),
        work.episodes,
        wanted,
        lost,
        twice,
        verified,
        dict(killer.killed),
        killer.slowest_s,
        courses,
        faults,
    )


def _verified(job: Job) -> str | None:
    """The complaint of `nimbusctl verify` about an output, if it has one. Episodes without a plan may be missing."""
    command = [sys.executable, "-m", "nimbusd.cli", "verify", str(job.output), "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=VERIFY_S)
    except subprocess.TimeoutExpired:
        return f"nothing within {VERIFY_S:g} s"
    if done.returncode in (0, 7) and not json.loads(done.stdout)["faults"]:
        return None
    return f"status {done.returncode}: {done.stdout[-1000:]}{done.stderr[-1000:]}"


def _stop(number: int, _: object) -> None:
    """End what we have started, and say why there is no verdict."""
    say(f"asked to stop by {signal.Signals(number).name}: there is no verdict")
    sys.exit(128 + number)


def say(what: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def show(verdict: Verdict) -> None:
    """The table, and the verdict below it."""
    print(f"{'process':<18}{'lives':>6}{'hours':>8}{'RSS MiB':>18}{'KiB/hour':>11}{'fds':>7}{'threads':>9}")
    for each in verdict.processes:
        rss = f"{each.first_rss_mib:.1f} → {each.last_rss_mib:.1f}"
        print(
            f"{each.role:<18}{each.lives:>6}{each.over_s / 3600:>8.2f}{rss:>18}{each.slope_kib:>11.0f}"
            f"{each.fds:>+7.0f}{each.threads:>+9.0f}  {'GROWS' if each.grows else 'flat'}"
        )
    kills = ", ".join(
        f"{count} of a {kind} (back within {verdict.slowest_back_s.get(kind, 0):g} s)"
        for kind, count in verdict.kills.items()
    )
    print(f"kills: {kills or 'none'}")
    print(
        f"{verdict.hours:.2f} h, {verdict.jobs} jobs, {verdict.episodes} of {verdict.wanted} episodes made: "
        f"{verdict.lost} lost, {verdict.twice} twice, {verdict.verified} of {verdict.jobs} outputs verify"
    )
    for fault in verdict.faults:
        print(f"FAULT: {fault}")
    print("NOT clean" if verdict.faults else "clean")


@click.command()
@click.option("--hours", type=click.FloatRange(0.01), default=24.0, show_default=True, help="Until no job is added.")
@click.option(
    "--kill-every-s", type=click.FloatRange(1), default=180.0, show_default=True, help="Seconds between kills."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of who is killed.")
@click.option("--jobs", multiple=True, type=click.Choice(KINDS), default=("blender", "mujoco"), show_default=True)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("/var/tmp"),
    show_default=True,
    help="Where outputs and logs go: not beneath /tmp.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(hours: float, kill_every_s: float, seed: int, jobs: tuple[str, ...], folder: Path, as_json: bool) -> None:
    """Work for hours, with kills."""
    try:
        for path in (folder, REPOSITORY, Path(sys.prefix)):
            must_be_shared(path)
        enter("tests.benchmarks.soak_cluster")
        signal.signal(signal.SIGTERM, _stop)
        made = Path(tempfile.mkdtemp(prefix="soak-", dir=folder))
        say(f"logs and outputs are in {made}")
        verdict = soak(hours, kill_every_s, seed, jobs, made)
    except NoPlaces as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if as_json:
        print(json.dumps(dataclasses.asdict(verdict), indent=1))
    else:
        show(verdict)
    sys.exit(1 if verdict.faults else 0)


if __name__ == "__main__":
    main()
