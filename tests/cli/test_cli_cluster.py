"""`nimbusctl` and a cluster: first against a master that plays a part, then against a real one with a real node."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from nimbusd.cli import cli, tables
from nimbusd.cli.event_lines import event_line
from nimbusd.cli.top import View, draw
from nimbusd.client import Client, Event, Gap, NodeSummary
from nimbusd.transport.messages import control
from tests.support.cluster import REPOSITORY, Cluster
from tests.support.scripted_master import Answer, ScriptedMaster, polite, report, summary
from tests.support.toy_jobs import scenes, write_toy_job

ENVIRON = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever runs the tests may have a cluster."""
    for name in ("NIMBUS_MASTER", "NIMBUS_MASTER_KEY", "NIMBUS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def master(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedMaster]:
    with ScriptedMaster(polite) as scripted:
        monkeypatch.setenv("NIMBUS_MASTER", scripted.address)
        yield scripted


def call(*args: str | Path, width: int = 80) -> Result:
    environ = {"COLUMNS": str(width)}
    return CliRunner(env=environ).invoke(cli, [str(arg) for arg in args], catch_exceptions=False)


def shown(renderable: Any, width: int, height: int = 24) -> list[str]:
    console = Console(width=width, height=height, color_system=None, force_terminal=True)
    with console.capture() as capture:
        console.print(renderable)
    return [line.rstrip() for line in capture.get().splitlines()]


# --- what people see, and programs ---


@pytest.mark.usefixtures("master")
def test_every_command_says_something_to_people_and_a_json_document_to_programs() -> None:
    for args, words in (
        (["status"], "house  "),
        (["status", "house"], "node-b: its environment differs"),
        (["logs", "house"], "Fatal: segmentation fault"),
        (["logs", "house", "--episode", "kitchen/5"], "kitchen/5  quarantined  render: crashed"),
        (["nodes"], "it fell silent"),
        (["top"], "node-a"),
        (["cancel", "house"], "done"),
        (["retry", "house"], "done"),
        (["drain", "node-a"], "done"),
        (["drain", "node-a", "--undo"], "done"),
        (["token", "create", "--ttl", "10m"], "nimbus1.secret"),
    ):
        result = call(*args)
        assert result.exit_code == 0, result.output
        assert words in result.output
        document = json.loads(call(*args, "--json").stdout)
        assert "request" not in document


@pytest.mark.usefixtures("master")
def test_every_command_has_an_example_in_its_help() -> None:
    group = ("submit", "status", "top", "watch", "logs", "cancel", "retry", "nodes", "drain")
    for command in (*([name] for name in group), ["token", "create"]):
        text = " ".join(call(*command, "--help").output.split())
        assert f"Example: nimbusctl {' '.join(command)}" in text
        assert "--master ADDRESS" in text
        assert "3 the master cannot be reached" in text


def test_submitting_sends_the_job_with_its_options_and_overrides(master: ScriptedMaster, tmp_path: Path) -> None:
    path = write_job(tmp_path)
    options = ["--priority", "5", "--user", "eve", "--max-nodes", "2", "--static", "--set", "seed=9"]
    result = call("submit", path, *options, "--output", tmp_path / "other")
    assert result.exit_code == 0, result.output
    assert "Follow it: nimbusctl watch toy" in result.output
    sent = master.seen[-1]
    assert isinstance(sent, control.Submit)
    assert (sent.priority, sent.user, sent.max_nodes, sent.dynload) == (5, "eve", 2, False)
    assert (sent.spec["seed"], sent.spec["output"]) == (9, str(tmp_path / "other"))


def test_a_bad_job_file_is_told_with_its_lines_before_any_master_is_asked(tmp_path: Path) -> None:
    path = write_job(tmp_path, episodes_per_scene=0)
    result = call("submit", path, "--master", "127.0.0.1:9")
    assert result.exit_code == 2
    assert re.search(r"error: .*job\.yaml:\d+: .*episodes_per_scene", result.stderr)


def test_exit_statuses_tell_programs_what_went_wrong(master: ScriptedMaster) -> None:
    nowhere = ("--master", "127.0.0.1:9", "--allow-any-local-user", "--timeout", "600")
    assert call("nodes").exit_code == 0
    for status, args, words in (
        (2, ("nodes", "--master", "no address"), "not of the form"),
        (2, ("nodes", "--master", "127.0.0.1:7600"), "--allow-any-local-user"),
        (2, ("logs", "house", "--episode", "5"), "SCENE/INDEX"),
        (2, ("token", "create", "--ttl", "soon"), "is not a time"),
        (2, ("status", "house", "more"), "unexpected extra argument"),
        (3, ("nodes", *nowhere), "Name another with --master"),
        (4, ("status", "hose"), "there is no job 'hose'; there are: house"),
        (4, ("watch", "hose"), "there is no job 'hose'"),
    ):
        result = call(*args)
        assert result.exit_code == status, result.output
        assert words in result.stderr
        assert result.stdout == ""


@pytest.mark.parametrize(
    ("state", "status"), [("running", 0), ("paused", 0), ("complete", 0), ("incomplete", 1), ("cancelled", 1)]
)
def test_the_status_of_a_job_is_an_exit_status_too(monkeypatch: pytest.MonkeyPatch, state: str, status: int) -> None:
    def script(request: control.Request) -> Answer:
        detail = isinstance(request, control.JobDetail)
        return report(request.request, summary(state=state)) if detail else polite(request)

    with ScriptedMaster(script) as master:
        monkeypatch.setenv("NIMBUS_MASTER", master.address)
        assert call("status", "house").exit_code == status
        assert call("status", "house", "--json").exit_code == status
        assert call("status").exit_code == 0


@pytest.mark.usefixtures("master")
def test_the_shell_completes_names_of_jobs_nodes_and_commands() -> None:
    def completions(line: str) -> list[str]:
        environ = {"_NIMBUSCTL_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        output = CliRunner(env=environ).invoke(cli, prog_name="nimbusctl").stdout
        return [entry.partition(",")[2] for entry in output.split()]

    assert completions("nimbusctl status ho") == ["house"]
    assert completions("nimbusctl drain node-") == ["node-a", "node-b"]
    assert completions("nimbusctl can") == ["cancel"]
    assert completions("nimbusctl status --master 127.0.0.1:9 --allow-any-local-user ho") == []  # silently, and soon


# --- tables ---


def test_tables_fit_the_terminal_and_show_more_on_wider_ones() -> None:
    long_name = replace(
        summary("a_name_that_is_much_longer_than_the_column_for_it_2026-11-21"),
        wanted=250_000,
        committed=123_456,
        frames=12_345_678,
        size_bytes=1_200_000_000_000,
        quarantined=12,
    )
    headings = []
    for width in (80, 120, 200):
        lines = shown(tables.jobs_table([long_name, summary()], width), width)
        assert max(map(len, lines)) <= width
        assert "123,456/250,000" in "".join(lines)
        headings.append(set(lines[0].split()))
    assert headings[0] < headings[1] < headings[2]


def test_names_are_shown_as_they_are_and_never_as_markup() -> None:
    job = replace(summary("[red]x[/red]"), output="/data/[bold]", why="[/nothing]")
    text = "\n".join(shown(tables.job_report(report(0, job), 80), 80))
    for words in ("[red]x[/red]", "/data/[bold]", "[/nothing]"):
        assert words in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (0.4, "0s"), (59.6, "1m00s"), (95, "1m35s"), (7500, "2h05m"), (273_600, "3d04h")]
)
def test_durations_are_short(seconds: float | None, text: str) -> None:
    assert tables.duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0 B"), (999, "999 B"), (1_400_000, "1.4 MB"), (23e9, "23 GB")])
