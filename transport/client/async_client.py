"""The client for asyncio: ask the master for things, and follow what happens there.

It imports the standard library, pyzmq and msgpack, so that other programs can embed it. Every request has a number,
is sent again after a reconnect or a silence, and fails with a `ClientError` when its time is up.
"""

from __future__ import annotations

import asyncio
import getpass
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from nimbusd.transport.client.follow import Event, Follow, Gap
from nimbusd.transport.client.link import ClientLink
from nimbusd.transport.client.presence import why_nobody_listens
from nimbusd.transport.client.requests import Outstanding, RequestTable
from nimbusd.transport.client.settings import find_settings
from nimbusd.transport.codec import MessageError, VersionError
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
from nimbusd.transport.messages import control
from nimbusd.transport.security.keys import KeyPair

log = logging.getLogger("nimbusd.client")

TIMEOUT_S = 10.0
"""The longest that a request may take, connecting included, unless the client was made with another limit."""
SEND_AGAIN_S = 0.02
ENDED = frozenset({"complete", "incomplete", "cancelled"})
"""States of a job that will not change by themselves."""

R = TypeVar("R", bound=control.Reply)


class AsyncMasterClient:
    """A client for asyncio programs. Make it with `connect`, on the loop that it is used on; close it at the end.

    Methods may be called concurrently. They raise MasterUnreachable, KeyRefused, VersionMismatch, RequestRefused or
    ClientClosed, all of them ClientErrors.
    """

    def __init__(
        self,
        address: str,
        *,
        master_key: str = "",
        pair: KeyPair | None = None,
        any_local_user: bool = False,
        user: str = "",
        timeout_s: float,
    ) -> None:
        self.address = address
        self.user = user or _user()
        self.timeout_s = timeout_s
        self.dropped = 0
        """Frames that were not understood, or that nobody waited for any more."""
        self._loop = asyncio.get_running_loop()
        self._requests = RequestTable()
        self._answers: dict[int, asyncio.Future[control.Reply]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._link = ClientLink(
            address,
            master_key,
            pair,
            self._on_message,
            self._on_unreadable,
            self._on_change,
            any_local_user=any_local_user,
        )

    @classmethod
    async def connect(
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
        NIMBUS_ALLOW_ANY_LOCAL_USER, or the settings file; without any of these, the master is on this machine.
        user: who submits; by default the account's name. timeout_s: of this call and of every later request.
        Raises MasterUnreachable at once where nobody listens.
        """
        found = find_settings(address, master_key, key, allow_any_local_user)
        client = cls(
            found.address,
            master_key=found.master_key,
            pair=found.pair(),
            any_local_user=found.any_local_user,
            user=user,
            timeout_s=timeout_s,
        )
        try:
            await client._first_words()
        except BaseException:
            await client.close()
            raise
        return client

    async def close(self) -> None:
        """Leave. Calls that are under way raise ClientClosed. Closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._link.close()
        for request in self._requests.all():
            self._fail(request, ClientClosed("the client was closed before the answer came"))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # --- requests ---

    async def submit(
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
        """Run a job, or go on with it if it is the same as before. job: `Job.to_dict()`.

        priority: greater is sooner. max_nodes: the most nodes at a time, 0: no limit. dynload: False divides
        the work among the nodes beforehand. adopt: take over what lies in its output also if a newer state of the
        master's ledger wrote it, or a job with the same seed and component versions but another fingerprint.
        accept_environment: go on with the packages that most slots have now, though the job began with others.
        """
        name = job.get("name")
        if not isinstance(name, str) or not name:
            raise RequestRefused("bad_job", "a job must have a name; make its description with `Job.to_dict()`")
        values, owner = dict(job), self.user if user is None else user
        answer = await self._ask(
            control.JobList,
            lambda number: control.Submit(
                number, values, owner, priority, max_nodes, dynload, accept_environment=accept_environment, adopt=adopt
            ),
        )
        return answer.jobs[0]

    async def jobs(self, *, ended: bool = True) -> tuple[control.JobSummary, ...]:
        """The jobs in order of submission. ended: those that have ended, too."""
        return (await self._ask(control.JobList, lambda number: control.Jobs(number, ended))).jobs

    async def job(self, name: str) -> control.JobReport:
        """One job with its scenes, reasons of failure, and the nodes that get none of it."""
        return await self._ask(control.JobReport, lambda number: control.JobDetail(number, name))

    async def cancel(self, job: str) -> control.Done:
        """Stop a job. What is committed stays and is published."""
        return await self._ask(control.Done, lambda number: control.Cancel(number, job))

    async def retry(self, job: str) -> control.Done:
        """Give a job's quarantined episodes another chance; `count` of them."""
        return await self._ask(control.Done, lambda number: control.Retry(number, job))

    async def repair(self, job: str, episodes: Iterable[tuple[str, int]] = ()) -> control.Done:
        """Make committed episodes again whose pieces are damaged or gone; `count` of them.

        episodes: (scene, index) of some that are; of all others the manifests and sizes are looked at.
        """
        named = tuple(episodes)
        return await self._ask(control.Done, lambda number: control.Repair(number, job, named))

    async def forget(self, job: str, *, delete_output: bool = False) -> control.Done:
        """Remove a job that is not at work from the master. delete_output: and what it stored in its output."""
        return await self._ask(control.Done, lambda number: control.Forget(number, job, delete_output))

    async def relocate(self, job: str, output: str) -> control.Done:
        """Tell that a job's output was moved, an absolute path, where the job goes on if it is open."""
        return await self._ask(control.Done, lambda number: control.Relocate(number, job, output))

    async def nodes(self) -> tuple[control.NodeSummary, ...]:
        """The nodes, by name."""
        return (await self._ask(control.NodeList, control.Nodes)).nodes

    async def counters(self) -> Mapping[str, int]:
        """The master's counters: messages dropped, wrong keys and the like."""
        return (await self._ask(control.NodeList, control.Nodes)).counters

    async def drain(self, node: str, on: bool = True) -> control.Done:
        """Give a node no more work; it finishes what has begun. on=False: give it work again."""
        return await self._ask(control.Done, lambda number: control.DrainNode(number, node, on))

    async def token(self, ttl_s: float = 3600.0) -> control.Token:
        """A one-line secret with which one node can join within `ttl_s`."""
        return await self._ask(control.Token, lambda number: control.MakeToken(number, ttl_s))

    async def failures_page(self, job: str, offset: int = 0, limit: int = 100) -> control.FailureList:
        """Failed and quarantined episodes from `offset` on: at most `limit`, fewer where they say much."""
        return await self._ask(control.FailureList, lambda number: control.Failures(number, job, offset, limit))

    async def failures(self, job: str) -> AsyncIterator[control.FailureReport]:
        """Every failed or quarantined episode of a job, fetched by pages."""
        offset = 0
        while (page := await self.failures_page(job, offset)).failures:
            for failure in page.failures:
                yield failure
            offset += len(page.failures)

    # --- what happens ---

    async def cursor(self) -> str:
        """The place of now in the master's events: `watch` from it tells what happens after this call."""
        return (await self.ask_events("", "", 0.0)).cursor

    async def watch(
        self, cursor: str | None = None, job: str | None = None, *, away_s: float | None = None
    ) -> AsyncIterator[Event | Gap]:
        """Events after `cursor`, of `job` or all, without end; from now on if there is no cursor.

        Goes on by itself when the master was away; `away_s` is how long that may be (None: for ever). Where events
        were lost there is a Gap.
        """
        follow = Follow(self.ask_events, cursor, job, away_s)
        while True:
            for item in await follow.more():
                yield item

    async def wait(self, job: str, timeout_s: float | None = None) -> control.JobSummary:
        """Wait until a job has ended, and see how: complete, incomplete or cancelled. Outlasts a master's restart.

        Raises WaitTimeout when it has not ended after `timeout_s`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                follow = Follow(self.ask_events, None, job)
                await follow.begin()  # first, so that nothing can happen between the look and the watch
                while (summary := (await follow.through_absence(lambda: self.job(job))).summary).state not in ENDED:
                    await follow.more()
                return summary
        except TimeoutError as error:
            if isinstance(error, ClientError):
                raise
            raise WaitTimeout(f"job '{job}' has not ended after {timeout_s:g} s; it goes on") from None

    async def ask_events(self, cursor: str, job: str, wait_s: float) -> control.Events:
        """One look at the events after `cursor`; the master waits `wait_s` for one. `watch` is made of these."""
        return await self._ask(
            control.Events, lambda number: control.Watch(number, cursor, job, wait_s), patience_s=wait_s
        )

    async def _first_words(self) -> None:
        """Hear from the master. Raises MasterUnreachable as soon as nobody is found to listen there."""
        answered = asyncio.ensure_future(self.ask_events("", "", 0.0))
        absent = asyncio.ensure_future(self._absence())
        try:
            await asyncio.wait((answered, absent), return_when=asyncio.FIRST_COMPLETED)
            if not answered.done():
                raise MasterUnreachable(f"no master listens at {self.address}: {absent.result()}.")
            answered.result()
        finally:
            for task in (answered, absent):
                task.cancel()
            await asyncio.gather(answered, absent, return_exceptions=True)

    async def _absence(self) -> str:
        """Wait until an attempt to connect fails because nobody listens, and say why; for ever if somebody does."""
        while True:
            await self._link.tried_in_vain.wait()
            if why := await why_nobody_listens(self.address):
                return why
            self._link.tried_in_vain.clear()

    # --- the exchange ---

    async def _ask(self, answer: type[R], make: Callable[[int], control.Request], patience_s: float = 0.0) -> R:
        """Send a request and wait for its answer, which must be of type `answer`."""
        if self._closed:
            raise ClientClosed("this client is closed; connect a new one")
        self._link.try_again()
        request = self._requests.ask(make, self._loop.time(), self.timeout_s, patience_s)
        future: asyncio.Future[control.Reply] = self._loop.create_future()
        self._answers[request.number] = future
        self._pump()
        try:
            reply = await future
        finally:
            self._requests.settle(request.number)
            self._answers.pop(request.number, None)
        if isinstance(reply, control.Refused):
            raise _refusal(reply)
        if not isinstance(reply, answer):
            raise ClientError(
                f"the master at {self.address} answered {_title(request)} with {type(reply).__name__}, "
                f"not {answer.__name__}; is it of the same version as this client?"
            )
        return reply

    def _pump(self) -> None:
        """Send what is due, give up what is late, and look again when time has changed something."""
        if self._closed:
            return
        now = self._loop.time()
        for late in self._requests.expired(now):
            self._fail(late, self._too_late(late, now))
        blocked = False
        for request in self._requests.due(now) if self._link.connected else ():
            try:
                frame = control.encode(request.message)
            except MessageError as error:
                self._requests.settle(request.number)
                self._fail(request, RequestRefused("too_large", f"{_title(request)} cannot be sent: {error}"))
                continue
            if self._link.send(frame):
                self._requests.sent(request.number, now)
            else:
                blocked = True  # the handshake is over, but the pipe is not there yet, or full
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (at := self._requests.next_at(self._link.connected)) is not None:
            self._timer = self._loop.call_at(max(at, now + SEND_AGAIN_S) if blocked else at, self._pump)

    def _on_change(self) -> None:
        """The connection came or went, or was refused."""
        if self._link.refused:
            for request in self._requests.all():
                self._fail(request, KeyRefused(self._link.refused))
        if self._link.connected:
            self._requests.reconnected()
        self._pump()

    def _on_unreadable(self, error: MessageError) -> None:
        if isinstance(error, VersionError):
            problem = VersionMismatch(f"the master at {self.address} cannot be understood: {error}")
            for request in self._requests.all():
                self._fail(request, problem)
            return
        self.dropped += 1
        log.warning("dropped a message of the master: %s", error)

    def _on_message(self, message: control.Message) -> None:
        if isinstance(message, control.Refused) and message.request == 0:  # it could not even read the number
            for request in self._requests.all():
                self._fail(request, _refusal(message))
            return
        number = getattr(message, "request", 0)
        if not isinstance(message, control.Reply) or self._requests.settle(number) is None:
            self.dropped += 1
            return
        self._resolve(number, message)

    def _resolve(self, number: int, reply: control.Reply) -> None:
        future = self._answers.get(number)
        if future is not None and not future.done():
            future.set_result(reply)

    def _fail(self, request: Outstanding, error: ClientError) -> None:
        self._requests.settle(request.number)
        future = self._answers.get(request.number)
        if future is not None and not future.done():
            future.set_exception(error)

    def _too_late(self, request: Outstanding, now: float) -> ClientError:
        waited_s = now - request.asked_at
        if not self._link.connected:
            return MasterUnreachable(
                f"cannot reach the master at {self.address} after {waited_s:.1f} s. "
                "Is `nimbusd master` running there, and is this its address?"
            )
        heard = f" ({self.dropped} frames from it could not be used)" if self.dropped else ""
        return MasterSilent(
            f"the master at {self.address} accepted the connection but did not answer {_title(request)} "
            f"within {waited_s:.1f} s{heard}"
        )


def _refusal(refused: control.Refused) -> ClientError:
    if refused.code == "bad_version":
        return VersionMismatch(refused.error)
    return RequestRefused(refused.code, refused.error)


def _title(request: Outstanding) -> str:
    return type(request.message).__name__


def _user() -> str:
    """The account's name, or its number where there is no name (as in many containers)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"
