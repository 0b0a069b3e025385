"""Attacks on another user's daemons: run as a user, it tries everything, and prints what came of it.

    python -m tests.support.other_user '{"pid": 1, "state": "…", …}'

Prints a JSON object: attempt → "done", or the name of the error.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

_PTRACE_ATTACH = 16


def attempts(victim: dict[str, Any]) -> Iterator[tuple[str, Callable[[], object]]]:
    """victim: pids, folders and addresses of the other user's daemons."""
    for role, pid in victim["pids"].items():
        proc = Path(f"/proc/{pid}")
        yield f"kill {role}", partial(os.kill, pid, signal.SIGTERM)
        yield f"trace {role}", partial(_trace, pid)
        yield f"environment of {role}", (proc / "environ").read_bytes
        yield f"memory of {role}", partial(_open, proc / "mem")
        yield f"files of {role}", partial(os.listdir, proc / "fd")
        yield f"folder of {role}", partial(os.listdir, proc / "cwd" / ".")
        yield f"command line of {role}", (proc / "cmdline").read_bytes
    state, output = Path(victim["state"]), Path(victim["output"])
    yield "list the state", partial(os.listdir, state)
    for name in ("ledger.sqlite", "master.key", "admin.key", "authorized", "tokens.json"):
        yield f"read {name}", (state / name).read_bytes
    yield "write the ledger", partial(_open, state / "ledger.sqlite")
    yield "connect to the socket", partial(_connect, victim["socket"])
    yield "remove the socket", partial(os.unlink, victim["socket"])
    yield "write beside the socket", partial(Path(victim["socket"]).with_name("mine").write_text, "")
    for folder in victim["folders"]:
        yield f"list {folder}", partial(os.listdir, folder)
    yield "read the output", lambda: [path.read_bytes() for path in output.rglob("*") if path.is_file()]
    yield "write to the output", partial((output / "mine").write_text, "")
    yield "remove a piece", lambda: os.rmdir(next((output / ".pieces").iterdir()))


def open_files(roots: list[str], owner: int) -> list[str]:
    """Whatever of `owner` this user can read or write in these folders."""
    found = []
    for root in roots:
        for folder, folders, files in os.walk(root):
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                if os.lstat(path).st_uid != owner or os.path.islink(path):
                    continue
                if os.access(path, os.W_OK) or (name in files and os.access(path, os.R_OK)):
                    found.append(path)
    return found


def _trace(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(_PTRACE_ATTACH, pid, None, None) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _open(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR))


def _connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(path)


def main() -> None:
    victim = json.loads(sys.argv[1])
    outcomes: dict[str, object] = {}
    for name, attempt in attempts(victim):
        try:
            attempt()
            outcomes[name] = "done"
        except OSError as error:
            outcomes[name] = errno.errorcode.get(error.errno or 0, str(error))
    outcomes["open"] = open_files(victim["roots"], victim["uid"])
    sys.stdout.write(json.dumps(outcomes))


if __name__ == "__main__":
    main()
