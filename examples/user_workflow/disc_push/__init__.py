"""Pushing a disc over a table: a workflow in a package of its own."""
