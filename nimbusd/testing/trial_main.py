"""The process in which a component is tried: `python -P -m nimbusd.testing.trial_main --request FILE --tell FD …`.

Started by `nimbusd.testing.trial`. What happens is told as JSON lines to a file descriptor; what the component prints
goes where standard output and error go.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from nimbusd.makers.leaving import leave_soon
from nimbusd.stages.errors import BackendUnavailable, ComponentError, PlanningFailed
from nimbusd.stages.modules import what_is_missing
from nimbusd.stages.store.piece import read_piece
from nimbusd.stages.types import Piece
from nimbusd.supervisor import proc
from nimbusd.supervisor.prctl import die_with_parent
from nimbusd.supervisor.target import dump_stacks_when_asked
from nimbusd.testing.digest import digest, tree_digest
from nimbusd.testing.shapes import torn
from nimbusd.testing.stand import Stand, StandRequest, content_of, find, publish_finally

Tell = Callable[[dict[str, Any]], None]
_BEAT_EVERY_S = 0.05


class BeatRecord:
    """The beats of a component: the longest silence of each call, and a sign of life now and then."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._last = self._told = time.monotonic()
        self._longest_s = 0.0
        self._count = 0

    def __call__(self) -> None:
        with self._lock:
            now = time.monotonic()
            self._longest_s, self._last = max(self._longest_s, now - self._last), now
            self._count += 1
            if tells := now - self._told >= _BEAT_EVERY_S:
                self._told = now
        if tells:
            self._tell({"event": "beat"})

    def start(self) -> None:
        """A call begins."""
        with self._lock:
            self._last, self._longest_s, self._count = time.monotonic(), 0.0, 0

    def stop(self) -> tuple[float, int]:
        """A call has ended: its longest silence in seconds, and how many beats it had."""
        with self._lock:
            return max(self._longest_s, time.monotonic() - self._last), self._count


class TrialRun:
    """The work of this process: see `nimbusd.testing.trial.TrialRequest`."""

    def __init__(self, request: Mapping[str, Any], tell: Tell) -> None:
        self._request = request
        self._tell = tell
        self._beats = BeatRecord(tell)
        self._pieces: dict[int, Piece] = {}
        self._stand: Stand

    def run(self) -> None:
        """Make the component, call it, and tell of each step."""
        stage, _ = find(self._request["component"])
        self._tell({"event": "found", "stage": stage})
        wanted = StandRequest(
            self._request["component"],
            self._request["args"],
            self._request["scene"],
            self._request["beside"],
            self._request["device"],
            Path(self._request["output"]),
        )
        self._stand = stand = Stand(wanted, stage, self._beats)
        self._tell({"event": "declared", "faults": stand.declared_faults()})
        if missing := stand.missing():
            raise BackendUnavailable("; ".join(missing))
        began = time.perf_counter()
        stand.open()
        self._tell({"event": "opened", "seconds": time.perf_counter() - began})
        try:
            for index in self._request["indexes"]:
                self._call(index)
            if stage == "store" and self._request["look"] and self._pieces:
                self._attempt_again()
            if stage == "store" and self._request["publish"]:
                self._publish()
            self._tell({"event": "closing"})
        finally:
            stand.close()
        self._tell({"event": "closed", "threads": _threads_left(), "files": _files_in(Path.cwd())})

    def _call(self, index: int) -> None:
        ready = self._stand.ready(index)
        before = digest(ready.inputs) if self._request["look"] else ""
        self._tell({"event": "began", "index": index})
        self._beats.start()
        began = time.perf_counter()
        try:
            made, failed = ready.make(), ""
        except PlanningFailed as error:
            made, failed = None, error.reason or "without a reason"
            content: Any = ("PlanningFailed", error.reason, error.detail)
        else:
            content = content_of(made, self._stand.request.output)
        seconds = time.perf_counter() - began
        silence_s, beats = self._beats.stop()
        told = {"event": "called", "index": index, "seconds": seconds, "silence_s": silence_s, "beats": beats}
        told |= {"failed": failed, "digest": digest(content), "faults": [], "changed": False}
        if isinstance(made, Piece):
            self._pieces[index] = made
        if self._request["look"]:
            told["faults"] = [] if failed else ready.faults(made)
            told["changed"] = digest(ready.inputs) != before
        del made, content, ready
        self._tell({**told, **_usage()})

    def _attempt_again(self) -> None:
        """The same episode once more with a higher attempt, as after a lease that ran out."""
        index = min(self._pieces)
        first = self._pieces[index]
        episode, obs = self._stand.episode(index, attempt=2)
        again = self._stand.save(episode, obs)
        faults = torn(episode.output, first.folder)
        if again.folder == first.folder:
            faults.append(f"attempts 1 and 2 of one episode share the folder {first.folder}")
        self._tell({"event": "attempts", "faults": faults})

    def _publish(self) -> None:
        """Publish the first pieces twice, or once those that another process stored and published."""
        output = self._stand.request.output
        pieces = [piece for _, piece in sorted(self._pieces.items())][: self._request["publish"]]
        times = 2
        if folders := self._request["folders"]:
            output, times = Path(self._request["stored_in"]), 1
            pieces = [read_piece(output, folder) for folder in folders]
        told = {"event": "published", "folders": [piece.folder for piece in pieces], "digest": ""}
        digests = []
        for _ in range(times):
            path = publish_finally(self._stand.component, output, pieces)
            if not isinstance(path, Path) or not path.exists():
                self._tell({**told, "faults": [f"it returned {path!r}, and nothing lies there"]})
                return
            digests.append(tree_digest(path.resolve()))
        faults = [fault for piece in pieces for fault in torn(output, piece.folder)]
        if len({*digests}) > 1:
            faults.append("the same call gave another dataset the second time")
        self._tell({**told, "faults": faults, "digest": digests[0]})


