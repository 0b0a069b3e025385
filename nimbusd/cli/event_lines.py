"""Events of a cluster as lines for people and for programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from rich.text import Text

from nimbusd.client import Event, Gap
from nimbusd.core.environments import changes_in_words
from nimbusd.core.words import counted

_STYLES = {
    "attempt_lost": "yellow",
    "job_paused": "yellow",
    "publish_failed": "yellow",
    "job_waiting": "yellow",
    "environment_changed": "yellow",
    "draining": "yellow",
    "worker_down": "yellow",
    "episode_failed": "dim",
    "stage_began": "dim",
}
_ENDED = {"complete": "green", "incomplete": "red", "cancelled": "yellow"}


def event_line(item: Event | Gap, *, with_job: bool = True) -> Text:
    """Time of day, job and what happened. Events that this version does not know show their fields."""
    if isinstance(item, Gap):
        how_many = "some events" if item.missed is None else f"{item.missed:,} events"
        return Text(f"--:--:--  {how_many} are missing here; see nimbusctl status", "yellow")
    clock = time.strftime("%H:%M:%S", time.localtime(item.time_unix_s))
    style = _STYLES.get(item.name, "")
    if item.name == "job_ended":
        style = _ENDED.get(str(item.fields.get("status")), "")
    job = f"{item.job}  " if with_job and item.job else ""
    return Text.assemble((f"{clock}  ", "dim"), (job, "bold"), (_words(item), style))


def event_json(item: Event | Gap) -> str:
    """An event as one line of JSON; what is missing as an event `missed`."""
    values: dict[str, Any]
    if isinstance(item, Gap):
        values = {"event": "missed", "missed": item.missed, "cursor": item.cursor}
    else:
        values = {"event": item.name, "job": item.job, "time": item.time_unix_s, "cursor": item.cursor, **item.fields}
    return orjson.dumps(values).decode()


def _words(event: Event) -> str:
    said = {name: "" if value is None else value for name, value in event.fields.items()}
    try:
        return _SENTENCES[event.name](said)
    except KeyError:  # an event, or one without a field, of another version
        return " ".join([event.name, *(f"{name}={value}" for name, value in said.items())])


_SENTENCES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "job_started": lambda e: (
        f"started: {e['committed']:,} of {counted(e['wanted'], 'episode')} there, output {e['output']}"
    ),
    "worker_up": lambda e: f"worker {e['worker']} is ready, rendering on {e['device']}",
    "worker_down": lambda e: f"worker {e['worker']} is gone: {e['detail']}",
    "stage_began": lambda e: f"{e['scene']}/{e['index']}: {e['stage']} on {e['worker']}",
    "episode_committed": lambda e: (
        f"{e['scene']}/{e['index']}: {counted(e['frames'], 'frame')}"
        + "".join(f", {stage} {seconds:.1f} s" for stage, seconds in e["timings_s"].items() if seconds >= 0.05)
        + f" on {e['worker']}"
    ),
    "episode_failed": lambda e: f"{e['scene']}/{e['index']}: no plan ({e['reason']}: {e['detail']})",
    "attempt_lost": lambda e: (
        f"{e['scene']}/{e['index']}: {e['reason']}, {e['detail']}; "
        + ("set aside" if e["quarantined"] else "will be made again")
    ),
    "published": lambda e: f"published {counted(e['episodes'], 'episode')}: {e['dataset']}",
    "publish_failed": lambda e: f"not published: {e['why']}; tried again in {e['again_s']:g} s",
    "draining": lambda e: f"draining: {e['why']}",
    "job_paused": lambda e: f"paused: {e['why']}",
    "job_waiting": lambda e: f"waiting: {e['why']}",
    "job_resumed": lambda e: "goes on",
    "environment_changed": lambda e: f"goes on with other packages: {changes_in_words(e['before'], e['now'])}",
    "job_ended": lambda e: (
        f"{e['status']}: {e['committed']:,} of {counted(e['wanted'], 'episode')}"
        + (f"; {e['why']}" if e["why"] else "")
    ),
}
