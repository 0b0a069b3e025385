"""A master and nodes as real processes: kills, partitions, and everything that a cluster is asked to do."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from nimbusd.chaos.proxy import DroppingProxy
from nimbusd.client import Client, ClientError, Event, JobSummary, RequestRefused
from nimbusd.core.ids import EpisodeKey, JobId
from nimbusd.job import Job, StageSpec
from nimbusd.master.output.folder import claim_output
from nimbusd.transport.security.keys import generate, write_pair
from tests.support.cluster import PATIENCE_S, REPOSITORY, Cluster, comes_to, gate_of, pieces_of, toy_job
from tests.support.slow import slow

pytestmark = pytest.mark.processes

EPISODES = 12


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The dataset of the toy job as one process makes it, undisturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    job = toy_job(folder)
    gate_of(folder, job.name).touch()
    command = [
        sys.executable,
        "-m",
        "nimbusd.cli",
        "run",
        str(folder / "toy.yaml"),
        "--workers",
        "1",
        "--spares",
        "0",
        "--json",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=REPOSITORY, timeout=PATIENCE_S)
    return dataset(job)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A master and two nodes, for tests that leave them as they were."""
    with Cluster(tmp_path_factory.mktemp("shared")) as cluster:
        for name in ("w1", "w2"):
            cluster.start_node(name)
        for name in ("w1", "w2"):
            cluster.master.wait_for(f"node {name} joined")
        yield cluster


def dataset(job: Job) -> str:
    return (job.output / "dataset.txt").read_text()


def commits(events: list[Event]) -> list[tuple[str, int]]:
    return [(e.fields["scene"], e.fields["index"]) for e in events if e.name == "episode_committed"]


def until(client: Client, cursor: str, job: Job, name: str, number: int = 1) -> list[Event]:
    """The events of a job after `cursor`, up to the `number`-th one called `name`."""
    events: list[Event] = []
    for event in client.watch(cursor, job.name):
        if isinstance(event, Event):
            events.append(event)
            if sum(e.name == name for e in events) == number:
                break
    return events


def middle(cluster: Cluster, client: Client, job: Job) -> str:
    """Submit a job, and bring it to where one episode waits at the gate and some are committed.

    Returns the name of the node that has it.
    """
    cursor = client.cursor()
    client.submit(job)
    until(client, cursor, job, "episode_committed", 3)
    return cluster.name_of(comes_to(gate_of(cluster.folder, job.name)))


def begin(cluster: Cluster, client: Client, job: Job) -> str:
    """Submit a job to a single node, and bring it to where its only compute worker waits at the gate.

    Returns what the node's log says of that episode, up to the stage.
    """
    client.submit(job)
    (node,) = cluster.nodes.values()
    line = node.wait_for("scene='c'.* stage='render'")
    comes_to(gate_of(cluster.folder, job.name))
    while (summary := client.job(job.name).summary).leased + summary.committed < EPISODES:
        pass  # places of failed plans are leased anew: such a lease is not under way any more
    client.nodes()  # is answered after the lease was sent
    return line[line.index("scene='c'") : line.index("stage=")]


def finish(cluster: Cluster, client: Client, job: Job, expected: str) -> JobSummary:
    """Open the gate, wait for the end, have the nodes leave, and check that nothing is lost, doubled or left over."""
    gate_of(cluster.folder, job.name).touch()
    summary = client.wait(job.name, PATIENCE_S)
    assert (summary.state, summary.committed) == ("complete", EPISODES)
    cluster.stop_nodes()
    committed = cluster.committed(job.name)
    assert len(committed) == len(set(committed)) == EPISODES
    assert dataset(job) == expected
    assert len(pieces_of(job.output)) == EPISODES, "garbage was left behind"
    return summary


# --- kills ---


def test_a_killed_master_goes_on_where_it_was(tmp_path: Path, undisturbed: str) -> None:
    with Cluster(tmp_path) as cluster:
        node = cluster.start_node("w1")
        client, job = cluster.client(), toy_job(tmp_path)
        cursor = client.cursor()
        begin(cluster, client, job)
        before = set(cluster.committed(job.name))
        cluster.master.kill()
        master = cluster.start_master()
        master.wait_for("node w1 joined")
        gate_of(tmp_path, job.name).touch()
        events = until(client, cursor, job, "job_ended")
        assert not before & {EpisodeKey(JobId(job.name), *place) for place in commits(events)}
        assert {e.fields["attempt"] for e in events if e.name == "episode_committed"} == {1}
        assert not master.said("refused piece"), "what the node was at when the master died was thrown away"
        assert not node.said("killing worker")
        finish(cluster, client, job, undisturbed)


