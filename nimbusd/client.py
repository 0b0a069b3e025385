"""The client to embed: submit jobs to a cluster, follow them, ask how they are.

    from nimbusd.client import Client

    with Client.connect() as client:  # the master on this machine, or that of the settings
        job = client.submit("examples/nav_mesh.yaml")
        print(client.wait(job.job).output)

Importing it needs the standard library, pyzmq and msgpack. Only `submit` with a job *file* loads the rest of nimbusd; a
process of its own then imports the job's components, and checks their arguments.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from nimbusd.transport.client import async_client as client
from nimbusd.transport.client import blocking_client
from nimbusd.transport.client.async_client import ENDED
from nimbusd.transport.client.follow import Event, Gap
from nimbusd.transport.errors import (
    ClientClosed,
    ClientError,
    KeyRefused,
    MasterSilent,
    MasterUnreachable,
    RequestRefused,
    VersionMismatch,
    WaitTimeout,
)
from nimbusd.transport.messages.control import (
    Done,
    Failure,
    FailureKind,
    FailureList,
    FailureReport,
    JobReport,
    JobSummary,
    NodeSummary,
    SceneReport,
    Token,
)

__all__ = [
    "ENDED",
    "AsyncClient",
    "Client",
    "ClientClosed",
    "ClientError",
    "Done",
    "Event",
    "Failure",
    "FailureKind",
    "FailureList",
    "FailureReport",
    "Gap",
    "JobLike",
    "JobReport",
    "JobSummary",
    "KeyRefused",
    "MasterSilent",
    "MasterUnreachable",
    "NodeSummary",
    "RequestRefused",
    "SceneReport",
    "Token",
    "VersionMismatch",
    "WaitTimeout",
    "spec_of",
]


@runtime_checkable
class HasSpec(Protocol):
    """A `nimbusd.job.Job`, or what can be described as one."""

    def to_dict(self) -> dict[str, Any]: ...


JobLike: TypeAlias = HasSpec | str | os.PathLike[str] | Mapping[str, Any]
"""A Job, the path of a job file, or `Job.to_dict()`."""


def spec_of(job: JobLike, *, output: Path | None = None, overrides: Iterable[str] = ()) -> Mapping[str, Any]:
    """The description of a job as the master wants it.

    output, overrides: as in `nimbusctl run --output --set`, for a job file. Raises nimbusd.job.JobError, which names
    every mistake in the file.
    """
    if isinstance(job, Mapping):
        return job
    if isinstance(job, HasSpec):
        return job.to_dict()
    from nimbusd.job import read_apart  # pydantic and numpy: for those who have a file

    return read_apart(Path(job), output=output, overrides=overrides).job.to_dict()


class AsyncClient(client.AsyncMasterClient):
    """A client for asyncio programs. Make it with `connect`, on the loop that it is used on; close it at the end.

    Methods may be called concurrently. They raise MasterUnreachable, KeyRefused, VersionMismatch, RequestRefused or
    ClientClosed, all of them ClientErrors.
    """

    async def submit(
        self,
        job: JobLike,
        *,
        priority: int = 0,
        user: str | None = None,
        max_nodes: int = 0,
        dynload: bool = True,
        adopt: bool = False,
        accept_environment: bool = False,
    ) -> JobSummary:
        """Run a job, or go on with it if it is the same as before. job: a Job, a job file's path, or `Job.to_dict()`.

        priority: greater is sooner. max_nodes: the most nodes at a time, 0: no limit. dynload: False divides
        the work among the nodes beforehand. adopt: take over what lies in its output also if a newer state of the
        master's ledger wrote it, or a job with the same seed and component versions but another fingerprint.
        accept_environment: go on with the packages that most slots have now, though the job began with others.
        Raises nimbusd.job.JobError for a file with mistakes.
        """
        spec = await asyncio.to_thread(spec_of, job)
        return await super().submit(
            spec,
            priority=priority,
            user=user,
            max_nodes=max_nodes,
            dynload=dynload,
            accept_environment=accept_environment,
            adopt=adopt,
        )


class Client(blocking_client.BlockingMasterClient):
    """A client for any thread. Make it with `connect`; close it at the end, or use it in a `with`.

    Methods block, may be called from several threads at once, and raise the ClientErrors that AsyncClient raises.
    """

    def submit(
        self,
        job: JobLike,
        *,
        priority: int = 0,
        user: str | None = None,
        max_nodes: int = 0,
        dynload: bool = True,
        adopt: bool = False,
        accept_environment: bool = False,
    ) -> JobSummary:
        """Run a job like `AsyncClient.submit`, and wait for the master's answer."""
        return super().submit(
            spec_of(job),
            priority=priority,
            user=user,
            max_nodes=max_nodes,
            dynload=dynload,
            accept_environment=accept_environment,
            adopt=adopt,
        )
