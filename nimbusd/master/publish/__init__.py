"""Publishing: from committed pieces to a dataset, in a process of its own."""