@slow
def test_a_killed_master_is_found_again_by_all_nodes(tmp_path: Path, undisturbed: str) -> None:
    with Cluster(tmp_path) as cluster:
        for name in ("w1", "w2"):
            cluster.start_node(name)
        client, job = cluster.client(), toy_job(tmp_path)
        middle(cluster, client, job)
        cluster.master.kill()
        master = cluster.start_master()
        for name in ("w1", "w2"):
            master.wait_for(f"node {name} joined")
        finish(cluster, client, job, undisturbed)


def test_a_killed_node_takes_its_workers_with_it_and_others_make_what_it_held(tmp_path: Path, undisturbed: str) -> None:
    with Cluster(tmp_path) as cluster:
        for name in ("w1", "w2"):
            cluster.start_node(name)
        client, job = cluster.client(), toy_job(tmp_path)
        victim = middle(cluster, client, job)
        assert not cluster.nodes[victim].kill(), "compute workers outlived their node"
        cluster.master.wait_for(f"node {victim} has been silent")
        (state,) = [node.state for node in client.nodes() if node.node == victim]
        assert state == "lost"
        finish(cluster, client, job, undisturbed)


@slow
def test_a_killed_node_that_is_started_again_is_taken_at_once(tmp_path: Path, undisturbed: str) -> None:
    with Cluster(tmp_path, dead_after_s=60.0) as cluster:
        node = cluster.start_node("w1")
        client, job = cluster.client(), toy_job(tmp_path)
        begin(cluster, client, job)
        node.kill()
        cluster.start_node("w1")
        cluster.master.wait_for("node w1 restarted")
        finish(cluster, client, job, undisturbed)


def test_a_killed_compute_worker_costs_one_attempt_of_what_it_was_at(tmp_path: Path, undisturbed: str) -> None:
    """One attempt: of the episode it rendered, and perhaps the one before, which was still being stored."""
    with Cluster(tmp_path) as cluster:
        for name in ("w1", "w2"):
            cluster.start_node(name)
        client, job = cluster.client(), toy_job(tmp_path)
        cursor = client.cursor()
        node = cluster.nodes[middle(cluster, client, job)]
        node.compute_workers()[0].kill()
        node.wait_for("WorkerDown")
        finish(cluster, client, job, undisturbed)
        lost = [e.fields for e in until(client, cursor, job, "job_ended") if e.name == "attempt_lost"]
        places = [(fields["scene"], fields["index"]) for fields in lost]
        assert len(places) == len(set(places)) <= 2
        assert "c" in dict(places)
        assert {fields["reason"] for fields in lost} == {"crash"}
        assert client.job(job.name).reasons["crash"] == len(lost)


def test_a_node_asked_to_stop_finishes_what_it_began_and_exits_with_0(tmp_path: Path, undisturbed: str) -> None:
    with Cluster(tmp_path) as cluster:
        for name in ("w1", "w2"):
            cluster.start_node(name)
        client, job = cluster.client(), toy_job(tmp_path)
        cursor = client.cursor()
        name = middle(cluster, client, job)
        cluster.nodes[name].signal(signal.SIGTERM)
        gate_of(tmp_path, job.name).touch()
        assert cluster.nodes[name].wait() == 0
        cluster.master.wait_for(f"node {name} asked to stop; 0 episodes")
        finish(cluster, client, job, undisturbed)
        assert not [e for e in until(client, cursor, job, "job_ended") if e.name == "attempt_lost"]


