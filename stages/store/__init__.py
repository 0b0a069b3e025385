"""Storing: durable pieces of episodes, datasets published from them in several formats, reading and checking these.

Names are imported when they are asked for, since many need one small module of this package, and few need pyarrow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nimbusd.stages.store.columns import Column
    from nimbusd.stages.store.content import checked_frames, kept_states, state_columns
    from nimbusd.stages.store.durable import to_json, to_json_lines
    from nimbusd.stages.store.media import MediaArgs
    from nimbusd.stages.store.piece import PieceDraft, draft_piece
    from nimbusd.stages.store.publish import Tree, publish_pieces, shared_columns, write_nimbusd_metadata
    from nimbusd.stages.store.read import Dataset, open_dataset
    from nimbusd.stages.store.record import RECORD, episode_record, record_bytes
    from nimbusd.stages.store.source_piece import SourcePiece
    from nimbusd.stages.store.stats import vector_stats
    from nimbusd.stages.store.stored_tree import StoredEpisode, StoredTree
    from nimbusd.stages.store.verify.verify import verify_dataset

_MODULES = {
    "columns": ("Column",),
    "content": ("checked_frames", "kept_states", "state_columns"),
    "durable": ("to_json", "to_json_lines"),
    "media": ("MediaArgs",),
    "piece": ("PieceDraft", "draft_piece"),
    "publish": ("Tree", "publish_pieces", "shared_columns", "write_nimbusd_metadata"),
    "read": ("Dataset", "open_dataset"),
    "record": ("RECORD", "episode_record", "record_bytes"),
    "source_piece": ("SourcePiece",),
    "stats": ("vector_stats",),
    "stored_tree": ("StoredEpisode", "StoredTree"),
    "verify.verify": ("verify_dataset",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
__all__ = [
    "RECORD",
    "Column",
    "Dataset",
    "MediaArgs",
    "PieceDraft",
    "SourcePiece",
    "StoredEpisode",
    "StoredTree",
    "Tree",
    "checked_frames",
    "draft_piece",
    "episode_record",
    "kept_states",
    "open_dataset",
    "publish_pieces",
    "record_bytes",
    "shared_columns",
    "state_columns",
    "to_json",
    "to_json_lines",
    "vector_stats",
    "verify_dataset",
    "write_nimbusd_metadata",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
