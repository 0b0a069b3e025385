"""What every process that runs components has in common: compute workers, publishing, replayed attempts.

The environment that it starts with (`arithmetic`), faults that chaos orders (`faults`), and its end (`leaving`).
"""
