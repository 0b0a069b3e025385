"""Publishing in a process of its own comes to the same as in ours, also where it comes to nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from nimbusd.core.episodes import EpisodeKey, JobId, JobRow, Record, State
from nimbusd.job import Job, read_job
from nimbusd.master import publisher
from nimbusd.master.ledger import Ledger
from nimbusd.master.ledger_thread import LedgerThread
from nimbusd.master.manifest import manifest_digest
from nimbusd.master.output import ledger_path, publish_job
from nimbusd.master.publish_apart import publish_apart
from nimbusd.master.publisher import Publisher
from nimbusd.stages import Piece
from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.piece import PIECES
from tests.store_makers import make_writer, store_episode
from tests.toy import ToyWriter

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
    toys = {"load": "ToyLoader", "plan": "ToyPlanner", "render": "ToyRenderer"}
    stages = {stage: {"component": f"tests.toy:{name}"} for stage, name in toys.items()}
    described = {
        "name": str(NAME),
        "output": str(folder / "out"),
        "scenes": [{"name": "room"}],
        "episodes_per_scene": EPISODES,
        "pipeline": {**stages, "store": store},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(described))
    job = read_job(path)
    ledger_path(job.output).parent.mkdir(parents=True)
    with Ledger.open(ledger_path(job.output)) as ledger:
        ledger.put_job(JobRow(NAME, job.fingerprint(), job.to_dict(), "ada", 0, 0, True, "", 1.0))
        ledger.apply([_committed(store_episode(make_writer(codec="h264"), job.output, i), i) for i in range(EPISODES)])
    return job


def _committed(piece: Piece, index: int) -> Record:
    key = EpisodeKey(NAME, "room", index)
    digest = manifest_digest(piece)
    return Record(key, State.COMMITTED, 1, 0, folder=piece.folder, frames=piece.length, digest=digest)


def content(dataset: Path) -> dict[str, bytes]:
    root = dataset.resolve()
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("final", [False, True])
async def test_a_dataset_is_the_same_whoever_writes_it(job: Job, final: bool) -> None:
    with Ledger.read(ledger_path(job.output)) as ledger:
        here, _ = publish_job(job, job.output, ledger, final=final)
    assert here is not None
    expected = content(here)
    apart, episodes = await publish_apart(job, ledger_path(job.output), final=final)
    assert apart == here
    assert episodes == EPISODES
    assert content(apart) == expected


async def test_many_episodes_are_published_apart(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told does not depend on who publishes."""
    told: list[Any] = []
    async with LedgerThread.opened(ledger_path(job.output)) as ledger:
        for most in (EPISODES, EPISODES - 1):
            monkeypatch.setattr(publisher, "MOST_HERE", most)
            await Publisher(ledger, lambda name, event: told.append((name, event))).publish(NAME, job, final=True)
    assert len(told) == 2
    assert told[0] == told[1]


async def test_what_is_wrong_is_told_in_the_same_words(job: Job) -> None:
    manifest = next((job.output / PIECES).glob("*/manifest.json"))
    manifest.write_bytes(manifest.read_bytes() + b" ")
    with Ledger.read(ledger_path(job.output)) as ledger, pytest.raises(StoreError) as here:
        publish_job(job, job.output, ledger, final=True)
    with pytest.raises(StoreError) as apart:
        await publish_apart(job, ledger_path(job.output), final=True)
    assert str(apart.value) == str(here.value)


async def publishing(output: Path) -> int:
    """The pid of the process that publishes, once it does."""
    while not (note := output / "publishing").exists() or not note.read_text():  # noqa: ASYNC110 - a file only
        await asyncio.sleep(0.01)
    return int(note.read_text())


async def test_a_publishing_process_that_is_killed_is_an_error_and_not_our_end(tmp_path: Path) -> None:
    job = make_job(tmp_path, {"component": "tests.test_publish_apart:StuckWriter"})
    running = asyncio.create_task(publish_apart(job, ledger_path(job.output), final=True))
    os.kill(await asyncio.wait_for(publishing(job.output), 30), signal.SIGKILL)
    with pytest.raises(StoreError, match="ended with status -9"):
        await running


async def test_a_publishing_process_ends_with_who_waits_for_it(tmp_path: Path) -> None:
    job = make_job(tmp_path, {"component": "tests.test_publish_apart:StuckWriter"})
    running = asyncio.create_task(publish_apart(job, ledger_path(job.output), final=True))
    pid = await asyncio.wait_for(publishing(job.output), 30)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert not psutil.pid_exists(pid)
