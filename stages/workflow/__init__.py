"""Manipulation: workflows, and the components that drive them."""

from nimbusd.stages.packing import pack, unpack
from nimbusd.stages.workflow.base import Workflow
from nimbusd.stages.workflow.env import EnvScene, EnvSession, Place
from nimbusd.stages.workflow.env_components import EnvLoader, EnvPlanner, EnvRandomizer, EnvRenderer
from nimbusd.stages.workflow.registry import create_workflow, known_workflows, workflow_class

NimbusWorkFlow = Workflow
"""The base class by the name that it has in the open-source engine, so that a moved workflow changes one import."""

register = Workflow.register

__all__ = [
    "EnvLoader",
    "EnvPlanner",
    "EnvRandomizer",
    "EnvRenderer",
    "EnvScene",
    "EnvSession",
    "NimbusWorkFlow",
    "Place",
    "Workflow",
    "create_workflow",
    "known_workflows",
    "pack",
    "register",
    "unpack",
    "workflow_class",
]
