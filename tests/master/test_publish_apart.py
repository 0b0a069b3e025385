"""Publishing in a process of its own comes to the same as in ours, and its faults are told and stay its own."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from nimbusd.core.ids import EpisodeKey, JobId
from nimbusd.core.master import publishing as core_publishing
from nimbusd.core.records import JobRow, Record, State
from nimbusd.job import Job, read_job
from nimbusd.master.ledger.ledger import Ledger
from nimbusd.master.ledger.thread import LedgerThread
from nimbusd.master.output.folder import ledger_path
from nimbusd.master.publish.apart import NotPublished, publish_apart, publish_here, publish_limits
from nimbusd.master.publish.publisher import Publisher
from nimbusd.stages import Piece
from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.piece import PIECES, draft_piece, manifest_digest
from nimbusd.stages.types import EpisodeRequest
from tests.support.records import record_of
from tests.support.slow import quick_first
from tests.support.store_makers import make_writer, store_episode
from tests.support.toy import ToyWriter
from tests.support.toy_jobs import scenes, write_toy_job

pytestmark = pytest.mark.processes

NAME = JobId("job")
EPISODES = 3


class StuckWriter(ToyWriter):
    """Notes that it publishes, and never ends."""

    def publish(self, output: Path, pieces: list[Piece], job: dict[str, Any], final: bool) -> Path:
        (output / "publishing").write_text(str(os.getpid()))
        while True:
            signal.pause()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return make_job(tmp_path, {"component": "NavWriter", "args": {"codec": "h264"}})


def make_job(folder: Path, store: dict[str, Any]) -> Job:
    """A job of which some episodes are committed, in its own ledger."""
    values = {"name": str(NAME), "scenes": scenes("room"), "episodes_per_scene": EPISODES}
    job = read_job(write_toy_job(folder / "job.yaml", {"store": store}, **values))
    ledger_path(job.output).parent.mkdir(parents=True)
    with Ledger.open(ledger_path(job.output)) as ledger:
        ledger.put_job(JobRow(NAME, job.fingerprint(), job.to_dict(), "ada", 0, 0, True, "", 1.0))
        make = _nav_piece if store["component"] == "NavWriter" else _toy_piece
        ledger.apply([_committed(make(job.output, index), index) for index in range(EPISODES)])
    return job


def _nav_piece(output: Path, index: int) -> Piece:
    return store_episode(make_writer(codec="h264"), output, index)


def _toy_piece(output: Path, index: int) -> Piece:
    with draft_piece(output, EpisodeRequest(NAME, "room", index)) as draft:
        draft.add("state.txt", b"0.0")
        return draft.commit(1)


async def apart(job: Job, *, final: bool = True, **limits: Any) -> tuple[Path | None, int]:
    """Publish a job in a process of its own. limits: other than the job's."""
    return await publish_apart(job, ledger_path(job.output), replace(publish_limits(job), **limits), final=final)


def _committed(piece: Piece, index: int) -> Record:
    key = EpisodeKey(NAME, "room", index)
    digest = manifest_digest(piece)
    return record_of(key, State.COMMITTED, folder=piece.folder, frames=piece.length, digest=digest)


def content(dataset: Path) -> dict[str, bytes]:
    root = dataset.resolve()
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("final", [False, True])
async def test_a_dataset_is_the_same_whoever_writes_it(job: Job, final: bool) -> None:
    with Ledger.read(ledger_path(job.output)) as ledger:
        here, _ = publish_here(job, ledger, final=final)
    assert here is not None
    expected = content(here)
    (job.output / ".nimbusd" / "published.json").unlink()  # as if nobody had published before
    dataset, episodes = await apart(job, final=final)
    assert dataset == here
    assert episodes == EPISODES
    assert content(dataset) == expected


async def test_what_is_wrong_is_told_in_the_same_words(job: Job) -> None:
    manifest = next((job.output / PIECES).glob("*/manifest.json"))
    manifest.write_bytes(manifest.read_bytes() + b" ")
    with Ledger.read(ledger_path(job.output)) as ledger, pytest.raises(StoreError) as here:
        publish_here(job, ledger, final=True)
    with pytest.raises(StoreError) as elsewhere:
        await apart(job)
    assert str(elsewhere.value) == str(here.value)


async def publishing(output: Path) -> int:
    """The pid of the process that publishes, once it does."""
    while not (note := output / "publishing").exists() or not note.read_text():  # noqa: ASYNC110 - a file only
        await asyncio.sleep(0.01)
    return int(note.read_text())


