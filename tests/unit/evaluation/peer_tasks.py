"""Training tasks, neutral text and prompts for the tests of the peers, on the tiny random backbone."""

from __future__ import annotations

import torch

from locas_agent.backbone import Backbone
from locas_agent.config import LocasConfig, TrainingSettings
from locas_agent.conversation.messages import question
from locas_agent.evaluation.baselines.peer import AdapterPeer, AdapterState
from locas_agent.inference import Engine
from locas_agent.inference.generation import TopK
from locas_agent.study.items import NEGATIVE, QUESTION, Item
from locas_agent.training.neutral import NeutralText, bare_examples
from locas_agent.training.sampling.builder import TrainingTask

CONFIG = LocasConfig(training=TrainingSettings(max_steps=24, items_per_step=4))
PROMPTS = ("Where?", "Which dog do I have?", "Who", "A longer prompt, so that the shorter ones are padded.")


def neutral_text(engine: Engine) -> NeutralText:
    rows = [
        engine.backbone.encode(text) for text in ("Rain falls on hills.", "Two and two are four.", "Ships carry grain.")
    ]
    examples = bare_examples(engine, rows, top_k=8)
    return NeutralText(tuple(examples[:2]), tuple(examples[2:]), (tuple(question("Hello.")),))


def training_task(engine: Engine, answers: dict[str, str]) -> TrainingTask:
    """Items and one negative, with a teacher that is sure of each answer token; a random backbone could not be that."""
    items = []
    for at, (asked, answer) in enumerate([*answers.items(), ("Age?", "?")]):
        ending = (*engine.backbone.encode(answer), engine.backbone.end_id)
        ids = torch.tensor([[token, (token + 1) % 256] for token in ending], dtype=torch.int32)
        teacher = TopK(ids, torch.tensor([[-0.02, -5.0]]).expand(len(ending), 2))
        items.append(
            Item(f"{at:032x}", NEGATIVE if asked == "Age?" else QUESTION, 1, 2, 1, asked, answer, ending, teacher)
        )
    return TrainingTask(tuple(items), (), (), None)


def two_users(peer: AdapterPeer, engine: Engine) -> tuple[AdapterState, AdapterState]:
    """What the peer learnt of two users who told different things."""
    told = ({"Dog?": "Rex", "City?": "Oslo"}, {"Dog?": "Ada", "City?": "Rome"})
    first, second = (peer.train(training_task(engine, answers)).state for answers in told)
    return first, second


def chats(backbone: Backbone) -> list[list[int]]:
    return [backbone.encode_chat(question(text)) for text in PROMPTS]


def same(one: AdapterState, other: AdapterState) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
