"""The master's decisions: who works on which episodes, and what becomes of them.

`scheduler.Scheduler` is the machine. It is put together from `tasks` (jobs, leases and episodes: the paper's
TaskManager), `nodes` (who is alive: its WorkerManager), `grants` (the lease policy: who gets what), `balance`
(splits and copies when nothing is pending), `alike` (jobs that cannot go well) and `waiting` (why nothing moves).
`facts` has what no message carries, `open_jobs` and `scenes` the tables, `publishing` when a dataset is written.
Nothing is exported here: `nimbusctl` needs a constant of `nodes` and none of the machine.
"""
