"""All that lets processes talk to each other: messages, the codec that packs them, sockets, keys, and the client.

| room | in it |
|---|---|
| `messages` | what nodes, clients and compute workers say, as plain data with bounds, and the protocols made of it |
| `codec` | messages as bytes, checked field by field |
| `sockets` | the master's ROUTER, the DEALER of nodes and clients, on an asyncio loop; addresses and their places |
| `security` | keys, roles, join tokens, and the gate that lets connections in |
| `client` | a master's client, for asyncio and for plain threads |
| `errors` | errors between processes, as sentences |

Nothing is exported here: whoever needs an error or a message does not load sockets.
"""
