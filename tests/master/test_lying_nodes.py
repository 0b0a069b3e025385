"""A node lies about pieces that it was leased: nothing of it is recorded, and neither jobs nor others suffer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from nimbusd.chaos.lies import LIES, forge, nothing, store
from nimbusd.core.ids import Attempt, EpisodeKey, JobId, LeaseId, NodeId, Span, indexes_of
from nimbusd.core.records import JobRow, State
from nimbusd.job import Job
from nimbusd.master.ledger.thread import LedgerThread
from nimbusd.master.master import Master
from nimbusd.master.reports import Reports
from nimbusd.stages.store.piece import PIECES
from nimbusd.stages.types import EpisodeRequest
from nimbusd.transport.messages import control as c
from tests.support.cluster import toy_job
from tests.support.records import record_of

PATIENCE_S = 60.0


class Stage:
    """A master over a real ledger, and nodes that say what the test lets them say."""

    def __init__(self, ledger: LedgerThread, job: Job, seen_within_s: float) -> None:
        self.sent: dict[str, list[c.ToNode]] = {}

        def send(node: str, message: c.ToNode) -> None:
            self.sent.setdefault(node, []).append(message)

        self.master = Master(ledger, send, seen_within_s=seen_within_s)
        self.job = job
        self._seq = 0

    def join(self, *nodes: str) -> None:
        for node in nodes:
            self.master.heard(c.Hello(NodeId(node), "s", "1", "env", {}, 1, ()))

    async def lease(self, node: str, credit: int = 1) -> list[tuple[c.Lease, EpisodeRequest]]:
        """A node's lease, once it has one."""
        self._seq += 1
        tasks = self.master.scheduler.tasks
        held = tuple(tasks.held_by(NodeId(node)))
        self.master.heard(c.Heartbeat(NodeId(node), "s", self._seq, credit, held, ()))

        def leases() -> list[c.Lease]:
            return [m for m in self.sent[node] if isinstance(m, c.Lease) and m.lease in tasks.leases]

        await self.until(leases)
        found = leases()
        self.sent[node] = [m for m in self.sent[node] if isinstance(m, c.Lease)]
        return [
            (lease, EpisodeRequest(lease.job, lease.scene, i, attempt=lease.attempt))
            for lease in found
            for i in indexes_of(lease.spans)
            if i in tasks.leases[lease.lease].open
        ]

    def commit(self, node: str, lease: c.Lease, *stored: c.Stored) -> None:
        self.master.heard(c.Commit(NodeId(node), lease.lease, lease.job, lease.scene, lease.attempt, stored))

    async def answer(self, node: str) -> c.Ack:
        await self.until(lambda: any(isinstance(m, c.Ack) for m in self.sent[node]))
        return next(m for m in self.sent[node] if isinstance(m, c.Ack))

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110 - what it waits for is decided in many places
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def stage(folder: Path, *, seen_within_s: float = 0.0) -> AsyncIterator[Stage]:
    job = toy_job(folder, scenes=[{"name": "a"}], episodes_per_scene=8)
    async with LedgerThread.opened(folder / "ledger.sqlite") as ledger:
        on = Stage(ledger, job, seen_within_s)
        running = asyncio.create_task(on.master.run())
        await on.master.ready.wait()
        row = JobRow(JobId(job.name), job.fingerprint(), job.to_dict(), "", 0, 0, True, "", 0.0)
        await on.master.intake.submit(row, job)
        try:
            yield on
        finally:
            assert not running.done(), "the master has ended"
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_about_a_piece_is_refused_recorded_nowhere_and_not_charged(lie: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    async with stage(tmp_path) as on:
        on.join("liar")
        (lease, request), *_ = await on.lease("liar")
        on.commit("liar", lease, LIES[lie](on.job.output, request))
        if lie == "nothing":  # it may come yet, as far as anybody can tell
            await on.until(lambda: on.master.scheduler.tasks.leases)
        answer = await on.answer("liar")
        assert (answer.indexes, answer.refused) == ((), (request.index,))
        assert [piece async for piece in committed(on)] == []
        scene = on.master.scheduler.tasks.jobs[JobId("toy")].scenes["a"]
        assert scene.tried[request.index].losses == 0


async def committed(on: Stage) -> AsyncIterator[object]:
    for piece in await on.master.ledger.call(lambda ledger: list(ledger.committed(JobId("toy")))):
        yield piece


async def test_a_node_that_keeps_lying_gets_no_more_and_others_finish_the_job(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.join("liar", "honest")
        for _ in range(3):
            (lease, request), *_ = await on.lease("liar")
            on.commit("liar", lease, LIES["other_digest"](on.job.output, request))
            await on.answer("liar")
        why = next(node.why for node in Reports(on.master).nodes() if node.node == "liar")
        assert "3 pieces that it told of were not as it said" in why
        before = len(on.sent["liar"])
        tasks = on.master.scheduler.tasks
        while tasks.jobs:
            for lease, request in await on.lease("honest", credit=8):
                on.commit("honest", lease, store(on.job.output, request))
            await on.until(lambda: not tasks.held_by(NodeId("honest")))
        await on.until(lambda: not on.master.open)
        assert not any(isinstance(m, c.Lease) for m in on.sent["liar"][before:])
        assert len([piece async for piece in committed(on)]) == 8


async def test_what_one_node_gave_up_no_other_may_claim(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.join("one", "liar")
        ((lease, request),) = await on.lease("one")
        on.master.heard(c.Bye(NodeId("one"), "s", "I leave"))
        stored = store(on.job.output, request)
        on.commit("liar", lease, stored)
        await on.until(lambda: any(isinstance(m, c.Ack) for m in on.sent.get("liar", ())))
        assert (await on.answer("liar")).refused == (request.index,)
        on.sent["one"] = []
        on.commit("one", lease, stored)
        assert (await on.answer("one")).indexes == (request.index,)


async def test_a_piece_of_a_job_that_is_unknown_is_not_called_garbage(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.join("node")
        lost = c.Lease(NodeId("node"), LeaseId(7), JobId("of_a_lost_ledger"), "a", 1, (Span(0, 1),))
        on.commit("node", lost, nothing(on.job.output, EpisodeRequest(lost.job, lost.scene, 0)))
        answer = await on.answer("node")
        assert (answer.lease, answer.indexes, answer.refused) == (7, (0,), ())


async def test_a_piece_that_storage_shows_late_is_waited_for(tmp_path: Path) -> None:
    async with stage(tmp_path, seen_within_s=PATIENCE_S) as on:
        on.join("node")
        ((lease, request),) = await on.lease("node")
        on.commit("node", lease, nothing(on.job.output, request))
        await on.until(lambda: on.master._review._missing_since)
        stored = store(on.job.output, request)
        on.commit("node", lease, stored)
        assert (await on.answer("node")).indexes == (request.index,)


async def test_an_output_that_cannot_be_seen_pauses_its_job_which_goes_on_when_it_can(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.join("node")
        ((lease, request),) = await on.lease("node")
        stored = store(on.job.output, request)
        on.job.output.joinpath(PIECES).rename(tmp_path / "away")
        on.commit("node", lease, stored)
        await on.until(lambda: "cannot be seen here" in on.master.open[JobId("toy")].why)
        (tmp_path / "away").rename(on.job.output / PIECES)
        on.commit("node", lease, stored)
        assert (await on.answer("node")).indexes == (request.index,)


async def test_a_node_that_alone_blames_the_storage_does_not_keep_the_job_from_going_on(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.join("liar", "honest")
        tasks = on.master.scheduler.tasks
        for _ in range(6):
            (lease, request), *_ = await on.lease("honest")
            (blamed, lost), *_ = await on.lease("liar")
            attempt = Attempt(EpisodeKey(JobId("toy"), "a", lost.index), blamed.attempt, blamed.lease)
            full = c.Failure("store", "disk_full", "", kind=c.FailureKind.BLAMELESS)
            on.master.heard(c.Fail(NodeId("liar"), attempt, full, 0.1))
            on.commit("honest", lease, store(on.job.output, request))
            await on.answer("honest")
            if "liar" in tasks.jobs[JobId("toy")].unfit:
                break
            tasks.jobs[JobId("toy")].resume_at = 0.0
            await on.until(lambda: tasks.jobs[JobId("toy")].state.value == "running")
        assert "while others store there" in tasks.jobs[JobId("toy")].unfit[NodeId("liar")]


async def test_sizes_beyond_what_a_ledger_can_add_do_not_stop_a_master(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        records = [
            record_of(
                EpisodeKey(JobId("toy"), "a", i), State.COMMITTED, 1, 0, "n", size_bytes=2**63 - 1, folder=f"f{i}"
            )
            for i in range(3)
        ]
        await on.master.ledger.submit(records)
        total = await on.master.ledger.call(lambda ledger: ledger.totals(JobId("toy")))
        assert total.size_bytes == 3 * (2**63 - 1)
        history = await on.master.ledger.call(lambda ledger: ledger.history(JobId("toy")))
        assert history["a"].count.size_bytes == 3 * (2**63 - 1)
        row = await on.master.ledger.call(lambda ledger: ledger.job(JobId("toy")))
        assert row is not None
        c.encode(c.JobList(1, (await Reports(on.master).summary(row),)))


async def test_a_forged_piece_that_keeps_to_its_folder_is_taken(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.join("node")
        ((lease, request),) = await on.lease("node")
        on.commit("node", lease, forge(on.job.output, request, {"files/a b.txt": b"x", "state.txt": b"y"}))
        assert (await on.answer("node")).indexes == (request.index,)


async def test_of_nodes_that_are_gone_only_the_latest_are_told_of(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("nimbusd.master.master.MOST_LOST", 3)
    async with stage(tmp_path) as on:

        async def go(node: str) -> None:
            on.master.heard(c.Bye(NodeId(node), "s", "maintenance"))
            await on.until(lambda: on.master.nodes[NodeId(node)].lost)

        on.join("stays", "returns")
        await go("returns")
        on.join("returns")
        for number in range(9):
            on.join(f"ghost{number}")
            await go(f"ghost{number}")
        told = {node.node: node.state for node in Reports(on.master).nodes()}
        gone = {f"ghost{number}": "lost" for number in (6, 7, 8)}
        assert told == {"stays": "ready", "returns": "ready"} | gone


@pytest.mark.parametrize("lie", ["nothing", "other_digest"])
async def test_a_claim_that_is_repeated_while_somebody_looks_is_not_taken_for_looked_at(
    lie: str, tmp_path: Path
) -> None:
    """Of an episode that its node gave back: the first claim holds it, and the second came as if that were a look."""
    async with stage(tmp_path, seen_within_s=PATIENCE_S) as on:
        on.join("liar")
        (lease, request), *_ = await on.lease("liar")
        on.master.heard(c.GiveBack(NodeId("liar"), lease.lease, (request.index,)))
        told = LIES[lie](on.job.output, request)
        for _ in range(3):
            on.commit("liar", lease, told)
        on.commit("liar", lease, told, told)
        await on.until(lambda: not on.master._review._under_way)
        assert [piece async for piece in committed(on)] == []
        scene = on.master.scheduler.tasks.jobs[JobId("toy")].scenes["a"]
        assert scene.count.committed == 0
