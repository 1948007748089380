"""The core of locas-agent: an agent memory held in the weights of small side networks, one for each user."""

from locas_agent.agent import AgentMemory
from locas_agent.backbone import Backbone
from locas_agent.config import (
    AdmissionSettings,
    LocasConfig,
    MemorySettings,
    PolicySettings,
    StudySettings,
    TrainingSettings,
    WindowSettings,
)
from locas_agent.engine import Engine
from locas_agent.errors import LocasError
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.results import Consolidation, PromptTokens, Recall, Reply
from locas_agent.user import ReplyStream, UserMemory
from locas_storage import InMemoryStore, MemoryStore, Revision, SqlMemoryStore, Turn, UserKey

__all__ = [
    "AdmissionSettings",
    "AgentMemory",
    "Backbone",
    "Consolidation",
    "Engine",
    "InMemoryStore",
    "LocasConfig",
    "LocasError",
    "LocasMemory",
    "MemoryBatch",
    "MemorySettings",
    "MemoryStore",
    "PolicySettings",
    "PromptTokens",
    "Recall",
    "Reply",
    "ReplyStream",
    "Revision",
    "SqlMemoryStore",
    "StudySettings",
    "TrainingSettings",
    "Turn",
    "UserKey",
    "UserMemory",
    "WindowSettings",
]
