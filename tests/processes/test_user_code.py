"""Users' code runs in compute workers and publishing processes alone, whatever it does there, and ends with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nimbusd.client import JobSummary
from nimbusd.supervisor.cgroups import WorkerGroups, own_group
from tests.support.cluster import PATIENCE_S, REPOSITORY, Cluster, come_to_their_end, toy_job
from tests.support.slow import quick_first, slow
from tests.support.toy_jobs import TOYS
from tests.support.watched_workers import gone

pytestmark = pytest.mark.processes

SMALL: dict[str, Any] = {"scenes": [{"name": "a"}], "episodes_per_scene": 2}
NOTING = """
import os
from pathlib import Path
import tests.support.toy as toy
with open({note!r}, "a") as file:
    file.write(Path("/proc/self/cmdline").read_text().replace(chr(0), " ") + chr(10))
class Loader(toy.ToyLoader): pass
class Planner(toy.ToyPlanner): pass
class Renderer(toy.ToyRenderer): pass
class Writer(toy.ToyWriter): pass
"""


def faulty(folder: Path, kind: str) -> dict[str, Any]:
    """A writer that fails in publishing, as long as the file `faulty` is there."""
    (folder / "faulty").touch()
    args = {"kind": kind, "while_exists": str(folder / "faulty")}
    return {**TOYS, "store": {"component": "tests.support.faulty_components:FaultyPublisher", "args": args}}


def until(look: Callable[[], JobSummary], wanted: Callable[[JobSummary], bool]) -> JobSummary:
    ends = time.monotonic() + PATIENCE_S
    while not wanted(found := look()):
        assert time.monotonic() < ends, found
        time.sleep(0.05)
    return found


def nimbusctl(*args: str | Path, cwd: Path = REPOSITORY, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "nimbusd.cli", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=cwd,
        env={**os.environ, **env},
    )


def test_neither_master_nor_daemon_imports_a_component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note, modules = tmp_path / "imported", tmp_path / "modules"
    modules.mkdir()
    (modules / "noting_parts.py").write_text(NOTING.format(note=str(note)))
    monkeypatch.syspath_prepend(str(modules))
    kinds = {"load": "Loader", "plan": "Planner", "render": "Renderer", "store": "Writer"}
    pipeline = {kind: {"component": f"noting_parts:{name}"} for kind, name in kinds.items()}
    job = toy_job(tmp_path, pipeline=pipeline, **SMALL)
    note.unlink()  # this process has read the job file
    with Cluster(tmp_path, publish_every_s=0.2, env={"PYTHONPATH": str(modules)}) as cluster:
        cluster.start_node("w1", spares=1)
        client = cluster.client()
        client.submit(job)
        assert client.wait(job.name, PATIENCE_S).state == "complete"
        cluster.stop_nodes()
    importers = note.read_text().splitlines()
    apart = ("nimbusd.compute.worker", "nimbusd.master.publish.apart")
    assert [line for line in importers if not any(module in line for module in apart)] == []
    assert {module for module in apart if any(module in line for line in importers)} == set(apart)


def test_a_job_that_cannot_be_published_says_why_stops_no_other_and_can_be_cancelled(tmp_path: Path) -> None:
    stuck = toy_job(tmp_path, "stuck", pipeline=faulty(tmp_path, "hang"), limits={"publish_timeout_s": 4.0}, **SMALL)
    sound = toy_job(tmp_path, "sound", pipeline=TOYS, **SMALL)
    with Cluster(tmp_path) as cluster:
        cluster.start_node("w1")
        client = cluster.client()
        client.submit(stuck)
        until(lambda: client.job(stuck.name).summary, lambda summary: summary.why == "publishing")
        client.submit(sound)
        assert client.wait(sound.name, PATIENCE_S).state == "complete"
        paused = until(lambda: client.job(stuck.name).summary, lambda summary: summary.state == "paused")
        assert "FaultyPublisher was killed: no sign of progress for 4 s" in paused.why
        cluster.master.wait_for("in _fail")
        assert client.cancel(stuck.name).count == 1
        ended = client.wait(stuck.name, PATIENCE_S)
        assert (ended.state, ended.committed) == ("cancelled", 2)
        assert "no sign of progress" in ended.why
        (tmp_path / "faulty").unlink()
        cluster.stop_nodes()
    recovered = nimbusctl("publish", stuck.output)
    assert "published 2 episodes" in recovered.stdout, recovered.stderr


@slow
def test_a_job_is_published_as_soon_as_its_writer_can(tmp_path: Path) -> None:
    job = toy_job(tmp_path, pipeline=faulty(tmp_path, "exit"), **SMALL)
    with Cluster(tmp_path, publish_every_s=0.2) as cluster:
        cluster.start_node("w1")
        client = cluster.client()
        client.submit(job)
        until(lambda: client.job(job.name).summary, lambda summary: "before it had published" in summary.why)
        (tmp_path / "faulty").unlink()
        ended = client.wait(job.name, PATIENCE_S)
        assert (ended.state, ended.committed) == ("complete", 2)
        cluster.stop_nodes()


def test_a_run_whose_writer_fails_says_so_ends_all_that_it_left_and_goes_on_later(tmp_path: Path) -> None:
    toy_job(tmp_path, pipeline=faulty(tmp_path, "leave"), **SMALL)
    command = ("run", tmp_path / "toy.yaml", "--workers", "1", "--spares", "0", "--json")
    first = nimbusctl(*command)
    events = [json.loads(line) for line in first.stdout.splitlines()]
    assert first.returncode == 1, first.stderr
    assert "Traceback" not in first.stderr
    (failed,) = [event for event in events if event["event"] == "publish_failed"]
    assert failed["final"]
    assert "about to fail" in failed["evidence"]
    assert "ended its process with status 0 before it had published" in events[-1]["why"]
    pids = [int(pid) for pid in (tmp_path / "toy" / "children").read_text().split()]
    assert len(pids) == 2
    come_to_their_end(pids)
    (tmp_path / "faulty").unlink()
    assert nimbusctl(*command).returncode == 0


def test_a_run_with_nothing_missing_publishes_nothing_new(tmp_path: Path) -> None:
    job = toy_job(tmp_path, pipeline=TOYS, **SMALL)
    command = ("run", tmp_path / "toy.yaml", "--workers", "1", "--spares", "0")
    assert nimbusctl(*command).returncode == 0
    dataset = job.output / "dataset.txt"
    before = dataset.stat()
    again = nimbusctl(*command)
    assert again.returncode == 0
    assert f"dataset: {dataset}" in again.stdout
    assert dataset.stat() == before


def test_what_lies_in_the_way_of_the_dataset_is_noticed_before_anything_is_made(tmp_path: Path) -> None:
    job = toy_job(tmp_path, pipeline=TOYS, **SMALL)
    (job.output / "dataset").mkdir(parents=True)
    refused = nimbusctl("run", tmp_path / "toy.yaml", "--workers", "1")
    assert refused.returncode == 1
    assert f"{job.output / 'dataset'} is not a link that nimbusd made; move it away" in refused.stderr
    assert not any((job.output / ".pieces").glob("*"))


def test_modules_in_the_current_folder_are_not_imported_by_what_makes_episodes(tmp_path: Path) -> None:
    toy_job(tmp_path, pipeline=TOYS, **SMALL)
    here = tmp_path / "here"
    here.mkdir()
    for name in ("random", "json", "numpy"):
        (here / f"{name}.py").write_text(f"raise SystemExit('this is not {name}')")
    ended = nimbusctl("run", tmp_path / "toy.yaml", "--workers", "1", "--spares", "0", cwd=here)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_component_whose_threads_never_end_delays_its_worker_by_seconds(tmp_path: Path) -> None:
    renderer = {"component": "tests.support.faulty_components:ThreadedRenderer"}
    toy_job(tmp_path, pipeline={**TOYS, "render": renderer}, **SMALL)
    ended = nimbusctl("run", tmp_path / "toy.yaml", "--workers", "1", "--spares", "0", "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "worker_down" not in ended.stdout, "it was killed, long after it should have ended"


WITHOUT_GROUPS = 'mount -o remount,bind,ro {mount} && exec "$@"'
"""For `unshare -m sh -c`: no control groups can be made."""


def groups_folder() -> str | None:
    """A place in which this process may make control groups."""
    own = own_group()
    return own if own is not None and os.access(own, os.W_OK) else None


def keeping(folder: Path, *, gated: bool = False) -> list[str]:
    """The command of a run whose workers have hidden children; some of them die again and again."""
    args = {"kind": "orphans", "marks": str(folder / "marks"), "states": [0, 1], "gated": gated}
    renderer = {"component": "tests.support.faulty_components:KeepingRenderer", "args": args}
    toy_job(folder, pipeline={**TOYS, "render": renderer}, scenes=[{"name": "a"}], episodes_per_scene=6)
    return [sys.executable, "-P", "-m", "nimbusd.cli", "run", str(folder / "toy.yaml"), "--workers", "2"]


def hidden(folder: Path) -> list[int]:
    """The pids of what workers have hidden so far."""
    return [int(pid) for note in (folder / "marks").glob("children*") for pid in note.read_text().split()]


@pytest.mark.parametrize("groups", quick_first([True, False]), ids=["groups", "subreaper"])
def test_only_what_dead_workers_left_is_ended(tmp_path: Path, groups: bool) -> None:
    """Of two workers one dies, again and again; what the other has started, and hidden as well, lives on."""
    command = keeping(tmp_path)
    if (own := groups_folder()) is None and groups:
        pytest.skip("no control groups can be made here")
    if own is not None and not groups:
        mount = next(str(path) for path in (Path(own), *Path(own).parents) if path.is_mount())
        command = ["unshare", "-m", "sh", "-c", WITHOUT_GROUPS.format(mount=mount), "sh", *command]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    pids = hidden(tmp_path)
    assert pids
    come_to_their_end(pids)
    assert not (tmp_path / "marks" / "betrayed").exists()


@pytest.mark.skipif(groups_folder() is None, reason="no control groups can be made here")
def test_a_node_that_is_killed_takes_along_even_what_its_workers_have_hidden(tmp_path: Path) -> None:
    node = subprocess.Popen(keeping(tmp_path, gated=True), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ends = time.monotonic() + PATIENCE_S
    while len(hidden(tmp_path)) < 4:
        assert time.monotonic() < ends
        time.sleep(0.05)
    node.kill()
    node.wait()
    for pid in hidden(tmp_path):
        gone(pid)


def test_a_process_ends_in_time_with_its_own_status_and_names_the_threads_that_were_left() -> None:
    code = """
