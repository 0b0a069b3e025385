"""The compute worker: the process in a slot that loads, plans, renders and stores.

It is started as `python -m nimbusd.compute.worker`, and nobody imports it: there is nothing to export. `spare` is what
it does before it has a slot, `leases` and `link` its side of the talk with the daemon, `beats`, `progress` and
`deadlines` its signs of life.
"""
