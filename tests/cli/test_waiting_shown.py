"""A waiting job for people: in tables, lines and plain progress; and what `status` of a big job lists first."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nimbusd import events
from nimbusd.cli import tables
from nimbusd.cli.event_lines import event_line
from nimbusd.cli.progress import Progress
from nimbusd.cli.top import View, draw
from nimbusd.client import Event, NodeSummary
from nimbusd.core.master.facts import Cause
from nimbusd.core.words import counted, listed
from nimbusd.master.reports import scene_reports
from tests.support.scheduler_story import JOB, A, SchedulerStory, failed, grants, plan, scene
from tests.support.scripted_master import report, summary

WHY = "numpy 1.26.4 when this job began, 2.0.0 on w1"
WAITING = replace(summary(), waiting="environment", why=WHY, eta_s=None, rate_per_s=0.0, leased=0, nodes=0)


def shown(renderable: Any, width: int = 100) -> str:
    console = Console(width=width, height=24, color_system=None, force_terminal=True)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_a_job_that_waits_is_not_called_running_and_has_no_time_left() -> None:
    row = shown(tables.jobs_table([WAITING], 100))
    assert "waiting" in row
    assert "running" not in row
    assert shown(tables.job_problems([WAITING, summary()])[0]).strip() == f"house waiting: {WHY}"
    assert tables.job_problems([summary()]) == []
    assert str(tables.job_line(WAITING)) == f"house is waiting: 3 of 8 episodes, 0 under way: {WHY}"
    text = shown(tables.job_report(report(0, WAITING), 100))
    assert f"waiting: {WHY}" in text
    assert " left" not in text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 12), (120, 50)])
def test_top_says_why_jobs_wait_and_still_fits_the_screen(width: int, height: int) -> None:
    jobs = tuple(replace(WAITING, job=f"job_{number}") for number in range(30))
    console = Console(width=width, height=height, color_system=None, force_terminal=True)
    with console.capture() as capture:
        console.print(draw(View("tcp://m:1", (), jobs), width, height))
    lines = capture.get().splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert "waiting 30" in lines[0]
    assert any(line.startswith("job_") and " waiting: numpy" in line for line in lines)


@pytest.mark.parametrize("width", [80, 140])
def test_nodes_say_of_which_jobs_they_get_nothing(width: int) -> None:
    node = NodeSummary("w1", "ready", "0.1.0", "e", 4, (), 0, 0, 0.1, None, waiting={"house": WHY})
    text = shown(tables.nodes_table([node], width), width)
    text += "".join(shown(line, width) for line in tables.node_problems([node], width))
    assert "nothing of house" in " ".join(text.split())
    assert "numpy 1.26.4" in " ".join(text.split())


def test_status_counts_episodes_apart_from_attempts() -> None:
    told = replace(
        report(0, summary()), reasons={"crash": 7, "unreachable": 1}, not_made={"crash": 2, "unreachable": 1}
    )
    lines = [" ".join(line.split()) for line in shown(tables.job_report(told, 100)).splitlines()]
    assert "not made 2 episodes: crash" in lines
    assert "1 episode: unreachable" in lines
    assert "lost 5 attempts: crash" in lines


def test_scenes_that_need_somebody_or_move_come_before_those_that_only_wait() -> None:
    names = [f"s{number:02d}" for number in range(30)]
    story = SchedulerStory(plan(*(scene(name, 2, hint=float(number)) for number, name in enumerate(names)), attempts=1))
    story.join(A)
    (broken,) = grants(story.beat(A, credit=1))
    (moving,) = grants(story.tell(failed(broken, broken.spans[0].start)))
    first, second = scene_reports(story.scheduler.tasks.jobs[JOB])[:2]
    assert (first.scene, first.quarantined) == (broken.scene, 1)
    assert moving.scene in (first.scene, second.scene)


def test_plain_progress_says_why_nothing_moves_and_that_it_goes_on() -> None:
    out = io.StringIO()
    progress = Progress(out)
    progress.see(events.JobWaiting("environment", WHY))
    assert progress.tally.waiting == WHY
    assert progress.tally.seconds_left() is None
    progress.see(events.JobResumed())
    progress.see(events.EnvironmentChanged({"numpy": "1"}, {"numpy": "2"}))
    assert progress.tally.waiting == ""
    assert out.getvalue().splitlines() == [
        f"waiting: {WHY}",
        "goes on",
        "goes on with other packages: numpy 1 → 2",
    ]


def test_events_of_a_wait_are_sentences() -> None:
    waits = Event("job_waiting", "house", 0.0, "", {"cause": "environment", "why": WHY})
    assert f"house  waiting: {WHY}" in str(event_line(waits))
    changed = Event("environment_changed", "house", 0.0, "", {"before": {"numpy": "1"}, "now": {"numpy": "2"}})
    assert "goes on with other packages: numpy 1 → 2" in str(event_line(changed))


def test_every_cause_of_a_jobs_waiting_is_explained() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
    of_nodes = {Cause.LIMIT, Cause.ENDED}
    assert not [cause for cause in Cause if cause not in of_nodes and f"| `{cause.value}` |" not in text]


def test_numbers_and_lists_are_said_as_people_say_them() -> None:
    assert (counted(1, "fault"), counted(2000, "fault"), counted(0, "entry", "entries")) == (
        "1 fault",
        "2,000 faults",
        "0 entries",
    )
    assert (listed(["a"]), listed(["a", "b", "c", "d", "e"])) == ("a", "a, b, c and 2 more")
