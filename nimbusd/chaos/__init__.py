"""Chaos: a job on a cluster of its own, while faults are injected from a seed, and a verdict at the end."""
