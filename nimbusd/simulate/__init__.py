"""Clusters in virtual time: the real decisions of master and nodes, with everything around them simulated.

For tests (`storm`: faults at random, invariants at every step) and for planning capacity (`capacity`).
"""

from nimbusd.simulate.cluster import Cluster, Timing
from nimbusd.simulate.network import Weather
from nimbusd.simulate.node_model import NodeModel
from nimbusd.simulate.violation import Violation
from nimbusd.simulate.workload import DrawnWorkload, Fate, Workload, scenes_of

__all__ = [
    "Cluster",
    "DrawnWorkload",
    "Fate",
    "NodeModel",
    "Timing",
    "Violation",
    "Weather",
    "Workload",
    "scenes_of",
]
