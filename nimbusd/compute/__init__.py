"""The compute worker: the process in a slot that loads, plans, renders and stores.

It is started as `python -m nimbusd.compute.worker`, and nobody imports it: there is nothing to export. `spare` is its
life before it has a slot; `link` leads to the daemon, which sends `episode_orders` and is told the `results`; `beats`,
`progress` and `deadlines` are its signs of life.
"""
