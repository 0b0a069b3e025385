"""SVT-AV1, where root runs it, makes the thread that opens an encoder real-time, and so all threads that this starts.

They would go before everything else on the machine, the watchdog and other jobs included, and so would every process
that such a thread starts later.
"""

from __future__ import annotations

import contextlib
import os

_REALTIME = (os.SCHED_FIFO, os.SCHED_RR)


def policy_of_caller() -> int:
    """The scheduling policy of the calling thread, to be given to `restore_policy` later."""
    return os.sched_getscheduler(0)


def restore_policy(policy: int) -> None:
    """Give `policy` to the threads of this process that have become real-time, unless it is real-time itself."""
    if policy in _REALTIME:
        return
    for thread in map(int, os.listdir("/proc/self/task")):
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            if os.sched_getscheduler(thread) in _REALTIME:
                os.sched_setscheduler(thread, policy, os.sched_param(0))
