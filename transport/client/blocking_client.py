"""The client for everybody else: the same calls without asyncio, from as many threads as like.

One thread of its own runs the asyncio client. So it can be used inside a program that has an event loop of its own
(where a call blocks as any blocking call does), and never touches that loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from nimbusd.transport.client.async_client import TIMEOUT_S, AsyncMasterClient
from nimbusd.transport.client.follow import Event, Follow, Gap
from nimbusd.transport.errors import ClientClosed
from nimbusd.transport.messages import control

T = TypeVar("T")


class BlockingMasterClient:
    """A client for any thread. Make it with `connect`; close it at the end, or use it in a `with`.

    Methods block, may be called from several threads at once, and raise the ClientErrors that AsyncMasterClient raises.
    """

    def __init__(self, connect: Callable[[], Coroutine[Any, Any, AsyncMasterClient]]) -> None:
        self._thread = _LoopThread()
        try:
            self._client = self._thread.call(connect())
        except BaseException:
            self._thread.close()
            raise

    @classmethod
    def connect(
        cls,
        address: str | None = None,
        *,
        master_key: str | None = None,
        key: str | Path | None = None,
        allow_any_local_user: bool = False,
        user: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> Self:
        """Connect to the master at `address` (`ipc://path`, `tcp://host:port` or `host:port`), and hear from it.

        master_key: the master's public key, or its .pub file; key: this client's .key file; both are needed for TCP.
        allow_any_local_user: for a master that says so, too: on the loopback address there are no keys, and whoever
        listens there is trusted. What is not given comes from NIMBUS_MASTER, NIMBUS_MASTER_KEY, NIMBUS_KEY,
        NIMBUS_ALLOW_ANY_LOCAL_USER, or the settings file ~/.config/nimbus/client.toml; without any of these, the
        master is on this machine. user: who submits; by default the account's name. timeout_s: of this call and of
        every later request. Raises MasterUnreachable at once where nobody listens.
        """
        return cls(
            lambda: AsyncMasterClient.connect(
                address,
                master_key=master_key,
                key=key,
                allow_any_local_user=allow_any_local_user,
                user=user,
                timeout_s=timeout_s,
            )
        )

    @property
    def address(self) -> str:
        """The master's address."""
        return self._client.address

    @property
    def timeout_s(self) -> float:
        """The longest that a request may take; may be changed at any time, for the requests that follow."""
        return self._client.timeout_s

    @timeout_s.setter
    def timeout_s(self, value: float) -> None:
        self._client.timeout_s = value

    def close(self) -> None:
        """Leave. Calls of other threads that are under way raise ClientClosed. Closing again does nothing."""
        self._thread.close(self._client.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def submit(
        self,
        job: Mapping[str, Any],
        *,
        priority: int = 0,
        user: str | None = None,
        max_nodes: int = 0,
        dynload: bool = True,
        adopt: bool = False,
        accept_environment: bool = False,
    ) -> control.JobSummary:
        """See `AsyncMasterClient.submit`."""
        return self._thread.call(
            self._client.submit(
                job,
                priority=priority,
                user=user,
                max_nodes=max_nodes,
                dynload=dynload,
                accept_environment=accept_environment,
                adopt=adopt,
            )
        )

    def jobs(self, *, ended: bool = True) -> tuple[control.JobSummary, ...]:
        """The jobs in order of submission. ended: those that have ended, too."""
        return self._thread.call(self._client.jobs(ended=ended))

    def job(self, name: str) -> control.JobReport:
        """One job with its scenes, reasons of failure, and the nodes that get none of it."""
        return self._thread.call(self._client.job(name))

    def cancel(self, job: str) -> control.Done:
        """Stop a job. What is committed stays and is published."""
        return self._thread.call(self._client.cancel(job))

    def retry(self, job: str) -> control.Done:
        """Give a job's quarantined episodes another chance; `count` of them."""
        return self._thread.call(self._client.retry(job))

    def repair(self, job: str, episodes: Iterable[tuple[str, int]] = ()) -> control.Done:
        """See `AsyncMasterClient.repair`."""
        return self._thread.call(self._client.repair(job, episodes))

    def forget(self, job: str, *, delete_output: bool = False) -> control.Done:
        """See `AsyncMasterClient.forget`."""
        return self._thread.call(self._client.forget(job, delete_output=delete_output))

    def relocate(self, job: str, output: str) -> control.Done:
        """See `AsyncMasterClient.relocate`."""
        return self._thread.call(self._client.relocate(job, output))

    def nodes(self) -> tuple[control.NodeSummary, ...]:
        """The nodes, by name."""
        return self._thread.call(self._client.nodes())

    def counters(self) -> Mapping[str, int]:
        """The master's counters: messages dropped, wrong keys and the like."""
        return self._thread.call(self._client.counters())

    def drain(self, node: str, on: bool = True) -> control.Done:
        """Give a node no more work; it finishes what has begun. on=False: give it work again."""
        return self._thread.call(self._client.drain(node, on))

    def token(self, ttl_s: float = 3600.0) -> control.Token:
        """A one-line secret with which one node can join within `ttl_s`."""
        return self._thread.call(self._client.token(ttl_s))

    def failures_page(self, job: str, offset: int = 0, limit: int = 100) -> control.FailureList:
        """Failed and quarantined episodes from `offset` on: at most `limit`, fewer where they say much."""
        return self._thread.call(self._client.failures_page(job, offset, limit))

    def failures(self, job: str) -> Iterator[control.FailureReport]:
        """Every failed or quarantined episode of a job, fetched by pages."""
        offset = 0
        while (page := self.failures_page(job, offset)).failures:
            yield from page.failures
            offset += len(page.failures)

    def cursor(self) -> str:
        """The place of now in the master's events: `watch` from it tells what happens after this call."""
        return self._thread.call(self._client.cursor())

    def watch(
        self, cursor: str | None = None, job: str | None = None, *, away_s: float | None = None
    ) -> Iterator[Event | Gap]:
        """Events after `cursor`, without end: see `AsyncMasterClient.watch`."""
        follow = Follow(self._client.ask_events, cursor, job, away_s)
        while True:
            yield from self._thread.call(follow.more())

    def wait(self, job: str, timeout_s: float | None = None) -> control.JobSummary:
        """Wait until the job has ended, and return its end: see `AsyncMasterClient.wait`."""
        return self._thread.call(self._client.wait(job, timeout_s))


class _LoopThread:
    """An event loop in a thread of its own, for the calls of other threads."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._closing = False
        # A daemon: a program that forgets to close its client can still end.
        self._thread = threading.Thread(target=self._run, name="nimbusd-client", daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` on the loop and return what it returns. An interrupt of the caller cancels it."""
        if self._process != os.getpid():
            coroutine.close()
            raise ClientClosed("this client was made before a fork and belongs to the parent; connect a new one")
        with self._lock:
            if self._closing:
                coroutine.close()
                raise ClientClosed("this client is closed; connect a new one")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise ClientClosed("the client was closed before the answer came") from None
        except BaseException:
            future.cancel()
            raise

    def close(self, last: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Run `last`, cancel every call, and end the thread. Does nothing in a forked child, or again."""
        with self._lock:
            if self._closing or self._process != os.getpid():
                return
            self._closing = True
        if last is not None:
            asyncio.run_coroutine_threadsafe(last(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
            calls = asyncio.all_tasks(self._loop)
            for call in calls:
                call.cancel()
            if calls:
                self._loop.run_until_complete(asyncio.wait(calls))
        finally:
            self._loop.close()