def test_a_second_signal_stops_a_node_at_once_though_the_master_is_away(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        node = cluster.start_node("w1")
        client, job = cluster.client(), toy_job(tmp_path)
        begin(cluster, client, job)
        cluster.master.kill()
        workers = node.compute_workers()
        node.signal(signal.SIGTERM)
        node.wait_for("finishing what has begun")
        node.signal(signal.SIGTERM)
        node.wait()
        assert not psutil.wait_procs(workers, timeout=PATIENCE_S)[1]


@slow
def test_a_job_whose_output_is_in_use_keeps_no_restarted_master_from_its_work(tmp_path: Path, undisturbed: str) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.start_node("w1")
        client, job, other = cluster.client(), toy_job(tmp_path), toy_job(tmp_path, "other")
        begin(cluster, client, job)
        cluster.master.kill()
        with claim_output(job.output):
            cluster.start_master()
            gate_of(tmp_path, other.name).touch()
            client.submit(other)
            assert client.wait(other.name, PATIENCE_S).state == "complete"
            summary = client.job(job.name).summary
            assert summary.state == "paused"
            assert "in use" in summary.why
        client.submit(job)
        finish(cluster, client, job, undisturbed)


# --- partitions ---


def test_late_commits_of_a_node_that_was_given_up_are_refused_and_their_pieces_removed(
    tmp_path: Path, undisturbed: str
) -> None:
    with Cluster(tmp_path) as cluster, ExitStack() as running:
        places = {name: DroppingProxy(cluster.address, cluster.sockets / name) for name in ("w1", "w2")}
        proxies = {name: running.enter_context(proxy) for name, proxy in places.items()}
        for name, proxy in proxies.items():
            cluster.start_node(name, master=proxy.address)
        client, job = cluster.client(), toy_job(tmp_path)
        cursor = client.cursor()
        name = middle(cluster, client, job)
        proxies[name].hold()
        cluster.master.wait_for(f"node {name} has been silent")
        gate_of(tmp_path, job.name).touch()
        events = until(client, cursor, job, "job_ended")
        assert len(commits(events)) == len(set(commits(events))) == EPISODES
        # Its piece is refused when it comes, or was swept at the job's end while it was being written.
        proxies[name].heal()
        finish(cluster, client, job, undisturbed)  # which looks for what was left behind


def test_what_a_node_made_while_it_was_cut_off_counts_if_nobody_else_made_it(tmp_path: Path, undisturbed: str) -> None:
    with Cluster(tmp_path) as cluster, DroppingProxy(cluster.address, cluster.sockets / "w1") as proxy:
        node = cluster.start_node("w1", master=proxy.address)
        client, job = cluster.client(), toy_job(tmp_path)
        cursor = client.cursor()
        episode = begin(cluster, client, job)
        proxy.cut()
        cluster.master.wait_for("node w1 has been silent")
        gate_of(tmp_path, job.name).touch()
        node.wait_for(f"{episode}stage='store'")
        node.wait_for(r"c/\d+ is stored in")
        stored = {line.rpartition(" ")[2] for line in node.said(" is stored in ")}
        proxy.heal()
        until(client, cursor, job, "job_ended")
        assert stored & set(pieces_of(job.output))
        finish(cluster, client, job, undisturbed)


# --- who may work ---


def test_a_node_of_another_protocol_version_is_told_so_and_leaves(shared: Cluster) -> None:
    script = """
import sys
from nimbusd.transport.codec import codec
real = codec.Codec.__init__
codec.Codec.__init__ = lambda self, *a, version, **k: real(self, *a, version=version + 1, **k)
from nimbusd.daemon import main
main()
"""
    options = ["worker", "--state", str(shared.folder / "new"), "--name", "new", "--master", shared.address]
    node = shared.start([sys.executable, "-c", script, *options], "new")
    assert node.wait() == 1
    assert node.said("error: the master refuses this node: this master speaks protocol version 3, you speak 4")


def test_a_node_with_another_environment_gets_nothing_and_the_report_says_why(shared: Cluster) -> None:
    client, job = shared.client(), toy_job(shared.folder, "environments")
    middle(shared, client, job)
    package = shared.folder / "other" / "pillow-99.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: pillow\nVersion: 99.0\n")
    node = shared.start_node("w3", env={"PYTHONPATH": str(package.parent)})
    shared.master.wait_for("node w3 joined")
    assert re.fullmatch(r"pillow .*when this job began, 99\.0 on w3", client.job(job.name).waiting["w3"])
    gate_of(shared.folder, job.name).touch()
    assert client.wait(job.name, PATIENCE_S).state == "complete"
    assert not node.said("StageBegan")
    node.signal(signal.SIGTERM)
    assert node.wait() == 0


def test_a_second_node_of_the_same_name_is_refused_and_the_first_one_works_on(shared: Cluster) -> None:
    client, job = shared.client(), toy_job(shared.folder, "names")
    middle(shared, client, job)
    options = ["worker", "--state", str(shared.folder / "twin"), "--name", "w1", "--master", shared.address]
    twin = shared.start([sys.executable, "-m", "nimbusd", *options], "twin")
    assert twin.wait() == 1
    assert twin.said("there is a node 'w1' already")
    gate_of(shared.folder, job.name).touch()
    assert client.wait(job.name, PATIENCE_S).state == "complete"
    assert client.job(job.name).reasons == {"unreachable": client.job(job.name).summary.failed}


