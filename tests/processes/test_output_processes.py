"""Outputs in daily use, with real processes: run and submit in any order, damage and repair, moves, backups."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nimbusd.client import Client, Event, RequestRefused
from nimbusd.job import Job
from nimbusd.master.output.folder import ledger_path
from tests.support.cluster import PATIENCE_S, REPOSITORY, Cluster, comes_to, gate_of, pieces_of, toy_job
from tests.support.slow import slow

pytestmark = pytest.mark.processes

EPISODES = 12


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A master and a node, for tests that leave them as they were."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.start_node("w1")
        yield cluster


def nimbusctl(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nimbusd.cli", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=PATIENCE_S,
    )


def run(job: Job, folder: Path, *args: str) -> list[dict[str, Any]]:
    done = nimbusctl("run", folder / f"{job.name}.yaml", "--workers", "1", "--spares", "0", "--json", *args)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def until(client: Client, cursor: str, job: Job, name: str) -> Event:
    for event in client.watch(cursor, job.name):
        if isinstance(event, Event) and event.name == name:
            return event
    raise AssertionError("the master never ends")


def damage(path: Path) -> None:
    path.chmod(0o644)
    path.write_text("not what was committed")


def opened(folder: Path, name: str, **changes: Any) -> Job:
    """A toy job whose gate is open."""
    job = toy_job(folder, name, **changes)
    gate_of(folder, name).touch()
    return job


def test_run_and_submit_go_on_with_one_another_and_make_nothing_twice(cluster: Cluster, tmp_path: Path) -> None:
    job = opened(tmp_path, "handed")
    first = run(job, tmp_path)
    assert sum(event["event"] == "episode_committed" for event in first) == EPISODES
    pieces = pieces_of(job.output)
    with cluster.client() as client:
        cursor = client.cursor()
        client.submit(job)
        summary = client.wait(job.name, PATIENCE_S)
        assert (summary.state, summary.committed) == ("complete", EPISODES)
        assert until(client, cursor, job, "job_started").fields["committed"] == EPISODES
    again = run(job, tmp_path)
    assert sum(event["event"] == "episode_committed" for event in again) == 0
    assert pieces_of(job.output) == pieces


def test_a_refused_submit_leaves_nothing_behind(cluster: Cluster, tmp_path: Path) -> None:
    job = opened(tmp_path, "first")
    run(job, tmp_path)
    other = opened(tmp_path, "second", output=str(job.output))
    with cluster.client() as client:
        with pytest.raises(RequestRefused, match="belongs to job 'first'"):
            client.submit(other)
        assert "second" not in [summary.job for summary in client.jobs()]
        with pytest.raises(RequestRefused, match="there is no job"):
            client.job("second")
        client.submit(opened(tmp_path, "second", output=str(tmp_path / "free")))
        assert client.wait("second", PATIENCE_S).state == "complete"


def test_damaged_and_missing_pieces_of_a_run_are_made_again_by_repair(tmp_path: Path) -> None:
    job = opened(tmp_path, "torn")
    run(job, tmp_path)
    before = (job.output / "dataset.txt").read_text()
    torn, gone = sorted((job.output / ".pieces").glob("*__a__*"))[:2]
    damage(torn / "state.txt")
    for path in gone.iterdir():
        path.unlink()
    gone.rmdir()
    assert nimbusctl("verify", job.output).returncode == 1
    tried = nimbusctl("repair", job.output, "--dry-run")
    assert "2 episodes would be made again" in tried.stdout
    repaired = nimbusctl("repair", job.output, "--workers", "1")
    assert repaired.returncode == 0, repaired.stderr
    assert "state.txt has" in repaired.stderr
    assert "no readable manifest" in repaired.stderr
    assert (job.output / "dataset.txt").read_text() == before
    assert "nothing to repair" in nimbusctl("repair", job.output).stdout
    (named,) = sorted((job.output / ".pieces").glob("*__b__000001.*"))
    assert nimbusctl("repair", job.output, "b/1", "--workers", "1").returncode == 0
    assert not named.exists()
    refused = nimbusctl("repair", job.output, "nowhere/1")
    assert (refused.returncode, "nowhere" in refused.stderr) == (2, True)


def test_a_damaged_piece_of_a_cluster_s_job_is_made_again_by_its_master(cluster: Cluster, tmp_path: Path) -> None:
    job = opened(tmp_path, "mended")
    with cluster.client() as client:
        client.submit(job)
        assert client.wait(job.name, PATIENCE_S).state == "complete"
        before = (job.output / "dataset.txt").read_text()
        damage(min((job.output / ".pieces").glob("*__a__*")) / "state.txt")
        repaired = cluster.nimbusctl("repair", str(job.output))
        assert "1 committed episode of mended will be made again" in repaired.stdout, repaired.stderr
        summary = client.wait(job.name, PATIENCE_S)
        assert (summary.state, summary.committed) == ("complete", EPISODES)
    assert len(pieces_of(job.output)) == EPISODES
    assert (job.output / "dataset.txt").read_text() == before


def test_an_output_that_is_moved_away_pauses_the_job_until_it_is_back(cluster: Cluster, tmp_path: Path) -> None:
    job = toy_job(tmp_path, "away")
    with cluster.client() as client:
        cursor = client.cursor()
        client.submit(job)
        comes_to(gate_of(tmp_path, job.name))
        job.output.rename(tmp_path / "elsewhere")
        assert "was removed or moved away" in until(client, cursor, job, "job_paused").fields["why"]
        (tmp_path / "elsewhere").rename(job.output)
        gate_of(tmp_path, job.name).touch()
        summary = client.wait(job.name, PATIENCE_S)
        assert (summary.state, summary.committed) == ("complete", EPISODES)
    assert len(pieces_of(job.output)) == EPISODES


def test_a_cluster_s_output_is_moved_by_a_command_and_the_job_goes_on_there(cluster: Cluster, tmp_path: Path) -> None:
    job = opened(tmp_path, "moved")
    with cluster.client() as client:
        client.submit(job)
        assert client.wait(job.name, PATIENCE_S).state == "complete"
        there = tmp_path / "there" / "now"
        moved = cluster.nimbusctl("output", "move", str(job.output), str(there))
        assert moved.returncode == 0, moved.stderr
        assert client.job(job.name).summary.output == str(there)
        assert client.wait(job.name, PATIENCE_S).state == "complete"
    assert len(pieces_of(there)) == EPISODES
    assert not job.output.exists()


def test_a_job_that_is_forgotten_frees_its_name_and_is_adopted_when_it_comes_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    job = opened(tmp_path, "lethe")
    with cluster.client() as client:
        client.submit(job)
        client.wait(job.name, PATIENCE_S)
        pieces = pieces_of(job.output)
        forgotten = cluster.nimbusctl("forget", job.name)
        assert "its output stays" in forgotten.stdout, forgotten.stderr
        assert job.name not in [summary.job for summary in client.jobs()]
        client.submit(job)
        assert client.wait(job.name, PATIENCE_S).committed == EPISODES
        assert pieces_of(job.output) == pieces
        deleted = cluster.nimbusctl("forget", job.name, "--delete-output")
        assert deleted.returncode == 0, deleted.stderr
    assert [path.name for path in job.output.iterdir()] == ["dataset.txt"]  # a user's writer wrote that, not nimbusd


def test_a_lost_ledger_is_rebuilt_from_the_pieces(tmp_path: Path) -> None:
    job = opened(tmp_path, "rebuilt")
    run(job, tmp_path)
    pieces = pieces_of(job.output)
    for path in ledger_path(job.output).parent.glob("ledger.sqlite*"):
        path.unlink()
    assert nimbusctl("verify", job.output).returncode == 1
    rebuilt = nimbusctl("output", "rebuild", job.output)
    assert f"has {EPISODES} episodes of job rebuilt" in rebuilt.stdout, rebuilt.stderr
    assert nimbusctl("publish", job.output).returncode == 0
    assert sum(event["event"] == "episode_committed" for event in run(job, tmp_path)) == 0
    assert pieces_of(job.output) == pieces


@slow
def test_a_master_s_state_is_backed_up_while_it_works_and_restored(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start_node("w1")
        job, client = opened(tmp_path, "early"), cluster.client()
        client.submit(job)
        client.wait(job.name, PATIENCE_S)
        kept = nimbusctl("backup", cluster.state, tmp_path / "state.tar.gz")
        assert "with job early" in kept.stdout, kept.stderr
        late = opened(tmp_path, "late")
        client.submit(late)
        client.wait(late.name, PATIENCE_S)
        assert "in use by another master" in nimbusctl("restore", tmp_path / "state.tar.gz", cluster.state).stderr + (
            nimbusctl("restore", tmp_path / "state.tar.gz", cluster.state, "--replace").stderr
        )
        cluster.master.kill()
        restored = nimbusctl("restore", tmp_path / "state.tar.gz", cluster.state, "--replace")
        assert restored.returncode == 0, restored.stderr
        cluster.start_master()
        client.submit(late)
        assert client.wait(late.name, PATIENCE_S).committed == EPISODES
        assert len(pieces_of(late.output)) == EPISODES
        assert client.job(job.name).summary.committed == EPISODES
