"""The node: a daemon that runs compute workers in its slots, and its link to a master.

`node` is the shell around the state machines of `nimbusd.core.node`; `networked` is a node with its link to the master
that it has joined (`joining`). `slots` are the places for workers, `workers` those who are in them now, with their
`processes` and the `workers_socket`; `jobs` is what the master has told of jobs, `folders` are the places for files,
`unfinished` the pieces that were begun, and `environment` is what the node is made of. Names are imported from these
modules: this file imports none, so that who asks for slots alone loads no sockets.
"""
