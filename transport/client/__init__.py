"""The client of a master: `async_client` on an asyncio loop, `blocking_client` with such a loop in a thread of its own.

`requests` numbers what is asked and sends it again, `follow` goes on with events after an absence, `link` is the
connection, `settings` finds master and keys.

Nothing is exported here: `nimbusd.client` does that, for all programs.
"""
