"""The master's feed of events, against a plain list of all that was ever told."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimbusd import events
from nimbusd.master.feed import Feed


def told(feed: Feed, number: int) -> None:
    job = "ab"[number % 2]
    event: events.Event = events.EpisodeCommitted("scene", number, 1, "w1", 10, {"plan": 0.125 * number})
    feed.add(job, event)


@settings(max_examples=40, deadline=None)
@given(
    kept=st.integers(1, 1500), added=st.integers(0, 4000), wanted=st.integers(0, 4100), job=st.sampled_from(["", "a"])
)
def test_whoever_asks_gets_every_event_that_is_kept_once_and_in_order(
    kept: int, added: int, wanted: int, job: str
) -> None:
    feed = Feed(7, kept)
    for number in range(added):
        told(feed, number)
    cursor, indexes, missed = f"7:{wanted}", list[int](), 0
    while cursor != feed.cursor:
        found, cursor, gone = feed.since(cursor, job, most=300)
        assert len(found) <= 300
        indexes += [event["index"] for event in found]
        missed += gone
    expected = [number for number in range(wanted, added) if not job or number % 2 == 0]
    assert indexes == expected[len(expected) - len(indexes) :]
    assert missed <= max(0, added - kept)
    assert not missed or wanted < added - kept
    if job == "":
        assert missed + len(indexes) == max(0, added - wanted)


def test_a_cursor_of_an_earlier_master_is_before_everything_and_none_is_from_now_on() -> None:
    feed = Feed(2, 10)
    told(feed, 0)
    assert [event["cursor"] for event in feed.since("1:500")[0]] == ["2:1"]
    assert feed.since("") == ((), "2:1", 0)
    with pytest.raises(ValueError, match="is no cursor"):
        feed.since("soon")


def test_old_events_come_out_as_they_were_told() -> None:
    feed = Feed(1, 20_000)
    first: list[dict[str, Any]] = []
    for number in range(5_000):
        told(feed, number)
        if number == 499:
            first = list(feed.since("1:0")[0])
    assert list(feed.since("1:0")[0]) == first


def test_a_full_feed_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        feed = Feed(1, 20_000)
        before = tracemalloc.get_traced_memory()[0]
        for number in range(25_000):
            told(feed, number)
        assert tracemalloc.get_traced_memory()[0] - before < 4e6
    finally:
        tracemalloc.stop()
