"""Importing this never ends: it waits for a thread that waits for this very import."""

from __future__ import annotations

import importlib
import threading

_waiting = threading.Thread(target=importlib.import_module, args=(__name__,), daemon=True)
_waiting.start()
_waiting.join()
