"""Counts that are remembered only while there is anything to count."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

K = TypeVar("K")


class Tally(Counter[K]):
    """A counter that holds no zeros, so that its length is bounded by what is open."""

    def change(self, key: K, by: int) -> None:
        """Count so many more, or fewer."""
        count = self[key] + by
        if count:
            self[key] = count
        else:
            self.pop(key, None)
