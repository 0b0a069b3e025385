"""Give a job up whose first episodes all fail alike.

A renderer that misses an argument fails at every episode in the same words. Nothing is learned by trying each of them
as often as the job allows, so that the job is given up as soon as that is plain; one success shows that it is not so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from nimbusd.core.ids import EpisodeKey
from nimbusd.transport.messages.failures import Failure, FailureKind

ERRORS_ALIKE = 3
"""Different episodes that must fail alike by errors."""
PLANS_ALIKE = 100
"""The same for plans, which may well fail often in a difficult scene."""
SCENES_ALIKE = 2
"""Different scenes that they must be of, where there are others: one scene may be broken by itself."""
SINGLE = frozenset({"hang", "crash", "exit", "asset_error"})
"""They say nothing about the job: ends of workers, which may be anybody's doing, and broken files of scenes."""
_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\d+")


class FirstFailures:
    """Failures of a job in which nothing has succeeded yet. `scenes` has those of the failures that are alike."""

    def __init__(self, hopeful: bool) -> None:
        self._hopeful = hopeful
        self._words = ("", "", "")
        self._episodes: set[tuple[str, int]] = set()
        self.scenes: set[str] = set()

    def succeeded(self) -> None:
        """An episode was committed: from now on failures are single ones."""
        self._hopeful = True
        self._episodes.clear()
        self.scenes.clear()

    def failed(self, key: EpisodeKey, failure: Failure, *open_scenes: Iterable[str]) -> str | None:
        """Take in a failure. Returns why the job should be given up, if it should.

        open_scenes: where episodes are pending, or leased.
        """
        if self._hopeful or failure.reason in SINGLE:
            return None
        words = failure.stage, failure.reason, _NUMBERS.sub("#", failure.detail)
        if self._episodes and words != self._words:
            self.succeeded()  # failures of several kinds have no single cause
            return None
        self._words = words
        self._episodes.add((key.scene, key.index))
        self.scenes.add(key.scene)
        if len(self._episodes) < (PLANS_ALIKE if failure.kind is FailureKind.PLANNING else ERRORS_ALIKE):
            return None
        others = (scene for scenes in open_scenes for scene in scenes if scene not in self.scenes)
        if len(self.scenes) < SCENES_ALIKE and any(others):
            return None
        said = f"{failure.reason}: {failure.detail}".rstrip(". :")
        return (
            f"the first {len(self._episodes)} episodes all failed alike, in '{failure.stage}' ({said}); the others "
            "were not tried. Mend that, and run or submit the job again"
        )
