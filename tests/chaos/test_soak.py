"""The parts of `python -m tests.benchmarks.soak_cluster`; the whole takes hours and namespaces."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.soak_jobs import KINDS, make_job, size_for
from tests.benchmarks.soak_lives import SHORTEST_S, SPARE, Sample, course
from tests.benchmarks.soak_places import NoPlaces, must_be_shared

WARM_UP_S = 60.0


def life(kib_per_hour: float = 0.0, *, seconds: int = 600, fds: int = 0, step_at_s: int | None = None) -> list[Sample]:
    """A process that takes 50 MiB while it warms up. step_at_s: when it takes one more at once."""
    return [
        Sample(
            float(at_s),
            int((50 << 10) * min(at_s / WARM_UP_S, 1.0) + kib_per_hour * at_s / 3600)
            + (1 << 10) * (step_at_s is not None and at_s >= step_at_s),
            10 + (fds if at_s > seconds // 2 else 0),
            4,
        )
        for at_s in range(0, seconds, 3)
    ]


def test_the_slope_of_a_role_is_that_within_its_lives_after_their_warm_up() -> None:
    found = course("master", [life(7200.0), life(7200.0)], WARM_UP_S, 10_000.0)
    assert found is not None
    assert found.slope_kib == pytest.approx(7200, rel=0.02)
    assert (found.lives, found.grows) == (2, ())
    beyond = course("master", [life(7200.0)], WARM_UP_S, 7000.0)
    assert beyond is not None
    assert beyond.grows == ("memory",)


def test_a_single_step_is_no_slope() -> None:
    found = course("master", [life(step_at_s=500)], WARM_UP_S, 100.0)
    assert found is not None
    assert found.grows == ()


def test_lives_that_are_too_short_say_nothing() -> None:
    short = life(seconds=int(WARM_UP_S + SHORTEST_S) - 3)
    assert course("watchdog", [short], WARM_UP_S, 100.0) is None
    found = course("watchdog", [short, life()], WARM_UP_S, 100.0)
    assert found is not None
    assert found.lives == 1


def test_descriptors_that_are_left_open_are_found() -> None:
    found = course("node daemon", [life(fds=SPARE + 1)] * 3, WARM_UP_S, 100.0)
    assert found is not None
    assert found.grows == ("fds",)


def test_what_would_be_another_folder_in_each_namespace_is_refused() -> None:
    with pytest.raises(NoPlaces, match="choose one that is not beneath /tmp"):
        must_be_shared(Path("/tmp/outputs"))
    must_be_shared(Path("/var/tmp"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_jobs_of_a_soak_are_sound_and_always_the_same(kind: str, tmp_path: Path) -> None:
    job = make_job(kind, 3, tmp_path)
    assert job.fingerprint() == make_job(kind, 3, tmp_path).fingerprint()
    assert job.fingerprint() != make_job(kind, 4, tmp_path).fingerprint()


def test_jobs_are_longer_in_a_longer_soak_up_to_a_bound(tmp_path: Path) -> None:
    assert [size_for(hours) for hours in (0.01, 0.5, 1.0, 24.0)] == [1, 2, 4, 10]
    assert make_job("toy", 1, tmp_path, 3).total_episodes == 3 * make_job("toy", 1, tmp_path).total_episodes
