"""Messages, and what packs them.

`node` (between nodes and the master), `worker` (between a node and its compute workers) and `client` are plain
values with bounds (`bounds`), `failures` is part of several; the core takes and orders them as they are, and they
import nothing but its ids. `control` and `local` are the two protocols that they travel by: tables of messages with
a version, which pack and unpack. Nothing is exported here: who takes the values does not need the tables.
"""
