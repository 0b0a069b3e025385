"""ZeroMQ sockets of the control protocol, on an asyncio loop.

`master_socket` has the ROUTER of a master, `dealer` the DEALER to it, which `node_link` and `client.link` give a voice;
`reader` and `monitor` are the loop's ends of a socket. `addresses`, `places` and `local_listener` say where a master
listens, and keep strangers from a Unix socket.

Nothing is exported here: whoever checks an address does not load ZeroMQ, and `security` needs the reader from here and
is needed by the sockets.
"""
