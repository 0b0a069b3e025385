"""The decisions of the master and of a node, without input or output.

Two state machines, `master.scheduler.Scheduler` and `node.machine.NodeMachine`. Each takes facts in and gives
orders out; time is a value that comes along. Messages (`transport.messages`) are both: what one machine orders is
what the other takes, as it stands.

The driver of a machine is a shell (`nimbusd.master.master`, `nimbusd.node.node`; in tests and in `nimbusctl
simulate` a virtual one). Its duties, in this order:

1. Give every fact to `handle(fact, now)`, as it comes: a message, the end of a process, somebody's wish.
2. Call `settle(now)` once for the facts of a turn, and also when none came, a few times a second: deadlines pass,
   jobs that were paused go on, leases are split. Both calls return orders; keep them in order.
3. Durable before sent. Of the master's orders make the ledger entries (`Record`, `LeaseOpened`, `LeaseClosed`,
   `JobRecorded`) durable first, in one transaction. Only then carry out the others, in order: nothing is leased or
   acknowledged that a crash could forget. A node keeps nothing durable but pieces, which are so before they are told.
4. Lose nothing silently. Messages may be lost, repeated and reordered: the machines tell again what was not
   acknowledged, and take stale news for what it is. Orders must not be lost: a shell that cannot carry one out ends.

What the messages mean to the machines:

- `Hello`: a node is there, with so many slots and this environment; a new session means that it was started anew.
- `Heartbeat`: what a node holds and is at, and how many episodes it can take beyond that.
- `Commit`: pieces of a lease are durable. It is told again until acknowledged.
- `Fail`: an attempt came to nothing, and why. It is told again until acknowledged.
- `GiveBack`: episodes of a lease that have not begun, and will not. It is told again until acknowledged.
- `CannotRun`: a job's components cannot be made on a node.
- `Bye`: a node leaves and holds nothing.
- `Welcome`: the master knows the node; it may have forgotten what it was told last.
- `SayHello`: the master does not know a node that speaks, or took it for lost.
- `Lease`: make these episodes, under this number.
- `Revoke`: give back what has not begun of these, or stop what has.
- `Ack`: these episodes are settled in the ledger; pieces that are refused are garbage.
- `Drain`: finish what has begun and take nothing new, or go on again.
- `WorkerPulls`, `Beat`, `EpisodePlanned`, `EpisodeStored`, `AttemptFailed`, `WorkerReturns`: what a compute worker
  says.
- `MakeEpisode`: what it is told to do.

`ids` has the names of all these, `records` what the ledger remembers. Nothing is exported here: messages import
`ids`, and the rest imports messages.
"""
