"""Decisions of a node: which worker makes what, who must die, what the master is told."""
