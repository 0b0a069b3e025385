"""Manipulation: workflows, and the components that drive them."""

from nimbusd.stages.packing import pack, unpack
from nimbusd.stages.workflow.base import NimbusWorkFlow, Workflow, register
from nimbusd.stages.workflow.env import EnvScene, EnvSession, ScenePlace
from nimbusd.stages.workflow.env_components import EnvLoader, EnvPlanner, EnvRandomizer, EnvRenderer
from nimbusd.stages.workflow.registry import create_workflow, workflow_class, workflow_names

__all__ = [
    "EnvLoader",
    "EnvPlanner",
    "EnvRandomizer",
    "EnvRenderer",
    "EnvScene",
    "EnvSession",
    "NimbusWorkFlow",
    "ScenePlace",
    "Workflow",
    "create_workflow",
    "pack",
    "register",
    "unpack",
    "workflow_class",
    "workflow_names",
]
