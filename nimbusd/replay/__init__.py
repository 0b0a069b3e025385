"""Replays: one episode made again, alone and in the foreground, from its recorded seed and configuration."""

from nimbusd.replay.compare import Comparison, compare_pieces
from nimbusd.replay.recorded import Recorded, UnknownEpisode, recorded_by_master, recorded_in_output
from nimbusd.replay.replayer import Outcome, ReplayRequest, replay_episode

__all__ = [
    "Comparison",
    "Outcome",
    "Recorded",
    "ReplayRequest",
    "UnknownEpisode",
    "compare_pieces",
    "recorded_by_master",
    "recorded_in_output",
    "replay_episode",
]
