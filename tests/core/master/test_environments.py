"""The packages that count for a job: what may differ between nodes, what may not, and jobs that began before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nimbusd.core.environments import ALWAYS, canonical, environment_of, names_that_count
from nimbusd.core.ids import NodeId
from nimbusd.core.master.facts import Cause, JobWaits, Waiting
from nimbusd.core.master.waiting import HOLDS_S, why_idle
from nimbusd.core.records import JobRecorded, JobRow
from nimbusd.job import Job
from nimbusd.job.job import StageSpec
from nimbusd.master.intake.plan import plan_of
from nimbusd.stages.store.made_with import packages_hash
from nimbusd.transport.messages.node import Hello
from tests.support.scheduler_story import JOB, A, B, SchedulerStory, grants, plan, scene

FIRST = {"nimbusd": "0.3.0", "numpy": "1.26.4", "scikit-image": "0.24.0", "sapien": "3.0.2"}
NAVIGATION = names_that_count(("scikit-image", "shapely"), {})


def joins(story: SchedulerStory, node: NodeId, packages: dict[str, str]) -> None:
    """A node that tells these packages."""
    story.tell(Hello(node, "1", "0.1", packages_hash(packages), packages, 1, ()))


def why_nothing(story: SchedulerStory, node: NodeId) -> Waiting | None:
    job, here = story.scheduler.tasks.jobs[JOB], story.scheduler.nodes.get(node)
    assert here is not None
    return why_idle(job, here, story.scheduler.tasks)


def begun() -> SchedulerStory:
    """A navigation job of which an episode is committed on a node with the first packages."""
    story = SchedulerStory(plan(scene("s", 10), counting=NAVIGATION))
    joins(story, A, FIRST)
    (lease,) = grants(story.beat(A, credit=1))
    (recorded,) = [order for order in story.store(lease, 0) if isinstance(order, JobRecorded)]
    counting = {name: FIRST[name] for name in ("nimbusd", "numpy", "scikit-image")}
    assert (recorded.environment, recorded.packages) == (packages_hash(counting), counting)
    return story


@pytest.mark.parametrize(
    "now",
    [
        FIRST | {"sapien": "4.0.0"},
        {name: version for name, version in FIRST.items() if name != "sapien"},
        FIRST | {"torch": "2.9"},
    ],
    ids=["upgraded", "removed", "installed"],
)
def test_a_package_that_a_job_never_uses_may_change_under_it(now: dict[str, str]) -> None:
    story = begun()
    joins(story, B, now)
    assert grants(story.beat(B, credit=1), B)


@pytest.mark.parametrize(
    ("now", "differs"),
    [
        (FIRST | {"scikit-image": "0.25.0"}, "scikit-image 0.24.0 when this job began, 0.25.0 on b"),
        (FIRST | {"shapely": "2.1"}, "no shapely when this job began, 2.1 on b"),
        (FIRST | {"numpy": "2.0.0", "sapien": "4.0.0"}, "numpy 1.26.4 when this job began, 2.0.0 on b"),
    ],
    ids=["required", "required, and now there", "of every job"],
)
def test_a_package_that_a_job_requires_may_not_and_is_named(now: dict[str, str], differs: str) -> None:
    story = begun()
    joins(story, B, now)
    assert not grants(story.beat(B, credit=1), B)
    waiting = why_nothing(story, B)
    assert waiting is not None
    assert (waiting.cause, waiting.why) == (Cause.ENVIRONMENT, differs)


def test_nodes_that_differ_alike_in_what_counts_are_named_together() -> None:
    story = SchedulerStory(plan(scene("s", 10), counting=NAVIGATION, environment="x", packages={"numpy": "1"}))
    joins(story, A, {"numpy": "2", "sapien": "3"})
    joins(story, B, {"numpy": "2", "sapien": "4"})
    story.pass_time(1.0)
    (said,) = [order.waiting for order in story.pass_time(HOLDS_S) if isinstance(order, JobWaits)]
    assert said is not None
    assert said.why.startswith("numpy 1 when this job began, 2 on a, b. ")


def test_names_are_one_however_they_are_spelled() -> None:
    assert {canonical(name) for name in ("fast_simplification", "Fast.Simplification", "fast--simplification")} == {
        "fast-simplification"
    }
    here = environment_of({"mapbox_earcut": "2.0", "gpu driver": "570.86"}, ALWAYS | {"mapbox-earcut"})
    assert dict(here.packages) == {"gpu driver": "570.86", "mapbox-earcut": "2.0"}
    assert here.hash == packages_hash(here.packages)


# --- jobs that began before it was recorded what they require ---

OF_OLD = {
    "nimbusd": "0.3.0", "python": "3.11.7", "machine": "x86_64", "numpy": "1.26.4", "scipy": "1.11.0",
    "scikit-image": "0.24.0", "DracoPy": "2.3.0", "mapbox-earcut": "2.0.0", "torch": "2.4.0",
}  # fmt: skip
"""The packages as they were chosen, spelled and hashed by a list of names."""
OF_TODAY = {canonical(name): version for name, version in OF_OLD.items()} | {
    "libc": "glibc 2.36", "gpu driver": "570.86", "pytest": "8.1", "moderngl": "5.12",
}  # fmt: skip


def old_row(packages: dict[str, str]) -> JobRow:
    """A job as a ledger has it: bound, and with a description that says nothing of what the job requires."""
    stages = {kind: StageSpec(f"nowhere:{kind}", "1.0.0", {}) for kind in ("load", "plan", "render", "store")}
    job = Job(
        name=str(JOB),
        seed=1,
        output=Path("/nowhere"),
        scenes_root=Path("/nowhere"),
        scene_entries={"s": {"name": "s"}},
        episodes_per_scene=10,
        exact=False,
        max_tries_per_episode=5,
        randomize_every=0,
        workers=None,
        stages=stages,  # type: ignore[arg-type]
    )
    spec = job.to_dict()
    del spec["requires"]
    row = JobRow(JOB, job.fingerprint(), spec, "ada", 0, 0, True, packages_hash(packages), 0.0)
    return replace(row, packages=packages, began_with=packages)


def resumed() -> SchedulerStory:
    """A master of today takes such a job up again."""
    row = old_row(OF_OLD)
    return SchedulerStory(plan_of(row, Job.from_dict(row.spec)))


def test_a_job_that_an_older_master_began_goes_on_with_a_node_of_today_without_anybodys_word() -> None:
    story = resumed()
    joins(story, A, OF_TODAY)
    assert packages_hash(OF_TODAY) != packages_hash(OF_OLD)
    (lease,) = grants(story.beat(A, credit=1), A)
    assert not [order for order in story.store(lease, 0) if isinstance(order, JobRecorded)], "it is bound already"
    assert why_nothing(story, A) is None


def test_such_a_job_waits_where_a_package_really_differs_and_says_which() -> None:
    story = resumed()
    joins(story, A, OF_TODAY | {"dracopy": "2.4.0"})
    assert not grants(story.beat(A, credit=1))
    waiting = why_nothing(story, A)
    assert waiting is not None
    assert waiting.why == "dracopy 2.3.0 when this job began, 2.4.0 on a"
    joins(story, B, OF_TODAY)
    assert grants(story.beat(B, credit=1), B), "one that has it goes on"


def test_a_job_without_packages_on_record_goes_on_with_the_hash_that_it_has() -> None:
    row = old_row({})
    planned = plan_of(row, Job.from_dict(row.spec))
    assert (planned.environment, planned.packages, planned.counting) == (row.environment, {}, None)
