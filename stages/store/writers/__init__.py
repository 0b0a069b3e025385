"""Writers whose format is chosen by name. Formats with arguments of their own have their writer in their folder."""

from nimbusd.stages.store.writers.base import ChosenFormatArgs, DatasetWriter
from nimbusd.stages.store.writers.env import EnvWriter, EnvWriterArgs
from nimbusd.stages.store.writers.nav import NavWriter, NavWriterArgs

__all__ = ["ChosenFormatArgs", "DatasetWriter", "EnvWriter", "EnvWriterArgs", "NavWriter", "NavWriterArgs"]
