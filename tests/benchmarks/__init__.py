"""Programs that measure. Each compares at least two things in one run and prints a table, or JSON with --json."""

import os

# The AV1 encoder writes a page per video to standard error; processes that a benchmark starts inherit this.
os.environ.setdefault("SVT_LOG", "1")
