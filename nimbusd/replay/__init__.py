"""Replays: one episode made again, alone and in the foreground, from its recorded seed and configuration."""

from nimbusd.replay.compare import Comparison, compare_pieces
from nimbusd.replay.configuration import configuration_changes, configuration_now, renderer_changes
from nimbusd.replay.difference import Difference, Tolerance
from nimbusd.replay.recorded import Recorded, UnknownEpisode, recorded_by_master, recorded_in_output
from nimbusd.replay.replayer import Outcome, ReplayRequest, replay_episode

__all__ = [
    "Comparison",
    "Difference",
    "Outcome",
    "Recorded",
    "ReplayRequest",
    "Tolerance",
    "UnknownEpisode",
    "compare_pieces",
    "configuration_changes",
    "configuration_now",
    "recorded_by_master",
    "recorded_in_output",
    "renderer_changes",
    "replay_episode",
]
