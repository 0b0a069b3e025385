"""The contract tester: tries a component of yours or ours in processes of its own, and says what does not hold.

`nimbusctl check --component NAME` prints what `check_component` returns; `docs/extend/testing.md` shows both.
"""

from nimbusd.testing.report import LINES, ContractReport, ContractVerdict, Finding
from nimbusd.testing.tester import TestPlan, check_component

__all__ = ["LINES", "ContractReport", "ContractVerdict", "Finding", "TestPlan", "check_component"]
