"""Publishing in a process of its own: what a large dataset takes in memory and time is no burden of its master.

Started as `python -m nimbusd.master.publish_apart PARENT`; reads one JSON object, publishes, and answers with one.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import orjson

from nimbusd.job import Job
from nimbusd.master.ledger import Ledger
from nimbusd.master.output import publish_job
from nimbusd.stages.errors import NimbusError, StoreError
from nimbusd.supervisor.prctl import die_with_parent


async def publish_apart(job: Job, ledger: Path, *, final: bool) -> tuple[Path | None, int]:
    """`publish_job`, in a process that ends with us. Raises StoreError if it cannot be written, or is killed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nimbusd.master.publish_apart", str(os.getpid())),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # a terminal's signals are for us, and we end it
    )
    try:
        answer, _ = await process.communicate(
            orjson.dumps({"job": job.to_dict(), "ledger": str(ledger), "final": final})
        )
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode or not answer:
        raise StoreError(
            f"cannot publish the dataset in {job.output}: the process that did it ended with status "
            f"{process.returncode}. Its last words are in the log."
        )
    told = orjson.loads(answer)
    if "error" in told:
        raise StoreError(told["error"])
    return Path(told["dataset"]) if told["dataset"] is not None else None, int(told["episodes"])


def main() -> int:
    die_with_parent(int(sys.argv[1]))
    answers = os.dup(1)
    os.dup2(2, 1)  # what components print is no answer
    request = orjson.loads(sys.stdin.buffer.read())
    job = Job.from_dict(request["job"])
    try:
        with Ledger.read(Path(request["ledger"])) as ledger:
            dataset, episodes = publish_job(job, job.output, ledger, final=request["final"])
        answer = {"dataset": None if dataset is None else str(dataset), "episodes": episodes}
    except NimbusError as error:
        answer = {"error": str(error)}
    with os.fdopen(answers, "wb") as out:
        out.write(orjson.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
