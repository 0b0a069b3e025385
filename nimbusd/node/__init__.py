"""The node: a daemon that runs compute workers in its slots, and its link to a master."""
