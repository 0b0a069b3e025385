"""Packages that change in the middle of a job: named, accepted, recorded, rolled back. With real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nimbusd.client import Client, Event
from nimbusd.core.ids import JobId
from nimbusd.job import Job, read_job
from nimbusd.master.ledger.ledger import Ledger
from nimbusd.master.output.folder import ledger_path
from nimbusd.node.environment import packages
from nimbusd.stages.store.made_with import packages_hash
from tests.support.cluster import PATIENCE_S, REPOSITORY, Cluster
from tests.support.slow import slow
from tests.support.toy_jobs import scenes, write_toy_job

pytestmark = pytest.mark.processes

PACKAGE = "pillow"
"""One of those that count for every job, whose version nobody asks for while toy episodes are made."""


def installed(folder: Path, version: str) -> dict[str, str]:
    """The environment variables with which a package of this version is found as if it was installed."""
    place = folder / f"with_{version}"
    info = place / f"{PACKAGE}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {version}\n")
    return {"PYTHONPATH": str(place)}


def write_job(folder: Path, name: str, episodes: int = 4, **render: Any) -> Path:
    """A job of one scene whose writer records what it was told of the environment."""
    pipeline = {
        "render": {"component": "tests.support.toy:ToyRenderer"} | render,
        "store": {"component": "tests.support.toy:NotingWriter"},
    }
    values = {"name": name, "output": str(folder / name), "scenes": scenes("a"), "episodes_per_scene": episodes}
    return write_toy_job(folder / f"{name}.yaml", pipeline, **values)


def notes(output: Path) -> dict[int, Any]:
    """The environment on record of each committed episode."""
    texts = (output / "dataset.txt").read_text().splitlines()
    return dict(map(json.loads, texts))


def run(job: Path, env: dict[str, str], *args: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit status, events and plain output of `nimbusctl run`."""
    paths = os.pathsep.join(filter(None, (env.get("PYTHONPATH"), str(REPOSITORY))))
    command = [sys.executable, "-m", "nimbusd.cli", "run", str(job), "--workers", "1", "--spares", "0", *args]
    done = subprocess.run(
        [*command, "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        timeout=PATIENCE_S,
        check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_a_run_with_other_packages_names_them_and_goes_on_when_they_are_accepted(tmp_path: Path) -> None:
    old, new = installed(tmp_path, "1.0"), installed(tmp_path, "2.0")
    faults = {"kind": "raise", "marks": str(tmp_path / "marks"), "states": list(range(2, 1000))}  # two are made
    job = write_job(tmp_path, "toy", component="tests.support.toy:FaultyRenderer", args=faults)
    status, events, _ = run(job, old)
    assert (status, events[-1]["committed"]) == (1, 2)
    for number in range(1000):  # as if the renderer had been mended
        (tmp_path / "marks" / str(number)).touch()

    status, events, errors = run(job, new, "--retry-quarantined")
    assert status == 1, errors
    (waiting,) = [event for event in events if event["event"] == "job_waiting"]
    assert waiting["cause"] == "environment"
    assert f"{PACKAGE} 1.0 when this job began, 2.0 here" in waiting["why"]
    assert "--accept-environment" in waiting["why"]
    assert (events[-1]["status"], events[-1]["committed"]) == ("stopped", 2)
    assert not [event for event in events if event["event"] == "worker_up"], "no worker idles in silence"

    status, events, errors = run(job, new, "--accept-environment")
    assert (status, events[-1]["committed"]) == (0, 4), errors
    (changed,) = [event for event in events if event["event"] == "environment_changed"]
    assert (changed["before"], changed["now"]) == ({PACKAGE: "1.0"}, {PACKAGE: "2.0"})
    made = notes(tmp_path / "toy")
    assert [made[index].get("now") for index in range(4)] == [None, None, {PACKAGE: "2.0"}, {PACKAGE: "2.0"}]
    assert [made[index]["packages"][PACKAGE] for index in range(4)] == ["1.0", "1.0", "2.0", "2.0"]
    assert all(packages_hash(note["packages"]) == note["hash"] for note in made.values())
    with Ledger.read(ledger_path(tmp_path / "toy")) as ledger:
        row = ledger.job(JobId("toy"))
    assert row is not None
    assert (row.packages[PACKAGE], row.began_with[PACKAGE]) == ("2.0", "1.0")
    assert row.environment == made[3]["hash"]

    status, _, _ = run(job, old)
    assert status == 0, "nothing is missing, so that nothing keeps it from being published again"


def test_a_run_that_an_older_nimbusd_began_goes_on_with_what_it_recorded_and_hashed(tmp_path: Path) -> None:
    old, new = installed(tmp_path, "1.0"), installed(tmp_path, "2.0")
    faults = {"kind": "raise", "marks": str(tmp_path / "marks"), "states": list(range(2, 1000))}  # two are made
    job = write_job(tmp_path, "toy", component="tests.support.toy:FaultyRenderer", args=faults)
    assert run(job, old)[0] == 1
    for number in range(1000):  # as if the renderer had been mended
        (tmp_path / "marks" / str(number)).touch()
    told = packages()
    listed = ("nimbusd", "python", "machine", "numpy", "scipy", "scikit-image", "bpy", "mujoco", "av", "pyarrow")
    recorded = {name: told[name] for name in listed if name in told} | {PACKAGE: "1.0"}
    with Ledger.open(ledger_path(tmp_path / "toy")) as ledger:
        row = ledger.job(JobId("toy"))
        assert row is not None
        spec = {key: value for key, value in row.spec.items() if key != "requires"}
        ledger.put_job(replace(row, spec=spec, environment="0" * 64, packages=recorded, began_with=recorded))

    status, events, errors = run(job, new, "--retry-quarantined")
    assert status == 1, errors
    (waiting,) = [event for event in events if event["event"] == "job_waiting"]
    assert waiting["why"].startswith(f"{PACKAGE} 1.0 when this job began, 2.0 here. ")

    status, events, errors = run(job, old)
    assert (status, events[-1]["committed"]) == (0, 4), errors
    made = notes(tmp_path / "toy")
    assert [made[index].get("now") for index in range(4)] == [None] * 4
    assert made[3]["packages"] == recorded


def until_waiting(client: Client, cursor: str, job: Job) -> Event:
    for event in client.watch(cursor, job.name):
        if isinstance(event, Event) and event.name == "job_waiting" and event.fields["cause"] == "environment":
            return event
    raise AssertionError("the events have no end")


@slow
def test_a_running_job_goes_through_an_upgrade_and_a_rollback_and_nothing_is_lost(tmp_path: Path) -> None:
    old, new = installed(tmp_path, "1.0"), installed(tmp_path, "2.0")
    gate = tmp_path / "gate"
    job = read_job(
        write_job(tmp_path, "steps", 6, component="tests.support.toy:StepRenderer", args={"gate": str(gate)})
    )
    with Cluster(tmp_path) as cluster:
        client = cluster.client()
        cluster.start_node("w1", env=old)
        client.submit(job)
        made = 0
        for turn, env in enumerate((old, new, old)):
            if turn:  # the node is upgraded, or rolled back
                cursor = client.cursor()
                cluster.nodes["w1"].signal(signal.SIGTERM)
                (tmp_path / "gate.go").touch()  # what has begun is finished
                assert cluster.nodes["w1"].wait() == 0
                made = client.job(job.name).summary.committed
                (tmp_path / "gate.go").unlink()
                cluster.start_node("w1", env=env)
                before, now = ("1.0", "2.0") if env is new else ("2.0", "1.0")
                waiting = until_waiting(client, cursor, job)
                assert waiting.fields["why"].startswith(f"{PACKAGE} {before} when this job began, {now} on w1. Roll")
                summary = client.job(job.name).summary
                assert (summary.waiting, summary.eta_s, summary.rate_per_s) == ("environment", None, 0.0)
                (node,) = client.nodes()
                assert f"{PACKAGE} {before}" in node.waiting[job.name]
                shown = cluster.nimbusctl("status", job.name).stdout
                assert re.search(r"job +steps +waiting: ", shown)
                assert " left" not in shown
                cursor = client.cursor()
                client.submit(job, accept_environment=True)
            else:
                cursor = client.cursor()
            if turn < 2:
                gate.with_suffix(f".{made + 1}").touch()
                names = (event.name for event in client.watch(cursor, job.name) if isinstance(event, Event))
                assert any(name == "episode_committed" for name in names)
        (tmp_path / "gate.go").touch()
        assert client.wait(job.name, PATIENCE_S).state == "complete"
        assert len(cluster.committed(job.name)) == 6
    said = notes(job.output)
    assert sorted(said) == list(range(6))
    assert {json.dumps(note.get("now")) for note in said.values()} == {"null", json.dumps({PACKAGE: "2.0"})}


@slow
def test_a_drained_node_is_still_drained_after_the_masters_restart_and_its_own(tmp_path: Path) -> None:
    job = read_job(write_job(tmp_path, "drained", 2))
    with Cluster(tmp_path) as cluster:
        client = cluster.client()
        cluster.start_node("w1")
        cluster.master.wait_for("node w1 joined")
        assert cluster.nimbusctl("drain", "w1").returncode == 0
        cluster.master.kill()
        cluster.start_master().wait_for("node w1 joined")
        cursor = client.cursor()
        client.submit(job)
        waiting = next(e for e in client.watch(cursor) if isinstance(e, Event) and e.name == "job_waiting")
        assert waiting.fields["cause"] == "drained"
        assert "nimbusctl drain w1 --undo" in waiting.fields["why"]
        (node,) = client.nodes()
        assert (node.state, node.episodes) == ("draining", 0)
        cluster.nodes["w1"].kill()
        cluster.start_node("w1")
        cluster.master.wait_for("node w1 (restarted|has been silent)")
        assert client.job(job.name).summary.committed == 0
        assert cluster.nimbusctl("drain", "w1", "--undo").returncode == 0
        assert client.wait(job.name, PATIENCE_S).state == "complete"
        cluster.master.kill()
        cluster.start_master().wait_for("node w1 joined")
        (node,) = client.nodes()
        assert node.state == "ready"


def test_submit_wait_says_why_nothing_moves_and_follows_the_job_to_its_end(tmp_path: Path) -> None:
    path = write_job(tmp_path, "waited", 2)
    with Cluster(tmp_path) as cluster:
        command = [sys.executable, "-m", "nimbusd.cli", "submit", str(path), "--wait", "--master", cluster.address]
        lines = cluster.start(command, "plain")
        lines.wait_for("waited is running: 0 of 2 episodes, 0 under way")
        lines.wait_for("waiting: no node is connected")
        told = cluster.start([*command, "--json"], "json")
        cluster.start_node("w1")
        lines.wait_for("goes on")
        assert (lines.wait(), told.wait()) == (0, 0)
        assert lines.said("waited complete: 2 of 2 episodes")
        documents = [json.loads(line) for line in told.said("{")]
        assert documents[-1]["event"] == "summary"
        assert documents[-1]["state"] == "complete"
        assert documents[-2]["event"] == "job_ended"
