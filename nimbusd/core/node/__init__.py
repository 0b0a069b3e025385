"""A node's decisions: which compute worker makes which episode, who must die, and what the master is told.

`machine.NodeMachine` answers for leases: it keeps every outcome (`held`) until the master has acknowledged it, and
says how much can be taken (`heartbeats`). `staff` gives jobs, roles and episodes to compute workers, by the policy
of `roles`, the rates of `split` and the measurements of `pace`; `backlog` holds plans, `recycle` tells leaks from
caches. `pool.WorkerPool` is a second machine beside it, for processes: when one starts, is warm, and must be
killed. `facts` and `pool_facts` have what no message carries. Nothing is exported here: compute workers need
`split` alone.
"""
