"""Checking datasets on disk: what every format has, and whether pictures show the motion that states tell of."""

from nimbusd.stages.store.verify.verify import verify_dataset

__all__ = ["verify_dataset"]