def test_sizes_are_short(value: float, text: str) -> None:
    assert tables.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "–"), (1234.5, "1,234/s"), (1.44, "1.4/s"), (0.05, "3.0/min"), (0.001, "3.6/h"), (1e-9, "<1/h")],
)
def test_rates_are_told_in_the_unit_that_suits_them(value: float, text: str) -> None:
    assert tables.rate(value) == text


def test_a_bar_is_full_only_when_all_is_there() -> None:
    assert str(tables.bar(999, 1000, 10)) == "━━━━━━━━━─"
    assert str(tables.bar(1000, 1000, 10)) == "━" * 10
    assert str(tables.bar(0, 0, 4)) == "━━━━"


def test_events_are_lines_and_unknown_ones_show_their_fields() -> None:
    committed = {"scene": "kitchen", "index": 3, "attempt": 1, "worker": "n/cpu:0", "frames": 60, "timings_s": {}}
    assert "house  kitchen/3: 60 frames on n/cpu:0" in str(
        event_line(Event("episode_committed", "house", 0.0, "", committed))
    )
    assert "thawed by=sun" in str(event_line(Event("thawed", "house", 0.0, "", {"by": "sun"})))
    assert "job_ended odd=1" in str(event_line(Event("job_ended", "house", 0.0, "", {"odd": 1})))
    assert "5 events are missing" in str(event_line(Gap(5, "1:2")))
    assert "some events are missing" in str(event_line(Gap(None, "1:2")))


