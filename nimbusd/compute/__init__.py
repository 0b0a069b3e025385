"""The compute worker: the process in a slot that loads, plans, renders and stores."""
