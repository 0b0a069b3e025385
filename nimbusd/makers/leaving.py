"""The end of a process that ran components, whatever threads they left behind."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time

log = logging.getLogger(__name__)

LEAVE_S = 5.0
"""The time that a process may take to end once its work is done: for threads that go on, and libraries at exit."""


def leave_soon(status: int, within_s: float = LEAVE_S) -> None:
    """See to it that this process ends with `status` within `within_s`. Its caller goes on to end it in the usual way.

    The interpreter waits for every thread that is no daemon, and a component may have left one that never ends.
    """
    threading.Thread(target=_end, args=(status, within_s), name="leaving", daemon=True).start()


def _end(status: int, within_s: float) -> None:
    time.sleep(within_s)
    usual = (threading.current_thread(), threading.main_thread())
    left = [thread.name for thread in threading.enumerate() if thread not in usual and not thread.daemon]
    log.warning("ended after %g s, with threads that a component left: %s", within_s, ", ".join(left) or "none")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
