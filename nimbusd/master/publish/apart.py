"""Publishing in a process of its own: a writer is somebody else's code, and may raise, exit, crash, hang or eat memory.

Started as `python -m nimbusd.master.publish.apart`; its request is a JSON object in a file that it inherits. It tells
of every sign of progress, and at last of the end, as JSON lines in a pipe. Whoever started it kills it, with all that
it has started, when it is silent for too long or takes too much memory; what it wrote before goes with the error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from nimbusd.config import PUBLISH_MEMORY_SHARE
from nimbusd.core.ids import worker_of
from nimbusd.core.master.publishing import PublishLimits, must_die
from nimbusd.job import Job
from nimbusd.machine.memory import die_first, node_memory
from nimbusd.makers import faults
from nimbusd.makers.arithmetic import maker_environment
from nimbusd.makers.leaving import LEAVE_S, leave_soon
from nimbusd.master.ledger.ledger import Ledger
from nimbusd.master.output.folder import committed_pieces
from nimbusd.master.publish.published import content_digest, note_published, published_already
from nimbusd.stages.base import no_beat
from nimbusd.stages.errors import NimbusError, StoreError
from nimbusd.supervisor import proc
from nimbusd.supervisor.prctl import become_subreaper, die_with_parent
from nimbusd.supervisor.process import WorkerProcess, python, read_pipe
from nimbusd.supervisor.target import Target, dump_stacks_to

log = logging.getLogger(__name__)

START_S = 300.0
"""Seconds that a process may take until it asks for the job's writer."""
LOOK_S = 0.5
"""Seconds between two looks at a publishing process."""
STACK_S = 2.0
BEAT_EVERY_S = 0.1
_MOST_EVIDENCE = 20_000
_MOST_LINE_BYTES = 1 << 20


class NotPublished(StoreError):
    """A dataset could not be published. evidence: what its process wrote at last, with the stacks of its threads."""

    def __init__(self, error: str, evidence: str) -> None:
        super().__init__(error)
        self.evidence = evidence


def publish_limits(job: Job, memory_share: float = PUBLISH_MEMORY_SHARE) -> PublishLimits:
    """The limits of publishing this job here. memory_share: of the machine's memory, or of the control group's."""
    return PublishLimits(job.limits.publish_timeout_s, int(memory_share * node_memory().limit_bytes))


async def publish_apart(job: Job, ledger: Path, limits: PublishLimits, *, final: bool) -> tuple[Path | None, int]:
    """Publish what is committed. Returns the dataset's path (None while nothing is) and its episodes.

    The same content is not published twice, if it is there as it was left. Raises NotPublished.
    """
    request = {"job": job.to_dict(), "ledger": str(ledger), "final": final}
    with contextlib.ExitStack() as held:
        try:
            asked = os.memfd_create("nimbusd-publish", os.MFD_CLOEXEC)
            held.callback(os.close, asked)
            os.pwrite(asked, orjson.dumps(request), 0)
            ear, mouth = os.pipe()
            held.callback(os.close, mouth)
            listening = _Ear(*await read_pipe(ear, _MOST_LINE_BYTES))
            argv = python("nimbusd.master.publish.apart", "--parent", str(os.getpid()))
            argv += ["--request", str(asked), "--tell", str(mouth)]
            process = await WorkerProcess.spawn(argv, maker_environment(os.environ), [asked, mouth])
        except OSError as error:
            raise NotPublished(f"cannot publish the dataset in {job.output}: no process starts: {error}", "") from error
    return await _Watcher(job, process, listening, limits).run()


class _Ear:
    """Hears what the process tells. heard_at: when it last did, by the monotonic clock. end: the last it tells."""

    def __init__(self, stream: asyncio.StreamReader, transport: asyncio.ReadTransport) -> None:
        self._stream = stream
        self._transport = transport
        self.heard_at = time.monotonic()
        self.has_begun = False
        self.end: dict[str, Any] | None = None

    async def listen(self) -> None:
        """Take in all that is told, until nobody has the other end."""
        with contextlib.suppress(ValueError):  # a line without an end: it is none of ours
            while line := await self._stream.readline():
                self.heard_at, self.has_begun = time.monotonic(), True
                with contextlib.suppress(orjson.JSONDecodeError):
                    told = orjson.loads(line)
                    if isinstance(told, dict) and "episodes" in told:
                        self.end = told

    def close(self) -> None:
        self._transport.close()