import sys, threading
from nimbusd.makers.leaving import leave_soon
threading.Thread(target=threading.Event().wait, name="endless").start()
leave_soon(7, 0.1)
sys.exit(7)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert ended.returncode == 7
    assert "with threads that a component left: endless" in ended.stderr


def test_a_process_that_gets_orphans_keeps_no_more_than_some_of_those_that_died() -> None:
    code = """
import os, subprocess, sys
from nimbusd.supervisor import proc
from nimbusd.supervisor.prctl import become_subreaper, reap_zombies
become_subreaper()
mine = subprocess.Popen(["sleep", "1000"])
subprocess.run(["sh", "-c", "for i in 1 2 3 4 5; do true & done"])
def dead():
    return [found for found, _ in proc.children(os.getpid()) if proc.state(found.pid) == "Z"]
while len(dead()) < 5:
    pass
reap_zombies(2)
print(len(dead()), mine.poll())
mine.kill()
"""
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.stdout.split() == ["2", "None"], ended.stderr


@pytest.mark.skipif(groups_folder() is None, reason="no control groups can be made here")
def test_a_node_that_starts_leaves_the_groups_of_another_alone_while_no_worker_is_in_them_yet() -> None:
    living = WorkerGroups.make()
    assert living is not None
    place = Path(living.group(0))
    gone = subprocess.run(  # a node that is killed
        [sys.executable, "-c", "from nimbusd.supervisor.cgroups import *; print(WorkerGroups.make().group(0))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    left = Path(gone.stdout.strip())
    assert left.is_dir()
    other = WorkerGroups.make()
    assert other is not None
    assert place.is_dir()
    assert not left.parent.exists()
    other.close()
    living.close()
    assert not place.parent.exists()
