"""Storage that is full, read-only, stalled or damaged, under whole clusters: nothing is lost, torn or hidden."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from nimbusd.cli.publish import verify
from nimbusd.client import Client, JobSummary
from nimbusd.job import Job
from tests.support.cluster import PATIENCE_S, REPOSITORY, Cluster, comes_to, gate_of, pieces_of, toy_job
from tests.support.store_makers import JOB, make_writer, store_episodes
from tests.support.toy_jobs import TOYS

pytestmark = pytest.mark.processes

EPISODES = 12
PIECE_BYTES = 100_000


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Mount something on a folder."""
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here ({done.stderr.strip()}); test_store_piece.py tries the errors")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def read_only(folder: Path) -> AbstractContextManager[None]:
    """Let nobody write to a folder: by a mount, since permissions do not hold root back."""
    if os.geteuid():
        return _without_permission(folder)
    return _mounted_read_only(folder)


@contextmanager
def _without_permission(folder: Path) -> Iterator[None]:
    folder.chmod(0o500)
    try:
        yield
    finally:
        folder.chmod(0o700)


@contextmanager
def _mounted_read_only(folder: Path) -> Iterator[None]:
    with mounted(folder, "--bind", str(folder)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield


def paused(client: Client, job: Job) -> JobSummary:
    """Wait until a job is paused."""
    return until(lambda: client.job(job.name).summary, lambda summary: summary.state == "paused")


def until(look: Callable[[], JobSummary], wanted: Callable[[JobSummary], bool]) -> JobSummary:
    ends = time.monotonic() + PATIENCE_S
    while not wanted(found := look()):
        assert time.monotonic() < ends, found
        time.sleep(0.02)
    return found


def ends_whole(cluster: Cluster, client: Client, job: Job) -> None:
    """Wait for the end: all is there once, and nobody was charged."""
    summary = client.wait(job.name, PATIENCE_S)
    assert (summary.state, summary.committed) == ("complete", EPISODES)
    assert set(client.job(job.name).reasons) <= {"unreachable"}, "something was charged beside failed plans"
    committed = cluster.committed(job.name)
    assert len(committed) == len(set(committed)) == EPISODES
    cluster.stop_nodes()
    assert len(pieces_of(job.output)) == EPISODES, "garbage was left behind"


def test_a_full_disk_pauses_the_job_which_goes_on_by_itself_when_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    writer = {"component": "tests.support.faulty_components:BulkyWriter", "args": {"size_bytes": PIECE_BYTES}}
    job = toy_job(tmp_path, output=str(disk / "out"), pipeline={**TOYS, "store": writer})
    with mounted(disk, "-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs"), Cluster(tmp_path) as cluster:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(4 * 2**20 - 5 * PIECE_BYTES))
        cluster.start_node("w1", workers=2)
        client = cluster.client()
        client.submit(job)
        summary = paused(client, job)
        assert "No space left on device" in summary.why
        assert str(job.output) in summary.why
        assert 0 < summary.committed < EPISODES
        whole = [piece for piece in pieces_of(job.output) if not piece.endswith(".tmp")]
        assert all((job.output / ".pieces" / piece / "bulk.bin").stat().st_size == PIECE_BYTES for piece in whole)
        ballast.unlink()
        ends_whole(cluster, client, job)


