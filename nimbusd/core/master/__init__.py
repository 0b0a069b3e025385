"""Decisions of the master: messages and facts in, orders out, time as a value."""
