"""The node: a daemon that runs compute workers in its slots, and its link to a master.

`node` is the shell around the state machines of `nimbusd.core.node`, `server` the node on a network, `slots` the places
for workers, `processes` the workers' processes, `folders` the places for files, `environment` what it is made of.
Names are imported from these modules: this file imports none, so that who asks for slots alone loads no sockets.
"""