# --- top ---


def view(nodes: int = 3, jobs: int = 2) -> View:
    load = control.Load(0.5, 1, 2)
    summaries = tuple(
        NodeSummary(f"node-{i:03d}", "ready", "0.1.0", "e", 4, (), 1, i, 0.1, replace(load, cpu=i / nodes))
        for i in range(nodes)
    )
    states = ("complete", "running")
    return View("tcp://m:1", summaries, tuple(summary(f"job_{i}", states[i % 2]) for i in range(jobs)))


@pytest.mark.parametrize(("nodes", "jobs"), [(3, 2), (1000, 2), (2, 500), (1000, 500), (0, 0)])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 50), (80, 12)])
def test_top_fits_every_screen_and_says_what_it_leaves_out(nodes: int, jobs: int, width: int, height: int) -> None:
    lines = shown(draw(view(nodes, jobs), width, height), width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert lines[-1].startswith("q quit")
    hidden = [int(line.split()[1].replace(",", "")) for line in lines if line.startswith("…")]
    rows = sum(line.startswith(("node-", "job_")) for line in lines)
    assert rows + sum(hidden) == nodes + jobs


def test_keys_of_top_sort_hide_and_quit() -> None:
    shows = view(3, 4)
    busy = shows.pressed("s")
    assert busy is not None
    assert "node-002" in shown(draw(busy, 80, 24), 80)[3]
    hidden = shows.pressed("e")
    assert hidden is not None
    assert not any("complete" in line for line in shown(draw(hidden, 80, 24), 80))
    assert shows.pressed("x") is shows
    for key in "q\x03\x04":
        assert shows.pressed(key) is None


def test_top_says_for_how_long_the_master_does_not_answer() -> None:
    assert "does not answer (42s)" in shown(draw(replace(view(), away_s=42.0), 80, 24), 80)[0]


# --- with a real master and a real node ---


def write_job(folder: Path, **changes: Any) -> Path:
    return write_toy_job(folder / "job.yaml", **{"scenes": scenes("a", "b"), "episodes_per_scene": 3, **changes})


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path) as running:
        yield running


def first_cursor(client: Client) -> str:
    """Before all events of the master's present life."""
    return client.cursor().partition(":")[0] + ":0"


