"""Layouts of a task: things are drawn and placed, cameras and words follow from them, and the result is tried."""

from nimbusd.stages.workflow.sim.randomize.draw import draw_layout, randomize_layout

__all__ = ["draw_layout", "randomize_layout"]
