"""Summaries and pictures of datasets: the contact sheet and what it is made of."""

from nimbusd.show.contact_sheet import draw_sheet
from nimbusd.show.dataset import Summary, episode_view, sample, summarize
from nimbusd.show.floor_map import TopDownMap, floor_map
from nimbusd.show.view import EpisodeView, RoomOutline

__all__ = [
    "EpisodeView",
    "RoomOutline",
    "Summary",
    "TopDownMap",
    "draw_sheet",
    "episode_view",
    "floor_map",
    "sample",
    "summarize",
]