@pytest.mark.processes
def test_a_job_is_submitted_watched_and_finished(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_node("node-a", workers=2)
    done = cluster.nimbusctl("submit", str(write_job(tmp_path)), "--wait")
    assert done.returncode == 0, done.stderr
    assert "toy complete: 6 of 6 episodes, 60 frames" in done.stdout
    assert done.stdout.count("10 frames") == 6
    assert (tmp_path / "out" / "dataset.txt").exists()
    assert json.loads(cluster.nimbusctl("status", "toy", "--json").stdout)["summary"]["committed"] == 6
    (node,) = json.loads(cluster.nimbusctl("nodes", "--json").stdout)["nodes"]
    assert (node["node"], node["state"], node["done"]) == ("node-a", "ready", 6)
    assert "No episode of toy has failed" in cluster.nimbusctl("logs", "toy").stdout
    assert "is over already" in cluster.nimbusctl("cancel", "toy").stdout
    assert cluster.nimbusctl("drain", "node-a").returncode == 0
    (node,) = json.loads(cluster.nimbusctl("nodes", "--json").stdout)["nodes"]
    assert node["state"] == "draining"
    assert cluster.nimbusctl("drain", "node-a", "--undo").returncode == 0
    assert cluster.nimbusctl("drain", "node-b").returncode == 4

    with Client.connect(cluster.address) as client:
        names = []
        for item in client.watch(first_cursor(client), "toy"):
            assert isinstance(item, Event)
            names.append(item.name)
            if item.name == "job_ended":
                break
    assert names[0] == "job_started"
    assert names.count("episode_committed") == 6


@pytest.mark.processes
def test_what_fails_is_told_with_its_evidence_and_made_when_it_is_tried_again(cluster: Cluster, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    faults = {"kind": "raise", "marks": str(marks), "states": list(range(1000))}
    pipeline = {"render": {"component": "tests.support.toy:FaultyRenderer", "args": faults}}
    path = write_job(tmp_path, pipeline=pipeline, scenes=scenes("a"), episodes_per_scene=2)
    cluster.start_node("node-a", workers=2)
    done = cluster.nimbusctl("submit", str(path), "--wait")
    assert done.returncode == 1
    assert "toy incomplete: 0 of 2 episodes" in done.stdout
    assert cluster.nimbusctl("status", "toy").returncode == 1
    logs = cluster.nimbusctl("logs", "toy", "--episode", "a/1").stdout
    assert "a/1  quarantined  render:" in logs
    assert "the renderer was told to fail" in logs
    assert json.loads(cluster.nimbusctl("logs", "toy", "--limit", "1", "--json").stdout)["total"] == 2

    for number in range(1000):  # as if the renderer had been mended: every number that fails is used up
        (marks / str(number)).touch()
    with Client.connect(cluster.address) as client:
        cursor = client.cursor()
        assert "made 2 quarantined episodes of toy pending again" in cluster.nimbusctl("retry", "toy").stdout
        items = client.watch(cursor, "toy")
        ended = next(item for item in items if isinstance(item, Event) and item.name == "job_ended")
    assert (ended.fields["status"], ended.fields["committed"]) == ("complete", 2)


@pytest.mark.processes
def test_waiting_and_watching_outlast_the_death_of_the_master(cluster: Cluster, tmp_path: Path) -> None:
    with Client.connect(cluster.address, timeout_s=60) as client:
        cursor = client.cursor()
        client.submit(write_job(tmp_path))  # there is no node yet
        items = client.watch(cursor)
        assert isinstance(first := next(items), Event)
        assert first.name == "job_started"
        cluster.master.kill()
        cluster.start_master()
        cluster.start_node("node-a", workers=2)
        assert client.wait("toy", timeout_s=60).committed == 6
        assert any(isinstance(item, Gap) for item in (next(items) for _ in range(4)))


@pytest.mark.processes
def test_the_example_of_embedding_prints_the_path_of_the_dataset(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_node("node-a", workers=2)
    assert cluster.nimbusctl("nodes").returncode == 0  # it is up; the example waits for the usual time only
    command = [sys.executable, "examples/embed_client.py", str(write_job(tmp_path)), "--master", cluster.address]
    done = subprocess.run(
        command, env=ENVIRON, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/out/dataset.txt\n"
    assert done.stderr.count("10 frames") == 6


@pytest.mark.processes
def test_an_interrupted_watch_says_how_to_go_on(cluster: Cluster) -> None:
    with Client.connect(cluster.address, timeout_s=60) as client:
        since = first_cursor(client)
    # A shell's background job ignores SIGINT, and what is started from it inherits that.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "nimbusd.cli", "watch"]
    command += ["--since", since, "--master", cluster.address]
    watch = subprocess.Popen(command, env=ENVIRON, stderr=subprocess.PIPE, text=True)
    with Client.connect(cluster.address, timeout_s=60) as client:
        while client.counters()["connected"] < 3:  # it is connecting
            pass
    watch.send_signal(signal.SIGINT)
    _, told = watch.communicate(timeout=60)
    assert watch.returncode == 130
    assert f"To go on: nimbusctl watch --since {since}" in told
    assert "Traceback" not in told
