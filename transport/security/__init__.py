"""Keys, roles, join tokens, and who is let in.

`keys` makes and reads key pairs, `tokens` the one-line secrets by which a node joins, `auth` has the allow-list and the
rights of each role, `gate` decides by both, `zap` asks it for ZeroMQ at each handshake. `ownership` tells who else may
write to a file.

Nothing is exported here: `zap` needs the reader of `sockets`, which need the keys from here.
"""
