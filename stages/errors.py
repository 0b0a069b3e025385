"""Errors of the pipeline: one type per meaning, each text a sentence for the person who must act."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class NimbusError(Exception):
    """Base of every error that nimbusd raises on purpose."""


class AssetError(NimbusError):
    """A scene's file is missing, torn, empty or not what its hash promised."""


class BackendUnavailable(NimbusError):
    """A renderer or planner backend cannot run on this machine (package, library or device missing)."""


class ComponentError(NimbusError):
    """A component cannot be found, or returned something that its base class does not allow."""


class RenderError(NimbusError):
    """A renderer could not make the observation of a sequence."""


class StoreError(NimbusError):
    """A piece or dataset could not be written, or is not what its manifest says."""


class OutputGone(StoreError):
    """The output folder was removed or moved away while episodes were made for it."""


class PlanningFailed(NimbusError):
    """No sequence exists for this episode. A result, not a fault: it is counted by `reason`, not retried.

    reason: a short snake_case word that statistics group by, such as `unreachable`.
    detail: a sentence for people.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@contextlib.contextmanager
def out_of_groups(*kinds: type[Exception]) -> Iterator[None]:
    """Raise the first error in place of a group of nothing but such errors.

    Not by `except*`: some releases of Python put what is raised there into a group again.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        told, rest = group.split(kinds)
        if told is None or rest is not None:
            raise
        raise _first(told) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
