"""A job whose first episodes fail in the same words is given up, and one that may go better is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from nimbusd.core.ids import EpisodeKey
from nimbusd.core.master.alike import ERRORS_ALIKE, PLANS_ALIKE, FirstFailures
from nimbusd.core.records import JobRecorded, JobState, State
from nimbusd.transport.messages.failures import Failure, FailureKind
from tests.processes.test_run_processes import run, write_job
from tests.support.scheduler_story import JOB, A, SchedulerStory, ended, failed, grants, plan, records, scene


def fact(
    scene: str, index: int, detail: str = "no lens", *, reason: str = "value_error", planned: bool = False
) -> tuple[EpisodeKey, Failure]:
    kind = FailureKind.PLANNING if planned else FailureKind.COUNTED
    return EpisodeKey(JOB, scene, index), Failure("render", reason, detail, kind=kind)


def test_episodes_of_two_scenes_that_fail_in_the_same_words_are_enough() -> None:
    first = FirstFailures(hopeful=False)
    assert first.failed(*fact("a", 0, "camera 1 has no lens."), ["b"]) is None
    assert first.failed(*fact("a", 0, "camera 2 has no lens."), ["b"]) is None, "the same episode again"
    assert first.failed(*fact("a", 1, "camera 3 has no lens."), ["b"]) is None
    why = first.failed(*fact("b", 0, "camera 9 has no lens."), [])
    assert why is not None
    assert "first 3 episodes all failed alike, in 'render' (value_error: camera 9 has no lens)" in why


def test_one_scene_is_not_enough_where_there_are_others() -> None:
    first = FirstFailures(hopeful=False)
    assert all(first.failed(*fact("a", index), ["a"], ["b"]) is None for index in range(20))
    assert first.failed(*fact("a", 20), ["a"]) is not None


@pytest.mark.parametrize("reason", ["hang", "crash", "exit", "asset_error"])
def test_dead_workers_and_broken_files_say_nothing_about_the_job(reason: str) -> None:
    first = FirstFailures(hopeful=False)
    assert all(first.failed(*fact("a", index, reason=reason)) is None for index in range(50))


def test_a_success_or_another_failure_means_that_the_job_goes_on() -> None:
    for event in ("success", "other words", "hopeful"):
        first = FirstFailures(hopeful=event == "hopeful")
        first.failed(*fact("a", 0))
        if event == "success":
            first.succeeded()
        elif event == "other words":
            first.failed(*fact("b", 0, "no film"))
        assert all(first.failed(*fact("c", index)) is None for index in range(50))


def test_plans_may_fail_more_often() -> None:
    first = FirstFailures(hopeful=False)
    told = [first.failed(*fact("a", index, planned=True)) for index in range(PLANS_ALIKE)]
    assert not any(told[:-1])
    assert told[-1] is not None


def test_a_job_whose_first_episodes_fail_alike_ends_and_keeps_the_evidence() -> None:
    story = SchedulerStory(plan(scene("a", 50), scene("b", 50)))
    story.join(A)
    orders = story.beat(A, credit=1)
    seen: list[str] = []
    while not ended(orders):
        lease = grants(orders)[0]
        seen.append(lease.scene)
        orders = story.tell(failed(lease, lease.spans[0].start))
        if not ended(orders) and not grants(orders):
            orders = story.beat(A, credit=1)
    assert set(seen[:2]) == {"a", "b"}, "the second try is of another scene"
    assert len(seen) <= 2 * ERRORS_ALIKE
    assert ended(orders) == [JobState.INCOMPLETE]
    (why,) = [order.why for order in orders if isinstance(order, JobRecorded)]
    assert "all failed alike" in why
    assert records(orders)[0].state is State.QUARANTINED
    assert not any(story.scheduler.sizes().values())


def test_a_run_whose_renderer_cannot_work_ends_at_once_and_goes_on_when_it_is_mended(tmp_path: Path) -> None:
    job = write_job(tmp_path, episodes_per_scene=50)
    broken = ["pipeline.render.component=tests.support.toy:FaultyRenderer", "pipeline.render.args.kind=raise"]
    broken += [f"pipeline.render.args.marks={tmp_path / 'marks'}", "pipeline.plan.args.fail_share=0"]
    changes = [part for change in broken for part in ("--set", change)]
    numbers = "pipeline.render.args.states=[" + ",".join(map(str, range(60))) + "]"
    status, events = run(job, "--workers", "1", *changes, "--set", numbers)
    assert (status, events[-1]["status"], events[-1]["committed"]) == (1, "incomplete", 0)
    assert "all failed alike, in 'render' (runtime_error: the renderer was told to fail)" in events[-1]["why"]
    assert sum(event["event"] == "attempt_lost" for event in events) < 60
    for number in range(60):  # as if it had been mended: every number that fails is used up
        (tmp_path / "marks" / str(number)).touch()
    status, events = run(job, "--workers", "1", "--retry-quarantined", *changes, "--set", numbers)
    assert (status, events[-1]["committed"]) == (0, 150)
