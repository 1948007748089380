"""Measure drift: how much memories change the predictions on text that has nothing to do with them.

The text is never trained on: dialogues of strangers, drawn from the generator with seeds of their own, and a page of
ordinary prose.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from locas_agent.conversation.messages import Message, exchange, session_header
from locas_agent.evaluation.synthetic.people import DO_NOT_KNOW, make_person, small_reply, small_talk
from locas_agent.evaluation.synthetic.relations import FIXED_FACTS
from locas_agent.evaluation.synthetic.values import HELD
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch

STRANGERS = 12
ROW_TOKENS = 256

PROSE = (
    "The ferry left the island a little after seven, when the light was still thin and the gulls had not yet begun to "
    "quarrel "
    "over the nets. On the upper deck a woman in a long coat was reading a newspaper that was three days old, turning "
    "each "
    "page with the care of somebody who has nothing else to do until noon. Behind her the village grew small: first "
    "the "
    "houses, then the church, at last only the white line of the harbour wall, where two boys were still waving at "
    "nobody in "
    "particular.\n\n"
    "It had been a hard winter. The road over the pass had closed in November and opened again only in the first days "
    "of "
    "April, and in between the post had come by boat or not at all. People had learned to bake with less sugar and to "
    "read "
    "the same books twice. The schoolmaster, who kept a record of the weather, wrote down forty-one days of storm, and "
    "underlined the last of them. Nobody complained much. They said that a winter is a winter, and that the spring "
    "would be "
    "the greener for it.\n\n"
    "By the time the ferry reached the open water the wind had turned. The captain, a short man with a grey moustache, "
    "came "
    "out of the wheelhouse and looked at the sky for a while without saying anything. Then he went back in, and the "
    "sound of "
    "the engine changed. The passengers felt it before they heard it: a slower beat, a longer roll. Someone laughed; "
    "someone "
    "else took hold of the rail. The woman folded her newspaper, put it under her arm, and watched the first dark "
    "patches of "
    "rain move towards them over the sea, as calmly as if she had paid to see them."
)
"""A page of ordinary prose, written for this measurement."""


def neutral_rows(engine: Engine, *, seed: int) -> list[list[int]]:
    """Return token rows of neutral text.

    Strangers who tell facts and are asked, general questions, small talk, prose.
    """
    rng = Random(f"drift:{seed}")
    backbone = engine.backbone
    rows = []
    for _ in range(STRANGERS):
        person = make_person(rng, sessions=1, facts_per_session=3, split=HELD)
        messages: list[Message] = [session_header(person.sessions[0].at)]
        messages += [{"role": line.role, "content": line.text} for line in person.sessions[0].lines]
        for fact in person.facts:
            messages += exchange(rng.choice(fact.relation.asked_held), f"It is {fact.value}.")
        messages += exchange(rng.choice(person.unknown[0].asked_held), DO_NOT_KNOW)
        rows.append(backbone.encode_chat(messages, generation_prompt=False))
    for text, value in rng.sample(FIXED_FACTS, 8):
        rows.append(backbone.encode_chat(exchange(text, f"It is {value}."), generation_prompt=False))
    for _ in range(4):
        talk = [line for _ in range(4) for line in (small_talk(rng, HELD), small_reply(rng))]
        rows.append(
            backbone.encode_chat([{"role": line.role, "content": line.text} for line in talk], generation_prompt=False)
        )
    prose = backbone.encode(PROSE)
    rows += [prose[start : start + ROW_TOKENS] for start in range(0, len(prose), ROW_TOKENS)]
    return [row[: backbone.context_tokens] for row in rows if len(row) >= 2]


@torch.inference_mode()
def drift(engine: Engine, memories: Sequence[LocasMemory], rows: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Return mean and 99th percentile of KL(bare backbone || with memory) per token, full vocabulary, in nats.

    What lies below the lowest layer of all memories is run once for each row of text.
    """
    first = engine.backbone.n_layers + min(layer for memory in memories for layer in memory.layers)
    found: list[Tensor] = []
    for row in rows:
        ids = torch.tensor([row], device=engine.backbone.device)
        states = engine.below(ids, first, mask=None, position_ids=None) if first else None
        bare = _logprobs(engine, ids, first, states, None)  # (1, T, V)
        for start in range(0, len(memories), 8):
            batch = MemoryBatch.of(list(memories[start : start + 8]), engine.backbone)
            moved = _logprobs(engine, ids, first, states, batch)  # (U, T, V)
            found.append((bare.exp() * (bare - moved)).sum(-1).flatten().cpu())
    tokens = torch.cat(found)
    return float(tokens.mean()), float(
        torch.quantile(
            tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))[:1_000_000]], 0.99
        )
    )


def _logprobs(engine: Engine, ids: Tensor, first: int, states: Tensor | None, memory: MemoryBatch | None) -> Tensor:
    """Log-probabilities of one row of text with each memory, from what enters a layer where that is known.

    Args:
        engine: runs the backbone.
        ids: shape (1, T).
        first: the layer.
        states: what enters it, shape (1, T, D); None runs all layers.
        memory: of U input rows; None is the bare backbone, U = 1.

    Returns:
        Shape (U, T, V), fp32.
    """
    count = 1 if memory is None else memory.n_rows
    if states is None:
        logits = engine.logits(ids.expand(count, -1), memory=memory)
    else:
        hidden = engine.above(states.expand(count, -1, -1), first, memory, mask=None, position_ids=None)
        logits = engine.lm_head(hidden)
    return log_softmax(logits.float(), dim=-1)
