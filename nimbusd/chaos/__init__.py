"""Chaos: a job on a cluster of its own, while faults are injected from a seed, and a verdict at the end."""

from nimbusd.chaos.plan import FaultsUnknown, Kind, parse_kinds
from nimbusd.chaos.run import ChaosProgress, ChaosRun, ChaosSettings
from nimbusd.chaos.verdict import ChaosVerdict

__all__ = ["ChaosProgress", "ChaosRun", "ChaosSettings", "ChaosVerdict", "FaultsUnknown", "Kind", "parse_kinds"]
