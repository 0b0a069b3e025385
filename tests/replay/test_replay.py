"""Replays of episodes that were committed, that failed, and that took their worker with them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nimbusd.cli.replay import judge
from nimbusd.job import read_job
from nimbusd.node import environment
from nimbusd.replay import Comparison, Difference, Outcome, Recorded, UnknownEpisode, recorded_in_output
from nimbusd.replay.recorded import check_episode
from nimbusd.transport.messages.failures import Failure
from tests.benchmarks.chaos import write_job as write_storm
from tests.processes.test_environment_changes import PACKAGE, installed
from tests.support.cluster import REPOSITORY, Cluster, toy_job
from tests.support.slow import slow
from tests.support.toy_jobs import scenes, write_toy_job

pytestmark = pytest.mark.processes

PATIENCE_S = 60.0


def nimbusctl(
    *args: str | Path, answers: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nimbusd.cli", *map(str, args)],
        cwd=REPOSITORY,
        env={**os.environ, **(env or {})},
        input=answers,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def replay(*args: str | Path, env: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """Exit status and document of a replay."""
    done = nimbusctl("replay", *args, "--json", env=env)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def write_job(folder: Path, renderer: str = "ToyRenderer", fail_share: float = 0.0, **faults: Any) -> Path:
    """One scene of two toy episodes that are not replaced where their plan fails."""
    args = {"marks": str(folder / "marks"), **faults} if faults else {}
    pipeline = {
        "plan": {"component": "tests.support.toy:ToyPlanner", "args": {"fail_share": fail_share}},
        "render": {"component": f"tests.support.toy:{renderer}", "args": args},
    }
    limits = {"beat_timeout_s": 1.0, "attempts": 1}
    values = {"scenes": scenes("kitchen"), "episodes_per_scene": 2, "exact": False, "limits": limits}
    return write_toy_job(folder / "job.yaml", pipeline, **values)


def run(job: Path, *args: str) -> int:
    return nimbusctl("run", job, "--workers", "1", "--spares", "0", *args).returncode


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but those that SQLite makes for whoever reads a ledger."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal")))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job that is complete."""
    folder = tmp_path_factory.mktemp("committed")
    assert run(write_job(folder)) == 0
    return folder


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job whose renderer always crashes: all of it is quarantined."""
    folder = tmp_path_factory.mktemp("crashed")
    assert run(write_job(folder, "FaultyRenderer", kind="segfault", always=True)) == 1
    return folder


def test_a_committed_episode_comes_out_equal_and_nothing_of_the_job_is_touched(committed: Path) -> None:
    before = contents(committed / "out")
    status, told = replay("kitchen/1", "--output", committed / "out")
    assert (status, told["verdict"]) == (0, "equal")
    assert (told["recorded"]["state"], told["recorded"]["changed"]) == ("committed", False)
    assert told["compared"] == {"files": 1, "differences": []}
    assert told["configuration_changes"] == []
    assert set(told["outcome"]["timings_s"]) == {"open", "load", "randomize", "plan", "render", "store"}
    assert contents(committed / "out") == before


@slow
def test_an_episode_of_a_dataset_comes_out_equal_with_its_video_and_its_record(tmp_path: Path) -> None:
    assert run(write_storm(tmp_path / "job.yaml", episodes=4, scenes=2, seconds=0.0)) == 0
    status, told = replay("scene1/0", "--output", tmp_path / "out")
    assert (status, told["verdict"]) == (0, "equal")
    assert told["compared"]["files"] >= 3
    status, told = replay(tmp_path / "job.yaml", "scene1/0", "--set", "pipeline.store.args.crf=60")
    assert (status, told["verdict"]) == (6, "diverged")
    (video,) = [d for d in told["compared"]["differences"] if d["place"] == "videos/observation.images.front.mp4"]
    assert (video["media"], video["frame"], video["tolerated"]) == (True, 0, False)
    assert told["diverged_at_frame"] == 0
    assert told["text"].endswith("; its state columns are equal")
    assert told["configuration_changes"] == ["components.store.args.crf: 30 on record, 60 now"]
    assert replay("scene1/0", "--output", tmp_path / "out")[1]["configuration_changes"] == []


def test_another_seed_comes_out_different(committed: Path) -> None:
    status, told = replay(committed / "job.yaml", "kitchen/1", "--set", "seed=4")
    assert (status, told["verdict"]) == (6, "different")
    (difference,) = told["compared"]["differences"]
    assert (difference["place"], difference["what"]) == ("state.txt", "differs")
    assert told["configuration_changes"] == ["seed: 3 on record, 4 now"]
    assert told["recorded"]["changed"]


def test_what_is_installed_or_configured_otherwise_is_named_also_where_the_episode_comes_out_equal(
    committed: Path, crashed: Path, tmp_path: Path
) -> None:
    paths = f"{installed(tmp_path, '9.9')['PYTHONPATH']}:{REPOSITORY}"
    status, told = replay("kitchen/1", "--output", committed / "out", env={"PYTHONPATH": paths})
    assert (status, told["verdict"]) == (0, "equal")
    now = environment.packages().get(PACKAGE, "none")
    assert told["configuration_changes"] == [f"package {PACKAGE}: {now} on record, 9.9 now"]
    _, told = replay(crashed / "job.yaml", "kitchen/0", "--set", "pipeline.render.args.kind=raise")
    assert told["verdict"] == "failed_otherwise"
    assert told["configuration_changes"] == ["components.render.args.kind: segfault on record, raise now"]


def test_the_piece_is_kept_when_asked_and_only_in_an_empty_folder(committed: Path, tmp_path: Path) -> None:
    args = ("kitchen/0", "--output", committed / "out", "--keep", tmp_path / "kept")
    assert replay(*args)[0] == 0
    (piece,) = (tmp_path / "kept" / ".pieces").iterdir()
    assert piece.name.startswith("toy__kitchen__000000")
    again = nimbusctl("replay", *args)
    assert again.returncode == 2
    assert "is not empty" in again.stderr


def test_a_stage_to_stop_after_runs_nothing_of_the_next(committed: Path, tmp_path: Path) -> None:
    args = ("kitchen/0", "--output", committed / "out", "--stage", "plan", "--keep", tmp_path / "kept")
    status, told = replay(*args)
    assert (status, told["verdict"]) == (0, "made")
    assert list(told["outcome"]["timings_s"]) == ["open", "load", "randomize", "plan"]
    assert told["outcome"]["frames"] == 10
    assert contents(tmp_path / "kept") == {}


def test_a_failed_plan_fails_again_as_recorded(tmp_path: Path) -> None:
    run(write_job(tmp_path, fail_share=1.0))
    status, told = replay("kitchen/0", "--output", tmp_path / "out")
    assert (status, told["verdict"]) == (1, "failed_again")
    assert told["recorded"]["state"] == "failed"
    assert (told["outcome"]["stage"], told["outcome"]["reason"], told["outcome"]["planned"]) == (
        "plan",
        "unreachable",
        True,
    )
    status, told = replay("kitchen/0", "--output", tmp_path / "out", "--stage", "load")
    assert (status, told["text"]) == (0, "is through with load; on record is a failure in plan, after that")


def test_a_crash_is_a_result_and_the_same_as_recorded(crashed: Path) -> None:
    status, told = replay("kitchen/0", "--output", crashed / "out")
    assert (status, told["verdict"]) == (1, "failed_again")
    assert told["recorded"]["state"] == "quarantined"
    assert (told["outcome"]["stage"], told["outcome"]["reason"]) == ("render", "crash")
    assert "SIGSEGV" in told["outcome"]["detail"]


def test_a_failure_that_does_not_happen_again_is_told_so(crashed: Path) -> None:
    fixed = ["--set", "pipeline.render.args.always=false", "--set", "pipeline.render.args.states=[99]"]
    status, told = replay(crashed / "job.yaml", "kitchen/0", *fixed)
    assert (status, told["verdict"]) == (0, "made")
    assert re.fullmatch(r"was made; what is on record \(\w+: crash\) did not happen again", told["text"])


def test_another_failure_than_the_recorded_one_is_told_so(crashed: Path) -> None:
    status, told = replay(crashed / "job.yaml", "kitchen/0", "--set", "pipeline.render.args.kind=raise")
    assert (status, told["verdict"]) == (5, "failed_otherwise")
    assert told["outcome"]["reason"] == "runtime_error"
    assert "told to fail" in told["outcome"]["evidence"]


@pytest.mark.parametrize("limit", ["beat_timeout_s", "--attempt-timeout"])
def test_a_hang_that_holds_the_gil_is_killed_with_its_stack(crashed: Path, limit: str) -> None:
    args: list[str] = ["--set", "pipeline.render.args.kind=hang"]
    if limit == "--attempt-timeout":
        args += ["--set", "limits.beat_timeout_s=50", "--attempt-timeout", "0.5"]
    status, told = replay(crashed / "job.yaml", "kitchen/0", *args)
    assert (status, told["verdict"]) == (5, "failed_otherwise")
    assert (told["outcome"]["stage"], told["outcome"]["reason"]) == ("render", "hang")
    assert ("longer than 0.5 s" if args[2:] else "no progress for 1 s") in told["outcome"]["detail"]
    assert "in _fail" in told["outcome"]["evidence"]


def test_the_debugger_stops_where_the_exception_was_raised(crashed: Path) -> None:
    done = nimbusctl(
        "replay",
        crashed / "job.yaml",
        "kitchen/0",
        "--debugger",
        "--set",
        "pipeline.render.args.kind=raise",
        answers="p self.args.kind\nq\n",
    )
    assert done.returncode == 5, done.stderr
    assert "-> raise RuntimeError" in done.stdout
    assert "'raise'" in done.stdout


def test_an_episode_that_was_never_made_is_made(tmp_path: Path) -> None:
    status, told = replay(write_job(tmp_path), "toy/kitchen/0")
    assert (status, told["recorded"]["state"], told["verdict"]) == (0, "open", "made")
    assert not (tmp_path / "out").exists()


def test_an_unknown_episode_is_told_with_the_nearest(committed: Path) -> None:
    for episode, near in (("kichen/1", "toy/kitchen/1"), ("kitchen/7", "the nearest is toy/kitchen/1")):
        done = nimbusctl("replay", episode, "--output", committed / "out")
        assert done.returncode == 2
        assert near in done.stderr


def test_what_is_no_episode_is_a_wrong_usage(committed: Path) -> None:
    for words, text in (
        (["kitchen"], "is not an episode"),
        (["kitchen/1"], "of which job is kitchen/1?"),
        ([committed / "job.yaml", "other/kitchen/1"], "is job toy, not other"),
        (["a/1", "b/2", "c/3"], "one episode at a time"),
    ):
        done = nimbusctl("replay", *words)
        assert done.returncode == 2
        assert text in done.stderr


def test_reserve_indexes_count_for_jobs_that_want_an_exact_number(tmp_path: Path) -> None:
    job = read_job(write_job(tmp_path), overrides=["exact=true", "max_tries_per_episode=3"])
    check_episode(job, "kitchen", 5)
    with pytest.raises(UnknownEpisode, match=r"0 to 5, reserve .* \(2 are wanted\)"):
        check_episode(job, "kitchen", 6)


def test_media_that_differ_are_told_apart_from_state_columns(tmp_path: Path) -> None:
    record = Recorded(read_job(write_job(tmp_path)), tmp_path, "kitchen", 0, "", "committed", folder="f")
    media = judge(record, Outcome({}, folder="f"), Comparison(2, (Difference("a.ply", "differs", True),)), "store")
    assert (media.status, media.text.partition("; ")[2]) == (6, "its state columns are equal")
    assert judge(record, Outcome({}, "plan", "hang", ""), None, "store").word == "failed_otherwise"


def test_a_death_is_the_same_where_its_node_had_not_heard_of_the_last_stage(tmp_path: Path) -> None:
    job = read_job(write_job(tmp_path))
    recorded = Recorded(job, tmp_path, "kitchen", 0, "", "quarantined", failure=Failure("load", "crash", ""))
    assert judge(recorded, Outcome({}, "render", "crash", ""), None, "store").word == "failed_again"
    assert judge(recorded, Outcome({}, "render", "exit", ""), None, "store").word == "failed_otherwise"
    late = dataclasses.replace(recorded, failure=recorded.failure.in_stage("store"))
    assert judge(late, Outcome({}, "render", "crash", ""), None, "store").word == "failed_otherwise"


def test_a_committed_piece_is_found_without_its_ledger(committed: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.symlink_to(committed / "out")
    job = json.loads((committed / "out/.nimbusd/job.json").read_text())
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / ".nimbusd").mkdir(parents=True)
    (elsewhere / ".pieces").symlink_to(committed / "out/.pieces")
    ledger = {"host": "another", "path": "/var/lib/nimbusd/master/ledger.sqlite"}
    (elsewhere / ".nimbusd/job.json").write_text(json.dumps({**job, "ledger": ledger}))
    found = recorded_in_output(elsewhere, "kitchen", 1)
    assert (found.state, found.folder, found.digest) == ("committed", "toy__kitchen__000001.1", "")
    assert recorded_in_output(output, "kitchen", 1).digest


def test_episodes_of_a_cluster_are_found_through_its_master(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        faulty = {"kind": "raise", "marks": str(tmp_path / "marks"), "states": [1]}
        changes: dict[str, Any] = {"pipeline.render": {"component": "tests.support.toy:FaultyRenderer", "args": faulty}}
        changes.update({"pipeline.plan.args.fail_share": 0, "exact": False})
        toy_job(tmp_path, scenes=[{"name": "a"}], episodes_per_scene=3, limits={"attempts": 1})
        overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
        job = read_job(tmp_path / "toy.yaml", overrides=overrides)
        cluster.start_node("w0")
        client = cluster.client()
        client.submit(job)
        assert client.wait("toy").state == "incomplete"
        (failed,) = client.failures("toy")
        done = cluster.nimbusctl("replay", f"toy/a/{failed.index}", "--json")
        assert json.loads(done.stdout)["recorded"]["reason"] == failed.failure.reason == "runtime_error"
        assert json.loads(done.stdout)["verdict"] == "made"
        done = cluster.nimbusctl("replay", f"toy/a/{(failed.index + 1) % 3}", "--json")
        assert (done.returncode, json.loads(done.stdout)["verdict"]) == (0, "equal")
        done = cluster.nimbusctl("replay", "tyo/a/0")
        assert done.returncode == 4
        assert "there are: toy" in done.stderr
