"""nimbusd makes embodied synthetic data: load, plan, render and store episodes, exactly once."""

__version__ = "0.1.0"
