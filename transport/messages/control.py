"""The control protocol: messages between nodes, clients and the master.

Frozen dataclasses, packed by `codec`. Every message is safe to repeat, lose and reorder across reconnects: leases
have numbers, commits are acknowledged, and a node's heartbeat says all that it holds.
"""

from __future__ import annotations

import typing
from typing import Any, TypeAlias

from nimbusd.transport.codec.codec import Codec
from nimbusd.transport.messages.client import (
    Cancel,
    Done,
    DrainNode,
    Events,
    FailureList,
    FailureReport,
    Failures,
    Forget,
    JobDetail,
    JobList,
    JobReport,
    Jobs,
    JobSummary,
    MakeToken,
    NodeList,
    Nodes,
    NodeSummary,
    Refused,
    Relocate,
    Repair,
    Retry,
    SceneReport,
    Submit,
    Token,
    Watch,
)
from nimbusd.transport.messages.failures import Failure, FailureKind
from nimbusd.transport.messages.node import (
    Ack,
    Bye,
    CannotRun,
    Commit,
    Drain,
    Enrol,
    Enrolled,
    Fail,
    GiveBack,
    GpuLoad,
    Heartbeat,
    Hello,
    JobSpec,
    Lease,
    Load,
    NeedJob,
    PipelineReport,
    Revoke,
    Running,
    SayHello,
    Stop,
    Stored,
    Welcome,
)

__all__ = [
    "CODEC",
    "FROM_NODE",
    "MAX_JOB_BYTES",
    "MAX_LEASE_BYTES",
    "MESSAGES",
    "PROTOCOL_VERSION",
    "REQUESTS",
    "TO_NODE",
    "Ack",
    "Bye",
    "Cancel",
    "CannotRun",
    "Commit",
    "Done",
    "Drain",
    "DrainNode",
    "Enrol",
    "Enrolled",
    "Enrolment",
    "Events",
    "Fail",
    "Failure",
    "FailureKind",
    "FailureList",
    "FailureReport",
    "Failures",
    "Forget",
    "FromNode",
    "GiveBack",
    "GpuLoad",
    "Heartbeat",
    "Hello",
    "JobDetail",
    "JobList",
    "JobReport",
    "JobSpec",
    "JobSummary",
    "Jobs",
    "Lease",
    "Load",
    "MakeToken",
    "Message",
    "NeedJob",
    "NodeList",
    "NodeSummary",
    "Nodes",
    "PipelineReport",
    "Refused",
    "Relocate",
    "Repair",
    "Reply",
    "Request",
    "Retry",
    "Revoke",
    "Running",
    "SayHello",
    "SceneReport",
    "Stop",
    "Stored",
    "Submit",
    "ToNode",
    "Token",
    "Watch",
    "Welcome",
    "decode",
    "encode",
]

PROTOCOL_VERSION = 3
MAX_LEASE_BYTES = 4096
"""A node loads the rest of a scene from storage (lazy context)."""
MAX_JOB_BYTES = 16 << 20
"""Of what holds a job with thousands of scenes, or an answer to a client with a row for each of 10,000 nodes."""

FromNode: TypeAlias = Hello | Heartbeat | Commit | Fail | GiveBack | CannotRun | NeedJob | Bye
ToNode: TypeAlias = Welcome | SayHello | JobSpec | Lease | Ack | Revoke | Drain | Stop | Refused
Request: TypeAlias = (
    Submit
    | Jobs
    | JobDetail
    | Cancel
    | Retry
    | Repair
    | Forget
    | Relocate
    | Failures
    | Nodes
    | DrainNode
    | Watch
    | MakeToken
)
Reply: TypeAlias = Done | Refused | JobList | JobReport | FailureList | NodeList | Events | Token
Enrolment: TypeAlias = Enrol | Enrolled
Message: TypeAlias = FromNode | ToNode | Request | Reply | Enrolment

MESSAGES: tuple[type[Any], ...] = typing.get_args(Message)
TO_NODE: tuple[type[Any], ...] = typing.get_args(ToNode)
FROM_NODE: tuple[type[Any], ...] = typing.get_args(FromNode)
REQUESTS: tuple[type[Any], ...] = typing.get_args(Request)

CODEC: Codec[Message] = Codec(
    MESSAGES,
    version=PROTOCOL_VERSION,
    limits={Lease: MAX_LEASE_BYTES}
    | dict.fromkeys((Submit, JobSpec, JobList, JobReport, FailureList, NodeList, Events), MAX_JOB_BYTES),
    any_version=(Refused,),
)


def encode(message: Message) -> bytes:
    """Pack a message. Raises MessageError, which names the scene, if a Lease is larger than MAX_LEASE_BYTES."""
    return CODEC.encode(message)


def decode(frame: bytes) -> Message:
    """Unpack and check a message. Raises VersionError or another MessageError for anything that is not one.

    A Refused is understood whatever version the peer speaks.
    """
    return CODEC.decode(frame)
