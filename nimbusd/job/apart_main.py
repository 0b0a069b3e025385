"""The process that `nimbusd.job.apart` starts: `python -P -m nimbusd.job.apart_main PARENT`.

Reads one JSON object, and answers with one.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nimbusd.job.check import check_job
from nimbusd.job.problems import JobError, Problem
from nimbusd.job.reader import load_job
from nimbusd.stages.errors import NimbusError
from nimbusd.supervisor.prctl import die_with_parent


def main() -> None:
    """Answer one request, and end, whatever threads and exit handlers components have left behind."""
    die_with_parent(int(sys.argv[1]))
    answers = os.dup(1)
    os.dup2(2, 1)  # what components print is no answer
    faulthandler.enable()
    request = json.loads(sys.stdin.buffer.read())
    left_s = request["ends"] - time.monotonic()
    faulthandler.dump_traceback_later(max(0.8 * left_s, 0.01))  # for the last words of what hangs
    answer = json.dumps(_answer(request)).encode()
    with os.fdopen(answers, "wb") as out:
        out.write(answer)
    os._exit(0)


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    def told(problems: Iterable[Problem]) -> list[tuple[str, str]]:
        return [(problem.where, problem.text) for problem in problems]

    output = None if request["output"] is None else Path(request["output"])
    try:
        loaded = load_job(Path(request["path"]), output=output, overrides=request["overrides"])
        findings = check_job(loaded, deep=request["deep"])
    except JobError as error:
        return {"problems": told(error.problems)}
    except NimbusError as error:  # a component cannot be made of its arguments
        return {"problems": [(request["path"], str(error))]}
    pipeline = loaded.source.value["pipeline"]
    return {
        "job": loaded.job.to_dict(),
        "errors": told(findings.errors),
        "warnings": told(findings.warnings),
        "written": {kind: pipeline[kind].get("args") or {} for kind in loaded.job.stages},
        "output_at": loaded.where("output"),
    }


if __name__ == "__main__":
    main()
