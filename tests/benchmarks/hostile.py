"""Hostile nodes and clients against a live master, while honest nodes work through honest jobs beside them.

    python -m tests.benchmarks.hostile [--minutes 30] [--seed 0] [--json]

A master and two nodes are processes of their own. Hostile nodes take real leases and lie about them in every way of
`nimbusd.chaos.lies`, and say whatever else is well formed; hostile clients send noise, damaged messages, extreme
values, jobs that are none, and floods. What each sends follows from the seed. Of the honest jobs, hostile nodes claim
only what can be found out: that an episode cannot be planned, or storing the wrong pictures, no master can refute. Jobs
named `bait` are lied about in that way, too.

At the end there is a verdict; exit status 1 if the master ended, its memory grew beyond MAX_GROWTH_BYTES, it failed to
answer somebody for an inner error, an honest job lacks an episode or its dataset does not verify, or a secret beside
the outputs was read into one of them or anything there was changed. The program ends in time, whatever happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import faulthandler
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import msgpack
import psutil
import uvloop
import zmq
import zmq.asyncio

from nimbusd.chaos.lies import LIES, forge
from nimbusd.client import ENDED, ClientError
from nimbusd.core.ids import Attempt, EpisodeKey, JobId, LeaseId, NodeId
from nimbusd.job import Job, read_job
from nimbusd.stages.errors import StoreError
from nimbusd.stages.types import EpisodeRequest
from nimbusd.transport.codec.codec import MessageError
from nimbusd.transport.messages import control as c
from tests.support.cluster import REPOSITORY, Cluster
from tests.support.fuzz_frames import any_message, damaged, odd_fields
from tests.support.raw_peers import GREETING, READY, RawPeer, frame
from tests.support.toy_jobs import scenes, write_toy_job

_MOST_HEARD = 100
MAX_GROWTH_BYTES = 256 << 20
SECRET = b"this is nobody's business 7f3a91"
HOSTILE_NODES = 4
PATIENCE_S = 300.0
"""For an honest job to go on, or nodes to come."""
LEAVE_S = 30.0
"""For a hostile peer to be through with what it is at."""
VERIFY_S = 120.0
SAMPLES = 30
JUDGE_S = 900.0
"""For everything after the attack; whatever takes longer ends this program with a verdict."""
_ODD = [0, -1, 1, 2**31, 2**53, 2**63 - 1, -(2**63), 1e308, -1e308, float("nan"), float("inf"), "", "\0", "\x1b[2J",
        "../../etc", "x" * 5000, None, True, [], {}, [[1]], {"a": {"b": []}}]  # fmt: skip


@dataclass
class Tally:
    """Deeds, and who did them."""

    done: Counter[str] = field(default_factory=Counter)
    heard: Counter[str] = field(default_factory=Counter)


# --- hostile peers ---

NOTHING_HELD = (LeaseId(7), JobId("job"), "s", 1)


class Peer:
    """A plain connection over which anything can be said."""

    def __init__(self, context: zmq.asyncio.Context, address: str, rng: random.Random, tally: Tally) -> None:
        self.rng = rng
        self.tally = tally
        self._socket = context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.sndhwm = 2_000
        self._socket.connect(address)

    async def say(self, message: c.Message | bytes) -> None:
        """Send it; what cannot be packed is not said."""
        try:
            data = message if isinstance(message, bytes) else c.encode(message)
        except MessageError:
            return
        async with asyncio.timeout(20):  # wait_for may swallow that we are cancelled
            await self._socket.send(data)

    async def hear(self, within_s: float) -> list[c.Message]:
        """The bytes that have come, not all at once where they are many."""
        found: list[c.Message] = []
        for _ in range(_MOST_HEARD):
            if not await self._socket.poll(0 if found else int(within_s * 1000)):
                break
            try:
                found.append(c.decode(await self._socket.recv()))
            except MessageError:
                self.tally.heard["what no client understands"] += 1
                continue
            self.tally.heard[type(found[-1]).__name__] += 1
            await asyncio.sleep(0)  # what is there already is awaited without giving way
        return found

    def close(self) -> None:
        self._socket.close()


def twisted(message: c.Message, rng: random.Random) -> bytes:
    """A message of the right shape in which some fields are odd, however deep."""
    body = dataclasses.asdict(message)
    for _ in range(rng.randrange(1, 4)):
        at: Any = body
        while isinstance(at, dict) and at:
            key = rng.choice(list(at))
            if isinstance(at[key], (dict, tuple, list)) and at[key] and rng.random() < 0.7:
                at[key] = list(at[key]) if not isinstance(at[key], dict) else at[key]
                at = at[key] if isinstance(at[key], dict) else at[key][0]
                continue
            at[key] = copy.deepcopy(rng.choice(_ODD))  # which may be twisted in its turn
            break
    packed: bytes = msgpack.packb({"v": c.PROTOCOL_VERSION, "t": type(message).__name__, "b": body})
    return packed


class HostileNode:
    """Takes leases like a node, and lies about them."""

    def __init__(self, name: str, peer: Peer, outputs: dict[str, Path]) -> None:
        self._name = name
        self._peer = peer
        self._rng = peer.rng
        self._outputs = outputs
        self._session = 0
        self._seq = 0
        self._leases: dict[LeaseId, c.Lease] = {}

    async def run(self, over: asyncio.Event) -> None:
        await self._hello()
        while not over.is_set():
            for message in await self._peer.hear(0.2):
                match message:
                    case c.SayHello():
                        await self._hello()
                    case c.Lease():
                        self._leases[message.lease] = message
            await self._beat()
            for lease in self._rng.sample(list(self._leases.values()), min(2, len(self._leases))):
                await self._lie(lease)
            if self._rng.random() < 0.3:
                await self._say("something odd", twisted(self._something(), self._rng))
            if self._rng.random() < 0.02:
                self._session += 1
                self._leases.clear()
                await self._hello()

    async def _say(self, what: str, message: c.Message | bytes) -> None:
        self._peer.tally.done[what] += 1
        await self._peer.say(message)

    async def _hello(self) -> None:
        self._seq = 0
        await self._say(
            "hello", c.Hello(NodeId(self._name), f"s{self._session}", "1", self.environment, {}, 2, ("cpu",))
        )

    environment = ""

    async def _beat(self) -> None:
        self._seq += 1
        held = tuple(list(self._leases)[-50:])
        await self._say("heartbeat", c.Heartbeat(NodeId(self._name), f"s{self._session}", self._seq, 2, held, ()))

    def _something(self) -> c.Message:
        """A message that a node could send about something it holds."""
        lease = self._rng.choice(list(self._leases.values())) if self._leases else None
        stored = (c.Stored(0, "f", 1, 1, "0" * 64, 1.0, {"plan": 1.0}),)
        id, job, scene, number = (lease.lease, lease.job, lease.scene, lease.attempt) if lease else NOTHING_HELD
        node, attempt = NodeId(self._name), Attempt(EpisodeKey(job, scene, 0), number, id)
        choices: list[c.Message] = [
            c.Commit(node, id, job, scene, number, stored),
            c.Fail(node, attempt, c.Failure("plan", "error", "why", "stack"), 1.0),
            c.GiveBack(node, id, (0,)),
            c.CannotRun(node, JobId("no such job"), "no reason"),
            c.NeedJob(node, job),
            c.Heartbeat(node, "s", self._seq, 2, (id,), (c.Running(id, 0, "x", 1.0),)),
        ]
        return self._rng.choice(choices)

    async def _lie(self, lease: c.Lease) -> None:
        span = self._rng.choice(lease.spans)
        request = EpisodeRequest(lease.job, lease.scene, self._rng.randrange(*span), attempt=lease.attempt)
        about = (NodeId(self._name), lease.lease, lease.job, lease.scene, lease.attempt)
        output = self._outputs.get(lease.job)
        bait = lease.job.startswith("bait")
        chance = self._rng.random()
        if output is None or chance < 0.1:
            await self._say("given back", c.GiveBack(NodeId(self._name), lease.lease, (request.index,)))
        elif chance < 0.2:
            await self._say("asked for the job", c.NeedJob(NodeId(self._name), lease.job))
        elif chance < 0.3 and bait:
            kind = self._rng.choice(list(c.FailureKind))
            text = "\x1b[2J" * self._rng.randrange(400)
            attempt = Attempt(EpisodeKey(lease.job, lease.scene, request.index), lease.attempt, lease.lease)
            fail = c.Fail(NodeId(self._name), attempt, c.Failure(text[:200], text[:200], text, text, kind), 1e7)
            await self._say("failed", fail)
        elif chance < 0.35:
            foreign = dataclasses.replace(lease, lease=LeaseId(lease.lease + self._rng.choice([-1, 1])))
            about = (NodeId(self._name), foreign.lease, lease.job, lease.scene, lease.attempt)
            await self._say("claimed for another", c.Commit(*about, (_made(LIES["nothing"], output, request),)))
        else:
            lies = LIES | {"wrong content": _junk} if bait else LIES
            name = self._rng.choice(list(lies))
            lie = lies[name]
            stored = (_made(lie, output, request),) * self._rng.choice([1, 1, 3])
            await self._say(f"lied: {name}", c.Commit(*about, stored))


def _junk(output: Path, request: EpisodeRequest) -> c.Stored:
    """A piece that is whole, and of no use to anybody."""
    return forge(output, request, {"junk": b"\xff" * 100})


def _made(lie: Callable[[Path, EpisodeRequest], c.Stored], output: Path, request: EpisodeRequest) -> c.Stored:
    try:
        return lie(output, request)
    except (OSError, StoreError):  # it was told before, and lies there
        return LIES["nothing"](output, request)


class HostileClient:
    """Asks what no client asks. spec: of a job, to make bad ones of."""

    def __init__(self, peer: Peer, folder: Path, address: str, spec: dict[str, Any]) -> None:
        self._peer = peer
        self._rng = peer.rng
        self._folder = folder
        self._address = address
        self._spec = spec
        self._jobs = 0
        self._names = 0

    async def run(self, over: asyncio.Event) -> None:
        ways: list[Callable[[], Awaitable[None]]] = [
            self._noise, self._damage, self._odd, self._twisted_request, self._bad_job, self._flood, self._new_nodes,
            self._raw, self._half_frame,
        ]  # fmt: skip
        while not over.is_set():
            way = self._rng.choice(ways)
            try:
                async with asyncio.timeout(20):
                    await way()
            except (OSError, EOFError, TimeoutError, zmq.ZMQError):  # turned away, which is as good
                self._peer.tally.done["turned away"] += 1
            self._peer.tally.done[way.__name__.strip("_").replace("_", " ")] += 1
            await self._peer.hear(0.05)

    async def _noise(self) -> None:
        await self._peer.say(self._rng.randbytes(self._rng.randrange(3000)))

    async def _damage(self) -> None:
        for _ in range(20):
            message = any_message(self._rng)
            if not isinstance(message, c.DrainNode | c.Submit):
                await self._peer.say(damaged(c.encode(message), self._rng))

    async def _odd(self) -> None:
        for _ in range(20):
            await self._peer.say(odd_fields(self._rng))

    async def _twisted_request(self) -> None:
        names = ["honest", "nobody", "\0", "a" * 1000]
        name, number = self._rng.choice(names), self._rng.randrange(1, 1 << 40)
        requests: list[c.Message] = [
            c.Jobs(number), c.JobDetail(number, name), c.Cancel(number, "nobody"), c.Retry(number, "nobody"),
            c.Failures(number, name, 0, 500), c.Nodes(number), c.DrainNode(number, "nobody"),
            c.Watch(number, self._rng.choice(["", "1:0", "0:0", "-1:-1", "x", "1:99999999999"]), name, 0.1),
            c.MakeToken(number, 60.0),
        ]  # fmt: skip
        message = self._rng.choice(requests)
        await self._peer.say(message if self._rng.random() < 0.5 else twisted(message, self._rng))

    async def _bad_job(self) -> None:
        self._jobs += 1
        spec = json.loads(json.dumps(self._spec))
        spec |= {"name": f"bad{self._jobs}", "output": str(self._folder / "bad" / str(self._jobs))}
        for _ in range(self._rng.randrange(1, 3)):
            key = self._rng.choice(sorted(spec.keys() - {"output"}))
            if isinstance(spec[key], dict) and spec[key] and self._rng.random() < 0.6:
                spec[key][self._rng.choice(sorted(spec[key]))] = copy.deepcopy(self._rng.choice(_ODD))
            else:
                spec[key] = copy.deepcopy(self._rng.choice([value for value in _ODD if value == value]))
        spec["name"] = spec["name"] if isinstance(spec["name"], str) and spec["name"] != "honest" else "bad"
        await self._peer.say(c.Submit(self._rng.randrange(1, 1 << 40), spec, "mallory", priority=-10))
        await self._peer.hear(0.5)
        await self._peer.say(c.Cancel(1, spec["name"]))

    async def _flood(self) -> None:
        for number in range(1, 1000):
            requests: list[c.Message] = [c.Watch(number, "", "", 5.0), c.Nodes(number), c.Jobs(number)]
            await self._peer.say(self._rng.choice(requests))

    async def _new_nodes(self) -> None:
        packages = {f"package{i}": "x" * 150 for i in range(500)}
        for _ in range(20):
            self._names += 1
            await self._peer.say(
                c.Hello(NodeId(f"ghost{id(self)}-{self._names}"), "s", "1", "env", packages, 64, ("cpu",))
            )

    async def _raw(self) -> None:
        peer = await RawPeer.connect(self._address)
        peer.write(damaged(GREETING + READY, self._rng) + self._rng.randbytes(self._rng.randrange(2000)))
        await asyncio.sleep(self._rng.choice([0, 0.05]))
        peer.close()

    async def _half_frame(self) -> None:
        peer = await RawPeer.shaken_hands(self._address)
        peer.write(frame(b"x" * 10, announced=self._rng.choice([11, 1 << 20, 1 << 30, 1 << 62])))
        await asyncio.sleep(self._rng.choice([0, 0.05]))
        peer.close()


# --- the honest side ---


def honest_job(folder: Path, name: str, episodes: int) -> Job:
    """A job of toy frames, stored as LeRobot datasets."""
    pipeline = {"store": {"component": "NavWriter", "args": {"format": "lerobot-v2.1", "codec": "h264"}}}
    output = str(folder / "outputs" / name)
    values = {
        "name": name,
        "seed": 1,
        "output": output,
        "scenes": scenes("a", "b"),
        "episodes_per_scene": episodes // 2,
    }
    return read_job(write_toy_job(folder / f"{name}.yaml", pipeline, **values))


@dataclass(frozen=True)
class Verdict:
    """The outcome. faults: what should not have been, as sentences."""

    seconds: float
    done: dict[str, int]
    heard: dict[str, int]
    counters: dict[str, int]
    refused_pieces: int
    honest_jobs: int
    honest_episodes: int
    rss_before_bytes: int
    rss_after_bytes: int
    rss_mib: tuple[int, ...]
    """Of the master, at even steps of the attack."""
    faults: tuple[str, ...]


def attack(seconds: float, seed: int, folder: Path, episodes: int = 40) -> Verdict:
    """Let them all at it for so long; then judge."""
    private = folder / "secret"
    private.write_bytes(SECRET)
    (folder / "outputs").mkdir()
    (folder / "outputs" / "secret").write_bytes(SECRET)
    env = {"PYTHONPATH": str(REPOSITORY)}
    with Cluster(folder, publish_every_s=3.0, dead_after_s=5.0, seen_within_s=2.0, env=env) as cluster:
        for name in ("honest1", "honest2"):
            cluster.start_node(name)
        client = cluster.client()
        master = psutil.Process(cluster.master.pid)
        waits_until = time.monotonic() + PATIENCE_S
        while len(nodes := client.nodes()) < 2:
            assert time.monotonic() < waits_until, "the honest nodes do not come"
            time.sleep(0.1)
        rss_before = master.memory_info().rss
        hostile = _Attack(cluster, folder, seed, nodes[0].environment, episodes)
        with _sampled(master, max(1.0, seconds / SAMPLES)) as rss_mib:
            honest = uvloop.run(hostile.run(client, time.monotonic() + seconds))
        faults = [*hostile.faults, *_judged(cluster, client, honest)]
        counters: dict[str, int] = {}
        rss_after = 0
        if cluster.master.alive:
            counters, rss_after = dict(client.counters()), master.memory_info().rss
        log = (folder / "master.log").read_text(errors="replace") if (folder / "master.log").exists() else ""
    if rss_after - rss_before > MAX_GROWTH_BYTES:
        faults.append(f"the master's memory grew by {(rss_after - rss_before) >> 20} MiB")
    faults += [line[:300] for line in log.splitlines() if "cannot answer" in line or "Traceback" in line]
    faults += _leaks(folder)
    return Verdict(
        seconds,
        dict(hostile.tally.done),
        dict(hostile.tally.heard),
        counters,
        log.count("refused a piece of"),
        len(honest),
        sum(job.total_episodes for job in honest),
        rss_before,
        rss_after,
        tuple(rss_mib),
        tuple(dict.fromkeys(faults)),
    )


@contextlib.contextmanager
def _sampled(process: psutil.Process, every_s: float) -> Iterator[list[int]]:
    """The memory of a process in MiB, as a list that grows."""
    taken: list[int] = []
    over = threading.Event()

    def sample() -> None:
        while not over.wait(every_s):
            with contextlib.suppress(psutil.NoSuchProcess):
                taken.append(process.memory_info().rss >> 20)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        over.set()
        thread.join()


class _Attack:
    """Everybody at once."""

    def __init__(self, cluster: Cluster, folder: Path, seed: int, environment: str, episodes: int) -> None:
        self._cluster = cluster
        self._address = cluster.address
        self._folder = folder
        self._rng = random.Random(seed)
        self._environment = environment
        self._episodes = episodes
        self._outputs: dict[str, Path] = {}
        self.tally = Tally()
        self.faults: list[str] = []

    async def run(self, client: Any, ends: float) -> list[Job]:
        """Until then, and until the last honest job is through. Returns the honest jobs."""
        context = zmq.asyncio.Context()
        HostileNode.environment = self._environment
        spec = honest_job(self._folder, "template", 2).to_dict()
        seeds = [self._rng.random() for _ in range(HOSTILE_NODES + 3)]
        peers = [Peer(context, self._address, random.Random(seed), self.tally) for seed in seeds]
        actors = [HostileNode(f"evil{i}", peer, self._outputs).run for i, peer in enumerate(peers[:HOSTILE_NODES])]
        actors += [HostileClient(peer, self._folder, self._address, spec).run for peer in peers[HOSTILE_NODES:]]
        honest: list[Job] = []
        over = asyncio.Event()
        tasks = [asyncio.create_task(actor(over)) for actor in actors]
        try:
            while (not honest or time.monotonic() < ends) and not any(task.done() for task in tasks):
                honest.append(await self._one_job(client, len(honest)))
        except (ClientError, TimeoutError) as error:
            self.faults.append(f"an honest client was not served: {error}")
        over.set()
        _, late = await asyncio.wait(tasks, timeout=LEAVE_S)
        self.faults += [f"a hostile peer is still at it {LEAVE_S:g} s later: {task.get_stack()}" for task in late]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=LEAVE_S)
        ended = [task.exception() for task in tasks if task.done() and not task.cancelled()]
        self.faults += [f"a hostile peer could not go on: {error!r}" for error in ended if error is not None]
        for peer in peers:
            peer.close()
        context.destroy(linger=0)
        return honest

    async def _one_job(self, client: Any, number: int) -> Job:
        bait = honest_job(self._folder, f"bait{number}", 8)
        job = honest_job(self._folder, f"honest{number}", self._episodes)
        self._outputs |= {each.name: each.output for each in (bait, job)}
        for each in (bait, job):
            await asyncio.to_thread(client.submit, each.to_dict())
        committed, ends = 0, time.monotonic() + PATIENCE_S
        while (seen := (await asyncio.to_thread(client.job, job.name)).summary).state not in ENDED:
            if seen.committed > committed:
                committed, ends = seen.committed, time.monotonic() + PATIENCE_S
            if time.monotonic() > ends or not self._cluster.master.alive:
                raise TimeoutError(f"{job.name} does not go on: {committed} of {job.total_episodes} episodes")
            await asyncio.sleep(0.5)
        await asyncio.to_thread(client.cancel, bait.name)
        return job


def _judged(cluster: Cluster, client: Any, honest: list[Job]) -> list[str]:
    """Faults of the master and of the honest jobs."""
    if not cluster.master.alive:
        return [f"the master has ended: {cluster.master.tail()[-3000:]}"]
    try:
        summaries = {summary.job: summary for summary in client.jobs()}
    except ClientError as error:
        return [f"the master does not answer: {error}"]
    faults = []
    for job in honest:
        summary = summaries[job.name]
        if (summary.state, summary.committed) != ("complete", job.total_episodes):
            faults.append(f"{job.name} is {summary.state}: {summary.committed} of {job.total_episodes}: {summary.why}")
        command = [sys.executable, "-m", "nimbusd.cli", "verify", str(job.output)]
        try:
            verified = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=VERIFY_S)
        except subprocess.TimeoutExpired:
            faults.append(f"{job.name} is not verified within {VERIFY_S:g} s")
            continue
        if verified.returncode:
            faults.append(f"{job.name} does not verify: {verified.stdout[-500:]}{verified.stderr[-500:]}")
    return faults


def _leaks(folder: Path) -> list[str]:
    """Secrets that came into an output, or that were changed."""
    kept = (folder / "secret", folder / "outputs" / "secret")
    faults = [f"{path} was changed" for path in kept if path.read_bytes() != SECRET]
    made = [path for path in (folder / "outputs").glob("*/**/*") if path.is_file() and not path.is_symlink()]
    return faults + [f"{path} holds a secret" for path in made if SECRET in path.read_bytes()]


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Whatever happens in it is over in time: after that all that we started is killed, and this program ends with 1,
    all stacks, and that verdict."""

    def end() -> None:
        faulthandler.dump_traceback(all_threads=True)
        sys.stdout.write(f"faults: this program did not come to its end within {seconds:.0f} s\n")
        sys.stdout.flush()
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@click.command()
@click.option("--minutes", type=click.FloatRange(0.1), default=30.0, show_default=True, help="At least.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of what hostile peers send.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(minutes: float, seed: int, as_json: bool) -> None:
    """Attack a master."""
    with (
        bounded(minutes * 60 + PATIENCE_S + JUDGE_S),
        tempfile.TemporaryDirectory(prefix="hostile-") as folder,
    ):
        verdict = attack(minutes * 60, seed, Path(folder))
    row = dataclasses.asdict(verdict)
    if as_json:
        sys.stdout.write(json.dumps(row, indent=1) + "\n")
    else:
        for name, value in row.items():
            sys.stdout.write(f"{name.replace('_', ' '):20} {value}\n")
    sys.exit(1 if verdict.faults else 0)


if __name__ == "__main__":
    main()
