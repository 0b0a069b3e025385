"""Programs that measure. Each compares at least two things in one run and prints a table, or JSON with --json."""

import os
from pathlib import Path

# The AV1 encoder writes a page per video to standard error; processes that a benchmark starts inherit this.
os.environ.setdefault("SVT_LOG", "1")
# Processes that make episodes import nothing from the current folder; the benchmarks' components are in here.
_REPOSITORY = str(Path(__file__).parent.parent.parent)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_REPOSITORY, os.environ.get("PYTHONPATH")]))
