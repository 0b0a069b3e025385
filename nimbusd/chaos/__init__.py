"""Chaos: a job on a cluster of its own, while faults are injected from a seed, and a verdict at the end."""

from nimbusd.chaos.plan import FaultsUnknown, Kind, parse_kinds
from nimbusd.chaos.storm import Progress, Storm, StormSettings
from nimbusd.chaos.verdict import Verdict

__all__ = ["FaultsUnknown", "Kind", "Progress", "Storm", "StormSettings", "Verdict", "parse_kinds"]
