"""The core of locas-agent: an agent memory held in the weights of small side networks, one for each user.

Names are loaded when they are first used, so that what needs no model does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from locas_agent.agent import AgentMemory
    from locas_agent.backbone import Backbone
    from locas_agent.config import (
        AdmissionSettings,
        LocasConfig,
        MemorySettings,
        PolicySettings,
        StoreSettings,
        StudySettings,
        TrainingSettings,
        WindowSettings,
    )
    from locas_agent.errors import LocasError
    from locas_agent.fleet import Fleet, MemoryHost
    from locas_agent.inference import Engine
    from locas_agent.memory import LocasMemory, MemoryBatch
    from locas_agent.paper.reference import LocasModel
    from locas_agent.results import (
        ChatAnswer,
        Consolidation,
        ExplainedToken,
        Explanation,
        PromptTokens,
        Recall,
        Reply,
        ToolCall,
        UserUpgrade,
        WorkSummary,
    )
    from locas_agent.serving.generation import ChatRequest
    from locas_agent.serving.side_by_side import SideBySide
    from locas_agent.serving.streams import GenerationStream, ReplyStream
    from locas_agent.user import UserMemory
    from locas_storage import (
        ConsolidationMetrics,
        CorrectedTurn,
        FoundTurn,
        InMemoryStore,
        MemoryStore,
        Receipt,
        Revision,
        SqlMemoryStore,
        Turn,
        UserKey,
    )

_HOME = {
    "AdmissionSettings": "locas_agent.config",
    "AgentMemory": "locas_agent.agent",
    "Backbone": "locas_agent.backbone",
    "ChatAnswer": "locas_agent.results",
    "ChatRequest": "locas_agent.serving.generation",
    "Consolidation": "locas_agent.results",
    "ConsolidationMetrics": "locas_storage",
    "CorrectedTurn": "locas_storage",
    "Engine": "locas_agent.inference",
    "ExplainedToken": "locas_agent.results",
    "Explanation": "locas_agent.results",
    "Fleet": "locas_agent.fleet",
    "FoundTurn": "locas_storage",
    "GenerationStream": "locas_agent.serving.streams",
    "InMemoryStore": "locas_storage",
    "LocasConfig": "locas_agent.config",
    "LocasError": "locas_agent.errors",
    "LocasMemory": "locas_agent.memory",
    "LocasModel": "locas_agent.paper.reference",
    "MemoryBatch": "locas_agent.memory",
    "MemoryHost": "locas_agent.fleet",
    "MemorySettings": "locas_agent.config",
    "MemoryStore": "locas_storage",
    "PolicySettings": "locas_agent.config",
    "PromptTokens": "locas_agent.results",
    "Recall": "locas_agent.results",
    "Receipt": "locas_storage",
    "Reply": "locas_agent.results",
    "ReplyStream": "locas_agent.serving.streams",
    "Revision": "locas_storage",
    "SideBySide": "locas_agent.serving.side_by_side",
    "SqlMemoryStore": "locas_storage",
    "StoreSettings": "locas_agent.config",
    "StudySettings": "locas_agent.config",
    "TrainingSettings": "locas_agent.config",
    "ToolCall": "locas_agent.results",
    "Turn": "locas_storage",
    "UserKey": "locas_storage",
    "UserMemory": "locas_agent.user",
    "UserUpgrade": "locas_agent.results",
    "WindowSettings": "locas_agent.config",
    "WorkSummary": "locas_agent.results",
}

__all__ = [
    "AdmissionSettings",
    "AgentMemory",
    "Backbone",
    "ChatAnswer",
    "ChatRequest",
    "Consolidation",
    "ConsolidationMetrics",
    "CorrectedTurn",
    "Engine",
    "ExplainedToken",
    "Explanation",
    "Fleet",
    "FoundTurn",
    "GenerationStream",
    "InMemoryStore",
    "LocasConfig",
    "LocasError",
    "LocasMemory",
    "LocasModel",
    "MemoryBatch",
    "MemoryHost",
    "MemorySettings",
    "MemoryStore",
    "PolicySettings",
    "PromptTokens",
    "Recall",
    "Receipt",
    "Reply",
    "ReplyStream",
    "Revision",
    "SideBySide",
    "SqlMemoryStore",
    "StoreSettings",
    "StudySettings",
    "ToolCall",
    "TrainingSettings",
    "Turn",
    "UserKey",
    "UserMemory",
    "UserUpgrade",
    "WindowSettings",
    "WorkSummary",
]


def __getattr__(name: str) -> Any:
    """Load a public name from the module that owns it."""
    if name not in _HOME:
        raise AttributeError(f"module 'locas_agent' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