class _Watcher:
    """Follows a publishing process to its end."""

    def __init__(self, job: Job, process: WorkerProcess, ear: _Ear, limits: PublishLimits) -> None:
        self._job = job
        self._process = process
        self._ear = ear
        self._limits = limits
        self._target: Target | None = None
        with contextlib.suppress(ProcessLookupError):  # it has ended, and has been waited for, already
            self._target = Target(process.pid, os.pidfd_open(process.pid))

    async def run(self) -> tuple[Path | None, int]:
        listening = asyncio.create_task(self._ear.listen())
        ending = asyncio.create_task(self._process.wait())
        try:
            killed = await self._watch(ending)
            status = await ending
            await asyncio.wait([listening], timeout=1.0)
        finally:
            if self._target is not None:
                self._target.kill()
            listening.cancel()
            await asyncio.gather(listening, ending, return_exceptions=True)
            self._ear.close()
            if self._target is not None:
                self._target.close()
        return self._result(killed, status)

    async def _watch(self, ending: asyncio.Task[int]) -> str:
        """Until it has ended. Returns why it was killed; empty if it was not, or had done all by then."""
        while not ending.done():
            await asyncio.wait([ending], timeout=LOOK_S)
            silent_s = time.monotonic() - self._ear.heard_at
            if self._ear.end is not None:
                if silent_s > 2 * LEAVE_S:
                    await self._kill(ending)
                continue
            memory_bytes = await asyncio.to_thread(_memory_bytes, self._process.pid)
            limits = self._limits if self._ear.has_begun else replace(self._limits, silence_s=START_S)
            if why := must_die(limits, silent_s, memory_bytes):
                await self._kill(ending)
                return why
        return ""

    async def _kill(self, ending: asyncio.Task[int]) -> None:
        if self._target is not None:
            if self._target.ask_stack():
                await asyncio.wait([ending], timeout=STACK_S)
            self._target.kill()

    def _result(self, killed: str, status: int) -> tuple[Path | None, int]:
        end = self._ear.end
        if end is not None and not end.get("error"):
            dataset = end["dataset"]
            return None if dataset is None else Path(dataset), int(end["episodes"])
        if end is not None:
            raise NotPublished(str(end["error"]), str(end["evidence"]))
        if killed:
            how = f"was killed: {killed}"
        elif status < 0:
            how = f"died of signal {-status} ({signal.Signals(-status).name})"
        else:
            how = f"ended its process with status {status} before it had published"
        evidence = self._process.output()[-_MOST_EVIDENCE:]
        raise NotPublished(
            f"cannot publish the dataset in {self._job.output}: the writer {self._job.stages['store'].component} {how}"
            + _where(evidence),
            evidence,
        )


def _where(evidence: str) -> str:
    """The innermost Python frame of the thread that a signal came to, if faulthandler told of it."""
    _, found, stack = evidence.rpartition("Current thread ")
    frames = [line.strip() for line in stack.splitlines() if line.startswith("  File ")]
    return f" ({frames[0]})" if found and frames else ""


def _memory_bytes(pid: int) -> int:
    return sum(proc.anonymous_bytes(found) for found in (pid, *(below.pid for below in proc.descendants(pid))))


# --- in the process ---


def publish_here(
    job: Job, ledger: Ledger, *, final: bool, beat: Callable[[], None] = no_beat
) -> tuple[Path | None, int]:
    """Publish what is committed, with the job's own writer, in this process. See `publish_apart`.

    Raises StoreError if it cannot be written, and whatever the writer raises.
    """
    output = job.output
    try:
        pieces = committed_pieces(job, output, ledger, beat)
        if not pieces:
            return None, 0
        facts = {"name": job.name, "seed": job.seed, "fingerprint": job.fingerprint()}
        content = content_digest(job, pieces, facts)
        if (dataset := published_already(output, content, final=final)) is not None:
            return dataset, len(pieces)
        writer = job.make("store")
        writer.beat = beat
        faults.arm({"publish": writer}, worker_of("publisher", 1))
        try:
            dataset = writer.publish(output, pieces, facts, final)
        finally:
            writer.close()
        note_published(output, content, dataset, final=final)
    except OSError as error:
        raise StoreError(f"cannot publish the dataset in {output}: {error}") from error
    return dataset, len(pieces)


class _Teller:
    """Tells of progress, not more often than anybody looks."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._told_at = 0.0

    def beat(self) -> None:
        if (now := time.monotonic()) - self._told_at > BEAT_EVERY_S:
            self._told_at = now
            self.tell({})

    def tell(self, said: Mapping[str, Any]) -> None:
        os.write(self._fd, orjson.dumps(said) + b"\n")


def _publish(request: Mapping[str, Any], beat: Callable[[], None]) -> dict[str, Any]:
    """The end of a publish, as it is told."""
    job = Job.from_dict(request["job"])
    try:
        with Ledger.read(Path(request["ledger"])) as ledger:
            dataset, episodes = publish_here(job, ledger, final=request["final"], beat=beat)
    except NimbusError as error:
        return {"episodes": 0, "error": str(error), "evidence": ""}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a writer may raise anything
        what = f"{type(error).__name__}: {error}".strip(": ")
        writer = job.stages["store"].component
        return {
            "episodes": 0,
            "error": f"cannot publish the dataset in {job.output}: the writer {writer} raised {what}",
            "evidence": "".join(traceback.format_exception(error))[-_MOST_EVIDENCE:],
        }
    return {"episodes": episodes, "dataset": None if dataset is None else str(dataset)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="nimbusd.master.publish.apart", description=__doc__)
    parser.add_argument("--parent", type=int, required=True, help="pid of who waits for us; we die with it")
    parser.add_argument("--request", type=int, required=True, help="file descriptor of the request")
    parser.add_argument("--tell", type=int, required=True, help="file descriptor to tell of progress and the end")
    args = parser.parse_args()
    die_with_parent(args.parent)
    become_subreaper()  # so that what a writer starts stays below us, and goes with us
    die_first()
    faulthandler.enable()
    dump_stacks_to(sys.stderr.fileno())
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    os.set_inheritable(args.tell, False)
    with os.fdopen(args.request, "rb") as file:
        request = orjson.loads(file.read())
    teller = _Teller(args.tell)
    teller.beat()
    teller.tell(_publish(request, teller.beat))
    leave_soon(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
