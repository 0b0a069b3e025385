"""Between the words of the state machines and the messages of the control protocol, in both directions.

Text of nodes, which is made of what users' programs print, is cut to its bounds and rid of control characters by who
sends it, so that no message is malformed for its length, and again by who gets it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

from nimbusd.core.ids import EpisodeKey, JobId, LeaseId, NodeId, Span
from nimbusd.core.master import facts as f
from nimbusd.core.node.facts import NodeFact, Told
from nimbusd.transport.messages import control as c
from nimbusd.transport.messages.bounds import (
    MOST_DETAIL,
    MOST_EVIDENCE,
    MOST_REASON,
    MOST_SECONDS,
    plain_line,
    plain_text,
)

FromNodeFact: TypeAlias = f.HeartbeatSeen | f.AttemptFailed | f.EpisodesReturned | f.NodeSeen | f.NodeUnfit | f.NodeLeft


def fact_from_node(message: c.FromNode) -> FromNodeFact | None:
    """What a node's message tells the scheduler; None for one that is the shell's affair."""
    match message:
        case c.Heartbeat():
            held = tuple(LeaseId(lease) for lease in message.held)
            running = tuple(f.RunningEpisode(LeaseId(r.lease), r.index, r.elapsed_s) for r in message.running)
            return f.HeartbeatSeen(NodeId(message.node), message.session, message.seq, message.credit, held, running)
        case c.Fail():
            return f.AttemptFailed(
                NodeId(message.node),
                LeaseId(message.lease),
                message.attempt,
                EpisodeKey(JobId(message.job), message.scene, message.index),
                plain_line(message.stage, MOST_REASON),
                plain_line(message.reason, MOST_REASON),
                plain_text(message.detail, MOST_DETAIL),
                plain_text(message.evidence, MOST_EVIDENCE),
                message.cost_s,
                message.planned,
                message.final,
                message.blameless,
            )
        case c.GiveBack():
            return f.EpisodesReturned(NodeId(message.node), LeaseId(message.lease), message.indexes)
        case c.CannotRun(node, job, error):
            return f.NodeUnfit(NodeId(node), JobId(job), plain_text(error, MOST_DETAIL))
        case c.Hello():
            name, packages = NodeId(message.node), message.packages
            return f.NodeSeen(name, message.session, message.environment, message.slots, packages)
        case c.Bye():
            return f.NodeLeft(NodeId(message.node), message.session, plain_text(message.why, MOST_DETAIL))
        case c.NeedJob() | c.Commit():
            return None


def pieces_from_node(message: c.Commit) -> f.PiecesStored:
    """What a node says that it has stored."""
    stored = message.stored
    pieces = tuple(
        f.StoredPiece(s.index, s.folder, s.frames, s.size_bytes, s.digest, s.cost_s, s.timings_s) for s in stored
    )
    lease, job = LeaseId(message.lease), JobId(message.job)
    return f.PiecesStored(NodeId(message.node), lease, job, message.scene, message.attempt, pieces)


def message_to_node(order: f.GrantLease | f.RevokeLease | f.Acknowledge, entry: Mapping[str, Any]) -> c.ToNode:
    """An order as a message. entry: the lease's scene as the job has it."""
    match order:
        case f.GrantLease():
            spans = tuple((span.start, len(span)) for span in order.spans)
            return c.Lease(order.lease, order.job, order.scene, order.attempt, spans, dict(entry), order.careful)
        case f.RevokeLease():
            return c.Revoke(order.lease, order.indexes, order.kill)
        case f.Acknowledge():
            return c.Ack(order.lease, order.indexes, order.refused)


def fact_from_master(message: c.Lease | c.Revoke | c.Ack, node: NodeId) -> NodeFact:
    """What the master's message tells the node's machine."""
    lease = LeaseId(message.lease)
    match message:
        case c.Lease():
            spans = tuple(Span(start, start + count) for start, count in message.spans)
            return f.GrantLease(node, lease, JobId(message.job), message.scene, message.attempt, spans, message.careful)
        case c.Revoke():
            return f.RevokeLease(node, lease, message.indexes, message.kill)
        case c.Ack():
            return f.Acknowledge(node, lease, message.indexes, message.refused)


def message_to_master(told: Told, running_stages: Mapping[tuple[LeaseId, int], str], load: c.Load | None) -> c.FromNode:
    """What the node's machine tells the master, as a message."""
    match told:
        case f.HeartbeatSeen():
            running = tuple(
                c.Running(r.lease, r.index, running_stages.get((r.lease, r.index), ""), r.elapsed_s)
                for r in told.running
            )
            pipelines = tuple(c.PipelineReport(**dataclasses.asdict(seen)) for seen in told.pipelines)
            return c.Heartbeat(told.node, told.session, told.seq, told.credit, told.held, running, load, pipelines)
        case f.PiecesStored():
            stored = tuple(
                c.Stored(p.index, p.folder, p.frames, p.size_bytes, p.digest, p.cost_s, dict(p.timings_s))
                for p in told.stored
            )
            return c.Commit(told.node, told.lease, told.job, told.scene, told.attempt, stored)
        case f.AttemptFailed():
            key = told.key
            return c.Fail(
                told.node,
                told.lease,
                key.job,
                key.scene,
                told.attempt,
                key.index,
                plain_line(told.stage, MOST_REASON),
                plain_line(told.reason, MOST_REASON),
                plain_text(told.detail, MOST_DETAIL),
                plain_text(told.evidence, MOST_EVIDENCE),
                min(told.cost_s, MOST_SECONDS),
                told.planned,
                told.final,
                told.blameless,
            )
        case f.EpisodesReturned():
            return c.GiveBack(told.node, told.lease, told.indexes)
