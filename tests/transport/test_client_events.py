"""Watching a master through its client: events in order, gaps told, until the job has ended."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nimbusd.client import (
    AsyncClient,
    Client,
    Event,
    Gap,
    MasterUnreachable,
    WaitTimeout,
)
from nimbusd.transport.client import follow
from nimbusd.transport.messages import control
from tests.support.scripted_master import Answer, ScriptedMaster, polite, report, scripted, summary


class Feed:
    """Events as the master keeps them, in one epoch. Watch is answered at once."""

    def __init__(self, epoch: int, count: int, first: int = 0) -> None:
        self.epoch, self.count, self.first = epoch, count, first

    def __call__(self, request: control.Request) -> Answer:
        if not isinstance(request, control.Watch):
            return polite(request)
        epoch, _, number = (request.cursor or f"{self.epoch}:{self.count}").partition(":")
        wanted = int(number) if int(epoch) == self.epoch else 0
        start = max(wanted, self.first)
        if start >= self.count and request.wait_s:
            return None  # nothing yet
        stop = min(start + 3, self.count)
        events = tuple(
            {"event": "episode_committed", "job": "house", "time": 1.5, "index": i, "cursor": f"{self.epoch}:{i + 1}"}
            for i in range(start, stop)
        )
        return control.Events(request.request, f"{self.epoch}:{stop}", events, start - wanted)


def take(items: Iterator[Event | Gap], count: int) -> list[Any]:
    return [item if isinstance(item, Gap) else item.fields["index"] for item in itertools.islice(items, count)]


def test_events_come_in_order_and_each_says_how_to_go_on_after_it() -> None:
    with ScriptedMaster(Feed(1, 10)) as master, Client.connect(master.address) as client:
        _, second = itertools.islice(client.watch("1:2"), 2)
        assert isinstance(second, Event)
        assert (second.name, second.job, second.time_unix_s, second.fields) == (
            "episode_committed",
            "house",
            1.5,
            {"index": 3},
        )
        assert take(client.watch(second.cursor), 6) == [4, 5, 6, 7, 8, 9]


def test_events_that_the_master_no_longer_has_are_told_as_a_gap() -> None:
    with ScriptedMaster(Feed(1, 10, first=7)) as master, Client.connect(master.address) as client:
        assert take(client.watch("1:2"), 4) == [Gap(5, "1:2"), 7, 8, 9]


def test_watching_goes_on_through_a_restart_of_the_master_and_tells_the_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "AWAY_S", 0.0)
    with ScriptedMaster(Feed(1, 2)) as first:
        client = Client.connect(first.address, timeout_s=30)
        items = client.watch("1:0")
        assert take(items, 2) == [0, 1]
    with client, ThreadPoolExecutor() as pool:
        rest = pool.submit(take, items, 3)
        with ScriptedMaster(Feed(2, 2), address=first.address):
            assert rest.result() == [Gap(None, "1:2"), 0, 1]


def test_watching_ends_with_an_error_when_the_master_stays_away_too_long() -> None:
    with ScriptedMaster(Feed(1, 2)) as first:
        client = Client.connect(first.address, timeout_s=30)
        client.timeout_s = 0.1
    with client, pytest.raises(MasterUnreachable):
        next(client.watch("", away_s=0.0))


async def test_the_asyncio_client_watches_too() -> None:
    with ScriptedMaster(Feed(1, 5)) as master:
        async with await AsyncClient.connect(master.address) as client:
            seen: list[Any] = []
            async for item in client.watch("1:0"):
                assert isinstance(item, Event)
                seen.append(item.fields["index"])
                if len(seen) == 5:
                    break
    assert seen == [0, 1, 2, 3, 4]


def test_waiting_returns_how_the_job_ended() -> None:
    states = iter(["running", "paused", "incomplete"])

    def script(request: control.Request) -> Answer:
        if isinstance(request, control.JobDetail):
            return report(request.request, summary(state=next(states)))
        return None

    with ScriptedMaster(scripted(script)) as master, Client.connect(master.address) as client:
        assert client.wait("house", timeout_s=60).state == "incomplete"


def test_waiting_too_long_is_an_error_that_python_knows_as_a_timeout() -> None:
    def script(request: control.Request) -> Answer:
        silent = isinstance(request, control.Watch) and request.wait_s > 0
        return None if silent else polite(request)

    with ScriptedMaster(script) as master, Client.connect(master.address) as client:
        with pytest.raises(WaitTimeout, match=r"'house' has not ended after 0\.1 s"):
            client.wait("house", timeout_s=0.1)
        with pytest.raises(TimeoutError):
            client.wait("house", timeout_s=0.1)
