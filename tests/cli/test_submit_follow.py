"""`nimbusctl submit --wait` and a master that knows of a job's end before its last events have come."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

from nimbusd.cli.submit import _Shown, _until_ended
from nimbusd.client import Client, Event, Gap, JobSummary


def job_summary(state: str) -> JobSummary:
    return JobSummary("j", "me", 0, state, 1, 1, 0, 0, 0, 1, 10, 0, 0.0, 1.0, 0.0, None, "/out")


class LateEvents:
    """A client that tells that the job is complete, and has its end in the events only after that."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    def watch(self, cursor: str, job: str) -> Iterator[Event]:
        yield Event("published", job, 0.0, "1", {})
        self.asked.wait(60)
        yield Event("job_ended", job, 0.0, "2", {})

    def job(self, name: str) -> Any:
        self.asked.set()
        return SimpleNamespace(summary=job_summary("complete"))

    def close(self) -> None:
        pass


class Seen(_Shown):
    def __init__(self) -> None:
        self.names: list[str] = []

    def event(self, item: Event | Gap) -> None:
        assert isinstance(item, Event)
        self.names.append(item.name)


def test_the_last_events_of_a_job_are_shown_though_it_is_known_to_have_ended() -> None:
    seen, running = Seen(), job_summary("running")
    summary: JobSummary = _until_ended(cast(Client, LateEvents()), running, "0", seen)
    assert summary.state == "complete"
    assert seen.names == ["published", "job_ended"]
