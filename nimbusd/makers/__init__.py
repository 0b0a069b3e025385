"""Makers: the processes that run components, which are compute workers, publishing and replayed attempts.

The room holds what they share: the environment that they start with (`arithmetic`), faults that chaos orders
(`faults`), and their end (`leaving`).
"""