def refused_by_all(shared: Cluster, name: str, renderer: str, said: str) -> dict[str, str]:
    """Submit a job that no node can run, wait until all say so, and do another beside it; why each node does not."""
    described = json.loads(json.dumps(toy_job(shared.folder, name).to_dict()))
    described["stages"]["render"] = {"component": renderer, "version": "", "args": {}}
    client, other = shared.client(), toy_job(shared.folder, f"beside_{name}")
    client.submit(described)
    for node in ("w1", "w2"):
        shared.nodes[node].wait_for(f"job {name} cannot run here{said}")
    gate_of(shared.folder, other.name).touch()
    client.submit(other)
    assert client.wait(other.name, PATIENCE_S).state == "complete"
    report = client.job(name)
    assert report.summary.state == "running"
    assert {"w1", "w2"} <= report.waiting.keys()
    client.cancel(name)
    assert client.wait(name, PATIENCE_S).state == "cancelled"
    return {node: report.waiting[node] for node in ("w1", "w2")}


def test_a_job_that_no_node_can_run_says_why_and_harms_no_other(
    shared: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = shared.folder / "here"
    here.mkdir()
    (here / "only_here.py").write_text("from tests.support.toy import ToyRenderer\nclass Only(ToyRenderer): pass\n")
    monkeypatch.syspath_prepend(str(here))
    reasons = refused_by_all(shared, "unfit", "only_here:Only", "")
    assert all("only_here" in reason for reason in reasons.values())


def test_a_job_whose_backend_crashes_while_it_opens_takes_no_node_along(shared: Cluster) -> None:
    said = ": 3 workers in a row ended while they opened"
    reasons = refused_by_all(shared, "crashing", "tests.support.faulty_components:UnopenedRenderer", said)
    assert all("exited with status 3" in reason for reason in reasons.values())


def test_an_episode_of_a_node_is_stored_with_the_fingerprint_of_its_job(shared: Cluster) -> None:
    job = toy_job(shared.folder, "known", randomize_every=2, scenes=[{"name": "a"}, {"name": "b"}])
    written = replace(job, stages={**job.stages, "store": StageSpec("tests.support.toy:ContextWriter", "", {})})
    client = shared.client()
    client.submit(written)
    assert client.wait(job.name, PATIENCE_S).state == "complete"
    told = {json.loads(line)["fingerprint"] for line in dataset(job).split("\n\n")}
    assert told == {written.fingerprint()}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"episodes_per_scene": "3"}, "episodes_per_scene: must be a whole number, but it is '3'"),
        ({"scenes": [["s" * 300, {"name": "s" * 300}]]}, "has 300 bytes; a name has at most 200"),
        ({"scenes": [["a", {"name": "a\0"}]]}, "has characters that no file or message can hold"),
        ({"scenes": []}, "has no scenes"),
        ({"seed": -1}, "seed: must be 0 or more, but it is -1"),
    ],
)
def test_a_job_that_check_would_refuse_is_refused_and_leaves_nothing(
    shared: Cluster, changes: dict[str, Any], sentence: str
) -> None:
    client, job = shared.client(), toy_job(shared.folder, "refused")
    with pytest.raises(ClientError, match=re.escape(sentence)):
        client.submit({**job.to_dict(), **changes})
    assert job.name not in {known.job for known in client.jobs(ended=True)}
    assert not job.output.exists()


# --- what people ask for ---


def test_a_job_of_higher_priority_overtakes(shared: Cluster) -> None:
    client = shared.client()
    low = toy_job(shared.folder, "low", episodes_per_scene=2000)  # many more than fit into changing a worker's job
    high = toy_job(shared.folder, "high", episodes_per_scene=2)
    gate_of(shared.folder, high.name).touch()
    low_gate = gate_of(shared.folder, low.name)
    described = low.to_dict()
    described["stages"]["render"]["args"] = {"gate": str(low_gate), "scenes": ["a", "b", "c"], "all": True}
    cursor = client.cursor()
    marks = {name: shared.nodes[name].mark() for name in ("w1", "w2")}
    client.submit(described)
    for name, mark in marks.items():
        shared.nodes[name].wait_for("stage='render'", after=mark)
    client.submit(high, priority=5)
    low_gate.touch()
    ends = (event.job for event in client.watch(cursor) if isinstance(event, Event) and event.name == "job_ended")
    assert next(ends) == "high"
    client.cancel("low")
    assert next(ends) == "low"


