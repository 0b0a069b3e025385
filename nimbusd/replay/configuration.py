"""The changes since an episode was recorded: of the job, its components, and the packages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nimbusd.core.environments import changed
from nimbusd.job import Job
from nimbusd.replay.compare import record_of
from nimbusd.stages.errors import NimbusError

_MOST_SHOWN = 80
_DEEPEST = 4


def configuration_now(job: Job, scene: str) -> dict[str, Any]:
    """The values of a job that decide over the episodes of a scene, as JSON. Raises ComponentError."""
    return {
        "seed": job.seed,
        "randomize_every": job.randomize_every,
        "scene": dict(job.scene_entries[scene]),
        "components": job.describe(),
    }


def configuration_on_record(job: Job, scene: str, record: Mapping[str, Any] | None) -> dict[str, Any]:
    """The same as it was: of the job that an output remembers, and of an episode's own record where there is one.

    What was not recorded is left out.
    """
    known: dict[str, Any] = {"seed": job.seed, "randomize_every": job.randomize_every}
    if scene in job.scene_entries:
        known["scene"] = dict(job.scene_entries[scene])
    if record is not None:
        facts = record["facts"]
        seed = (facts.get("seeds") or {}).get("job")
        return known | ({} if seed is None else {"seed": seed}) | {"components": facts.get("components") or {}}
    try:
        components = job.describe()
    except NimbusError:  # what is installed now takes other arguments, or is not there
        return known
    versions: dict[str, str] = {kind: spec.version for kind, spec in job.stages.items()}
    known["components"] = {kind: {**said, "version": versions[kind]} for kind, said in components.items()}
    return known


def configuration_changes(
    then: Mapping[str, Any], now: Mapping[str, Any], packages_then: Mapping[str, str], packages_now: Mapping[str, str]
) -> list[str]:
    """Sentences such as `seed: 3 on record, 4 now`. Only what is on record is compared; packages: version by name."""
    said = [line for key, value in then.items() for line in _changes(value, now.get(key), key)]
    if packages_then:
        for name in changed(packages_then, packages_now):
            before, after = packages_then.get(name, "none"), packages_now.get(name, "none")
            said.append(f"package {name}: {before} on record, {after} now")
    return said


def renderer_changes(committed: tuple[Path, str], made: tuple[Path, str]) -> list[str]:
    """The changes in what renderers record of themselves (device, driver, release), from one piece to another.

    Raises StoreError if a record cannot be read.
    """
    records = [record_of(*piece) for piece in (committed, made)]
    then, now = ((record or {}).get("facts", {}).get("renderer", {}) for record in records)
    return configuration_changes({"renderer": then}, {"renderer": now}, {}, {})


def _changes(then: Any, now: Any, name: str) -> Iterator[str]:
    if then == now:
        return
    if isinstance(then, dict) and isinstance(now, dict) and name.count(".") < _DEEPEST:
        for key in dict.fromkeys([*then, *now]):
            yield from _changes(then.get(key), now.get(key), f"{name}.{key}")
        return
    yield f"{name}: {_shown(then)} on record, {_shown(now)} now"


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 1] + "…"
