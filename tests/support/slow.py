"""Tests that take long and prove what quicker ones show: `make test-all` runs them, and so does naming them by `::`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

slow = pytest.mark.slow


def quick_first(values: Iterable[Any], quick: int = 1) -> list[Any]:
    """For `parametrize`: the first `quick` cases are tried each time, the others with the tests that take long."""
    return [
        value if number < quick else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=slow)
        for number, value in enumerate(values)
    ]
