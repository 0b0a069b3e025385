"""The moments of publishing: soon after news, not too often, and ever more rarely where it fails."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nimbusd.core.ids import JobId
from nimbusd.core.master.publishing import (
    FIRST_PAUSE_S,
    MOST_PAUSE_S,
    PUBLISH_FRACTION,
    PublishLimits,
    PublishTimes,
    must_die,
    pause_s,
)

A, B = JobId("a"), JobId("b")


def test_a_job_is_due_some_time_after_its_first_news_and_only_once() -> None:
    times = PublishTimes(30.0)
    times.news(A, 100.0)
    times.news(A, 120.0)
    assert times.due(129.9) == []
    assert times.due(130.0) == [A]
    times.began(A)
    assert times.due(200.0) == []
    times.succeeded(A, 1.0, 131.0)
    assert times.due(1000.0) == []


def test_what_came_while_it_was_published_is_published_after_a_pause_as_long_as_publishing_is_slow() -> None:
    times = PublishTimes(30.0)
    times.news(A, 0.0)
    times.began(A)
    times.news(A, 31.0)
    times.succeeded(A, 10.0, 40.0)
    assert times.due(40.0 + 10.0 / PUBLISH_FRACTION - 0.1) == []
    assert times.due(40.0 + 10.0 / PUBLISH_FRACTION) == [A]


def test_a_job_that_fails_is_tried_again_without_news_and_delays_no_other() -> None:
    times = PublishTimes(30.0)
    times.news(A, 0.0)
    times.news(B, 0.0)
    times.began(A)
    assert times.failed(A, 30.0) == FIRST_PAUSE_S
    assert times.is_doubtful(A)
    assert not times.is_doubtful(B)
    assert times.due(30.0) == [B]
    assert times.due(30.0 + FIRST_PAUSE_S) == [A, B]


def test_a_publish_that_ends_when_its_job_is_over_changes_nothing() -> None:
    times = PublishTimes(1.0)
    for end in (lambda: times.failed(A, 5.0), lambda: times.succeeded(A, 1.0, 5.0)):
        times.news(A, 0.0)
        times.began(A)
        times.forget(A)
        end()
        assert times.due(1e9) == []
        assert not times.is_doubtful(A)


def test_a_success_ends_the_doubt_and_a_job_that_is_over_is_never_due() -> None:
    times = PublishTimes(1.0)
    for _ in range(3):
        times.began(A)
        times.failed(A, 0.0)
    times.began(A)
    times.succeeded(A, 0.0, 0.0)
    assert not times.is_doubtful(A)
    times.began(A)
    assert times.failed(A, 0.0) == FIRST_PAUSE_S
    times.forget(A)
    assert times.due(1e9) == []


@given(st.integers(1, 10_000))
def test_pauses_double_up_to_a_bound(failures: int) -> None:
    assert FIRST_PAUSE_S <= pause_s(failures) <= pause_s(failures + 1) <= MOST_PAUSE_S
    if pause_s(failures + 1) < MOST_PAUSE_S:
        assert pause_s(failures + 1) == 2 * pause_s(failures)


def test_a_publishing_process_dies_of_silence_and_of_memory_alone() -> None:
    limits = PublishLimits(silence_s=60.0, memory_bytes=1_000_000_000)
    assert must_die(limits, 60.0, 1_000_000_000) == ""
    assert must_die(limits, 60.1, 0) == "no sign of progress for 60 s"
    assert must_die(limits, 0.0, 2_000_000_000) == "it took 2,000 MB of memory, and may take 1,000 MB"
