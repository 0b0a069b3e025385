"""Packages of nodes, compared: those that differ, and a sentence about them."""

from __future__ import annotations

from collections.abc import Mapping

from nimbusd.core.words import counted

FIRST = ("nimbusd", "python")
"""Named before the others: they explain the most."""
_MOST_NAMED = 3


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
