"""Errors of the pipeline: one type per meaning, each text a sentence for the person who must act."""

from __future__ import annotations


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


class PlanningFailed(NimbusError):
    """No sequence exists for this episode. A result, not a fault: it is counted by `reason`, not retried.

    reason: a short snake_case word that statistics group by, such as `unreachable`.
    detail: a sentence for people.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """One error of a group of groups: the one to tell of."""
    error = errors.exceptions[0]
    return first_of(error) if isinstance(error, BaseExceptionGroup) else error
