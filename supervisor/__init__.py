"""The supervisor: compute workers as processes, the heartbeat page that they beat on, and the watchdog that kills them.

`watch` is the daemon's side, `watchdog` the process that looks at the `page` and kills a `target`. Names are imported
from the modules: this file imports none, since the watchdog, which imports it, shall load little.
"""