def test_a_drained_node_gets_nothing_until_that_is_undone(shared: Cluster) -> None:
    client, job = shared.client(), toy_job(shared.folder, "drained")
    assert shared.nimbusctl("drain", "w1").returncode == 0
    mark = shared.nodes["w1"].mark()
    gate_of(shared.folder, job.name).touch()
    client.submit(job)
    assert client.wait(job.name, PATIENCE_S).state == "complete"
    states = {node.node: node.state for node in client.nodes()}
    assert (states["w1"], states["w2"]) == ("draining", "ready")
    assert shared.nimbusctl("drain", "w1", "--undo").returncode == 0
    assert shared.nimbusctl("drain", "w2").returncode == 0
    again = toy_job(shared.folder, "drained_again")
    gate_of(shared.folder, again.name).touch()
    client.submit(again)
    shared.nodes["w1"].wait_for("StageBegan", after=mark)
    assert client.wait(again.name, PATIENCE_S).state == "complete"
    assert shared.nimbusctl("drain", "w2", "--undo").returncode == 0


def test_a_cancelled_job_stops_keeps_what_it_has_and_goes_on_when_submitted_again(
    shared: Cluster, undisturbed: str
) -> None:
    client, job = shared.client(), toy_job(shared.folder, "cancelled")
    middle(shared, client, job)
    client.cancel(job.name)
    assert client.wait(job.name, PATIENCE_S).state == "cancelled"
    assert 0 < len(dataset(job).split("\n\n")) < EPISODES
    gate_of(shared.folder, job.name).touch()
    client.submit(job)
    assert client.wait(job.name, PATIENCE_S).state == "complete"
    assert dataset(job) == undisturbed


def test_a_job_that_has_ended_makes_nothing_again_when_submitted_again(shared: Cluster, undisturbed: str) -> None:
    client, job = shared.client(), toy_job(shared.folder, "twice")
    gate_of(shared.folder, job.name).touch()
    client.submit(job)
    first = client.wait(job.name, PATIENCE_S)
    cursor = client.cursor()
    client.submit(job)
    events = until(client, cursor, job, "job_ended")
    assert not commits(events)
    again = client.wait(job.name, PATIENCE_S)
    assert (again.state, again.committed) == (first.state, first.committed) == ("complete", EPISODES)
    assert dataset(job) == undisturbed


def test_a_job_submitted_twice_at_once_is_one_job(shared: Cluster) -> None:
    client, job = shared.client(), toy_job(shared.folder, "at_once")
    gate_of(shared.folder, job.name).touch()
    cursor = client.cursor()
    with ThreadPoolExecutor(4) as threads:
        assert {summary.job for summary in threads.map(client.submit, [job] * 4)} == {job.name}
    events = until(client, cursor, job, "job_ended")
    assert len(commits(events)) == len(set(commits(events))) == EPISODES


def test_a_job_submitted_with_another_output_is_refused(shared: Cluster) -> None:
    client, job = shared.client(), toy_job(shared.folder, "moved")
    gate_of(shared.folder, job.name).touch()
    client.submit(job)
    with pytest.raises(RequestRefused, match="has its pieces in"):
        client.submit({**job.to_dict(), "output": str(shared.folder / "elsewhere")})
    assert client.wait(job.name, PATIENCE_S).state == "complete"


# --- keys ---


def test_over_tcp_nodes_join_by_a_token_that_is_good_once(tmp_path: Path) -> None:
    with Cluster(tmp_path, bind="tcp://127.0.0.1:*") as cluster:
        options = {"master_key": str(cluster.state / "master.pub"), "key": str(cluster.state / "admin.key")}
        stranger = tmp_path / "stranger"
        write_pair(generate(), stranger, "node")
        public = (cluster.state / "master.pub").read_text().split()[-1]
        joined = {"address": cluster.address, "master_key": public, "node": "stranger"}
        (stranger / "joined.json").write_text(json.dumps(joined))
        cluster.start_node("stranger").wait_for("refused this key")
        client = cluster.client(**options)
        assert client.counters()["wrong_key"] >= 1

        keys = ["--master-key", options["master_key"], "--key", options["key"]]
        made = cluster.nimbusctl("token", "create", *keys)
        assert made.returncode == 0, made.stderr
        token = made.stdout.strip()
        cluster.join_node("w1", token)
        cluster.master.wait_for("node w1 joined")
        second = cluster.join_node("w2", token)
        assert second.wait() == 1
        assert second.said("token")

        job = toy_job(tmp_path)
        gate_of(tmp_path, job.name).touch()
        client.submit(job)
        assert client.wait(job.name, PATIENCE_S).state == "complete"
