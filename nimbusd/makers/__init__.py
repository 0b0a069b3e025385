"""Makers: the processes that run components, which are compute workers, publishing and replayed attempts.

The room holds what they share: the environment that they start with (`arithmetic`), faults that chaos orders
(`faults`), and their end (`leaving`).
"""

from nimbusd.makers.arithmetic import MAKER_ENVIRONMENT, maker_environment
from nimbusd.makers.leaving import LEAVE_S, leave_soon

__all__ = ["LEAVE_S", "MAKER_ENVIRONMENT", "leave_soon", "maker_environment"]
