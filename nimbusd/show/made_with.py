"""With which packages a dataset was made, in words."""

from __future__ import annotations

from collections.abc import Sequence

from nimbusd.core.environments import FIRST, changes_in_words
from nimbusd.stages.store.made_with import MadeWith


def made_with_lines(environments: Sequence[MadeWith]) -> list[str]:
    """A line for each: the packages of the first that are known, and of the others what differs from those."""
    lines: list[str] = []
    first: MadeWith | None = None
    for one in environments:
        if not one.packages:
            what = "packages that were not recorded"
        elif first is None:
            first = one
            names = sorted(one.packages, key=lambda name: (name not in FIRST, name))
            what = ", ".join(f"{name} {one.packages[name]}" for name in names)
        else:
            what = changes_in_words(first.packages, one.packages)
        lines.append(f"{_episodes(one)} made with {what}" if len(environments) > 1 else f"made with {what}")
    return lines


def _episodes(one: MadeWith) -> str:
    said = [f"{first}" if first == last else f"{first} to {last}" for first, last in one.episodes]
    is_one = len(one.episodes) == 1 and one.episodes[0][0] == one.episodes[0][1]
    return f"{'episode' if is_one else 'episodes'} {', '.join(said)}"