async def test_a_publishing_process_that_is_killed_is_an_error_and_not_our_end(tmp_path: Path) -> None:
    job = make_job(tmp_path, {"component": "tests.master.test_publish_apart:StuckWriter"})
    running = asyncio.create_task(apart(job))
    os.kill(await asyncio.wait_for(publishing(job.output), 30), signal.SIGKILL)
    with pytest.raises(NotPublished, match="StuckWriter died of signal 9"):
        await running


async def test_a_publishing_process_ends_with_who_waits_for_it(tmp_path: Path) -> None:
    job = make_job(tmp_path, {"component": "tests.master.test_publish_apart:StuckWriter"})
    running = asyncio.create_task(apart(job))
    pid = await asyncio.wait_for(publishing(job.output), 30)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not psutil.pid_exists(pid)


SAYS = {
    "raise": ("raised ZeroDivisionError: no such luck", "in _fail"),
    "sys_exit": ("raised SystemExit: 3", "in _fail"),
    "exit": ("ended its process with status 0 before it had published", "about to fail"),
    "crash": (r"died of signal 11 \(SIGSEGV\) \(File .* in _fail\)", "Segmentation fault"),
    "hang": ("was killed: no sign of progress for 5 s", "in _fail"),
    "hold": (r"was killed: no sign of progress for 5 s \(File .* in _fail\)", "in publish"),
    "memory": ("was killed: it took .* MB of memory, and may take 400 MB", "in _fail"),
}


@pytest.mark.parametrize("kind", quick_first(SAYS, 3))
async def test_a_writer_that_fails_in_any_way_fails_its_publish_with_its_stack(tmp_path: Path, kind: str) -> None:
    job = faulty(tmp_path, kind)
    says, evidence = SAYS[kind]
    with pytest.raises(NotPublished, match=f"cannot publish the dataset in {job.output}.*{says}") as failed:
        await apart(job, silence_s=5.0, memory_bytes=400_000_000)
    assert evidence in failed.value.evidence
    (tmp_path / "faulty").unlink()
    assert (await apart(job))[1] == EPISODES


async def test_threads_that_a_writer_leaves_delay_nobody_for_long(tmp_path: Path) -> None:
    """Nothing of the test depends on how long: a process that waited for them would never end."""
    dataset, _ = await asyncio.wait_for(apart(faulty(tmp_path, "threads")), 60)
    assert dataset is not None


def faulty(folder: Path, kind: str) -> Job:
    """A job whose writer fails in publishing, as long as a file is there."""
    (folder / "faulty").touch()
    args = {"kind": kind, "while_exists": str(folder / "faulty")}
    return make_job(folder, {"component": "tests.support.faulty_components:FaultyPublisher", "args": args})


async def test_the_same_content_is_published_once_as_long_as_it_is_as_it_was_left(job: Job) -> None:
    first, _ = await apart(job, final=True)
    assert first is not None
    snapshot = first.resolve()
    for final in (True, False):  # a final dataset is as good as any
        assert await apart(job, final=final) == (first, EPISODES)
        assert first.resolve() == snapshot
    (snapshot / "meta" / "info.json").touch()
    await apart(job, final=True)
    assert first.resolve() != snapshot


async def test_other_settings_of_the_writer_are_published_anew(job: Job) -> None:
    first, _ = await apart(job)
    assert first is not None
    snapshot, store = first.resolve(), job.stages["store"]
    other = replace(job, stages={**job.stages, "store": replace(store, args={**store.args, "data_file_mb": 7})})
    await apart(other)
    assert first.resolve() != snapshot


async def test_a_hanging_writer_stops_no_other_job_and_is_tried_ever_more_rarely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times the fault, and then no more: each failure is told with its stack and when it is tried again."""
    monkeypatch.setattr(core_publishing, "FIRST_PAUSE_S", 0.1)
    for name in "ab":
        (tmp_path / name).mkdir()
    stuck, sound = (
        faulty(tmp_path / "a", "raise"),
        make_job(tmp_path / "b", {"component": "tests.support.toy:ToyWriter"}),
    )
    told: list[Any] = []

    def tell(_: str, event: Any) -> None:
        told.append(event)
        if len(told) == 3:
            (tmp_path / "a" / "faulty").unlink()

    async with LedgerThread.opened(ledger_path(stuck.output)) as ledger:
        await Publisher(ledger, tell).publish_last(NAME, stuck)
    *failures, published = told
    assert [event.again_s for event in failures] == [0.1, 0.2, 0.4]
    assert all("in _fail" in event.evidence and event.final for event in failures)
    assert published.episodes == EPISODES
    assert (await apart(sound))[1] == EPISODES