def test_a_run_whose_disk_is_full_ends_and_says_so_and_goes_on_when_it_is_started_again(tmp_path: Path) -> None:
    """A run by itself keeps its ledger on the same disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    writer = {"component": "tests.support.faulty_components:BulkyWriter", "args": {"size_bytes": PIECE_BYTES}}
    toy_job(tmp_path, output=str(disk / "out"), pipeline={**TOYS, "store": writer})

    def run() -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "nimbusd.cli",
            "run",
            str(tmp_path / "toy.yaml"),
            "--workers",
            "1",
            "--spares",
            "0",
        ]
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=PATIENCE_S)

    with mounted(disk, "-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs"):
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(4 * 2**20 - 5 * PIECE_BYTES))
        ended = run()
        assert ended.returncode == 1, ended.stdout + ended.stderr
        said = ended.stdout + ended.stderr
        assert "Traceback" not in said
        assert re.search("No space left|disk is full|database or disk is full", said), said
        ballast.unlink()
        again = run()
        assert again.returncode == 0, again.stdout + again.stderr
        assert f"{EPISODES} of {EPISODES} episodes" in again.stdout
        assert len(pieces_of(disk / "out")) == EPISODES, "garbage was left behind"


def test_a_dataset_that_cannot_be_written_is_told_and_costs_no_episode(tmp_path: Path) -> None:
    job = toy_job(tmp_path, pipeline=TOYS)
    (job.output / "dataset.txt").mkdir(parents=True)  # in the way of the dataset
    with Cluster(tmp_path) as cluster:
        cluster.start_node("w1", workers=1)
        client = cluster.client()
        client.submit(job)
        summary = paused(client, job)
        assert summary.committed == EPISODES
        assert f"cannot publish the dataset in {job.output}" in summary.why
        assert "Is a directory" in summary.why


def test_an_output_that_becomes_read_only_pauses_the_job_until_it_is_writable_again(tmp_path: Path) -> None:
    job = toy_job(tmp_path)
    with Cluster(tmp_path) as cluster:
        cluster.start_node("w1", workers=1)
        client = cluster.client()
        client.submit(job)
        comes_to(gate_of(tmp_path, job.name))
        with read_only(job.output / ".pieces"):
            gate_of(tmp_path, job.name).touch()
            summary = paused(client, job)
            # A write that failed says so, or a look at the folder, whichever comes first.
            assert "read-only" in summary.why.lower() or "Permission denied" in summary.why
            assert str(job.output / ".pieces") in summary.why
        ends_whole(cluster, client, job)


def test_an_episode_whose_storage_stalls_is_set_aside_and_its_neighbours_are_not_blamed(tmp_path: Path) -> None:
    """One death sets an episode aside: the episode that was rendered meanwhile must not count as its cause."""
    fifo = tmp_path / "stalled"
    os.mkfifo(fifo)
    args = {"fifo": str(fifo), "scene": "b", "index": 1}
    job = toy_job(
        tmp_path,
        pipeline={**TOYS, "store": {"component": "tests.support.faulty_components:StalledWriter", "args": args}},
        limits={"beat_timeout_s": 60.0, "stage_timeout_s": {"store": 1.0}, "attempts": 1},
    )
    with Cluster(tmp_path) as cluster:
        node = cluster.start_node("w1", workers=1)
        client = cluster.client()
        client.submit(job)
        summary = client.wait(job.name, PATIENCE_S)
        (failure,) = client.failures(job.name)
        assert (failure.scene, failure.index, failure.state) == ("b", 1, "quarantined")
        assert (failure.failure.stage, failure.failure.reason) == ("store", "hang")
        assert failure.failure.detail == "killed: no progress in stage store for 1 s"
        assert "in save_data" in failure.failure.evidence
        assert (summary.state, summary.committed) == ("incomplete", EPISODES - 1)
        assert len(node.said("killing worker")) == 1
        cluster.stop_nodes()
    assert len(pieces_of(job.output)) == EPISODES - 1, "garbage was left behind"


def test_sigterm_in_the_middle_of_a_render_loses_nothing_and_ends_with_status_0(tmp_path: Path) -> None:
    job = toy_job(tmp_path)
    with Cluster(tmp_path) as cluster:
        node = cluster.start_node("w1", workers=2)
        client = cluster.client()
        client.submit(job)
        comes_to(gate_of(tmp_path, job.name))
        node.signal(signal.SIGTERM)
        node.wait_for("leaving")
        gate_of(tmp_path, job.name).touch()
        assert node.wait() == 0
        cluster.start_node("w2")
        ends_whole(cluster, client, job)


Damage = Callable[[bytes, random.Random], bytes]


def _flip(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


DAMAGES: dict[str, Damage] = {
    "flipped": _flip,
    "truncated": lambda content, rng: content[: rng.randrange(len(content))],
    "zeroed": lambda content, rng: bytes(len(content)),
    "longer": lambda content, rng: content + b"\0",
}


@pytest.mark.parametrize("how", DAMAGES)
def test_verify_finds_a_file_of_a_dataset_that_was_torn(tmp_path: Path, how: str) -> None:
    """Every file of a published dataset, videos, tables and metadata, and of the pieces below it."""
    writer = make_writer(codec="h264")
    pieces = store_episodes(writer, tmp_path, range(2))
    writer.publish(tmp_path, pieces, JOB, True)
    rng = random.Random(how)

    def verdict() -> tuple[int, Any]:
        result = CliRunner().invoke(verify, [str((tmp_path / "dataset").resolve()), "--json"])
        return result.exit_code, orjson.loads(result.stdout)

    assert verdict()[0] == 0
    seen: set[str] = set()
    for path in sorted(path for path in (tmp_path / "dataset").resolve().rglob("*") if path.is_file()):
        if path.suffix in seen and path.suffix in (".jpg", ".png"):
            continue  # one of hundreds of the same kind
        seen.add(path.suffix)
        content = path.read_bytes()
        path.write_bytes(DAMAGES[how](content, rng))
        status, faults = verdict()
        assert status == 1, f"{path} {how}: {faults}"
        path.write_bytes(content)
    assert verdict()[0] == 0
