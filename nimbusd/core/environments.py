"""Environments: the packages that count for a job, how they are compared, and how to say what differs.

A node tells the versions of everything that is installed on it. For a job only those count that its components require,
and the few that matter to every job; the hash over these is the job's environment. So a package that a job never uses
may change under it, and one that it uses may not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nimbusd.core.words import counted

ALWAYS = frozenset(
    {"nimbusd", "python", "machine", "arithmetic", "libc", "gpu driver", "numpy", "av", "pillow", "pyarrow"}
)
"""Entries that count for every job: what episodes are computed, encoded and written with, whoever makes them."""

FIRST = ("nimbusd", "python")
"""Named before the others: they explain the most."""
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Environment:
    """Packages that decide over episodes, version by name, and the hash over them."""

    hash: str
    packages: Mapping[str, str] = field(compare=False)


def canonical(name: str) -> str:
    """A package's name in the one spelling that all of its spellings have in common (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names_that_count(requires: Iterable[str] | None, began_with: Mapping[str, str]) -> frozenset[str] | None:
    """Names of the packages that count for a job; None: all that a node has.

    requires: packages that the job's components require; None for a job that was submitted before this was recorded.
    For such a job those count that were recorded when it began (began_with, version by name).
    """
    if requires is None:
        return frozenset(map(canonical, began_with)) or None
    return ALWAYS | frozenset(map(canonical, requires))


def environment_of(packages: Mapping[str, str], names: frozenset[str] | None) -> Environment:
    """The environment that a node or a record with these packages is for a job. names: see `names_that_count`."""
    from nimbusd.stages.store.made_with import packages_hash  # commands that only print must start quickly

    spelled = {canonical(name): version for name, version in packages.items()}
    counting = {name: spelled[name] for name in sorted(spelled) if names is None or name in names}
    return Environment(packages_hash(counting), counting)


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Packages that are of another version, came or went: nimbusd first, then by name."""
    names = (name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return sorted(names, key=lambda name: (name not in FIRST, name))


def differing(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Those entries of both that `changed` names."""
    names = changed(before, now)
    return {n: before[n] for n in names if n in before}, {n: now[n] for n in names if n in now}


def differences(began: Mapping[str, str], now: Mapping[str, str], where: str) -> str:
    """Say what differs from the packages that a job began with. where: that `now` is of, `here` or `on node-7`."""
    if not began:
        return f"other packages {where} than when this job began, which an older nimbusd did not record"
    names = changed(began, now)
    if not names:
        return f"another environment {where} than when this job began, though it lists the same packages"
    said = [_difference(name, began.get(name), now.get(name), where) for name in names[:_MOST_NAMED]]
    if (more := len(names) - _MOST_NAMED) > 0:
        said.append(f"{counted(more, 'more package')} {'differs' if more == 1 else 'differ'}")
    return "; ".join(said)


def changes_in_words(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Say what `differing` returned: `numpy 1.26.4 → 2.0.0, torch none → 2.4`."""
    return (
        ", ".join(f"{name} {before.get(name, 'none')} → {now.get(name, 'none')}" for name in changed(before, now))
        or "those that are not listed"
    )


def _difference(name: str, began: str | None, now: str | None, where: str) -> str:
    if now is None:
        return f"{name} {began} when this job began, none {where}"
    if began is None:
        return f"no {name} when this job began, {now} {where}"
    return f"{name} {began} when this job began, {now} {where}"