def _usage() -> dict[str, int]:
    """Memory, descriptors, threads and children of this process."""
    gc.collect()
    return {
        "memory_bytes": proc.anonymous_bytes(os.getpid()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "processes": len(proc.descendants(os.getpid())),
    }


def _threads_left() -> list[str]:
    usual = (threading.main_thread(), threading.current_thread())
    return [thread.name for thread in threading.enumerate() if thread not in usual and not thread.daemon]


def _files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(prog="nimbusd.testing.trial_main", description=__doc__)
    parser.add_argument("--request", type=Path, required=True, help="JSON file that says what to try")
    parser.add_argument("--tell", type=int, required=True, help="file descriptor to tell of it, as JSON lines")
    parser.add_argument("--parent", type=int, required=True, help="pid of the tester; we die with it")
    parser.add_argument("--stacks", required=True, help="file to write our threads' stacks to, if we are asked")
    args = parser.parse_args()
    os.set_inheritable(args.tell, False)
    die_with_parent(args.parent)
    dump_stacks_when_asked(args.stacks)
    faulthandler.enable()

    def tell(event: dict[str, Any]) -> None:
        os.write(args.tell, orjson.dumps(event) + b"\n")

    try:
        TrialRun(orjson.loads(args.request.read_bytes()), tell).run()
    except (BackendUnavailable, ModuleNotFoundError) as error:
        text = what_is_missing(error) if isinstance(error, ModuleNotFoundError) else str(error)
        tell({"event": "unfit", "error": text})
    except ComponentError as error:
        tell({"event": "error", "error": str(error), "evidence": ""})
    except Exception as error:  # noqa: BLE001 - a component may raise anything; it is what we are here to find
        evidence = "".join(traceback.format_exception(error))
        tell({"event": "error", "error": f"{type(error).__name__}: {error}", "evidence": evidence})
    leave_soon(0)


if __name__ == "__main__":
    main()
