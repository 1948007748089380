"""Journals filled without a model: turns of a length, and a memory that has learnt all but the newest."""

from __future__ import annotations

from locas_agent.backbone import Backbone
from locas_agent.memory import LocasMemory
from locas_agent.memory.serialization import to_bytes
from locas_agent.types import CODE_VERSION
from locas_storage import MemoryStore, RevisionDraft, TurnDraft, UserKey

_WORDS = (
    "my dog rex likes the long walk along the river in the evening before we eat and then sleeps "
    "beside the warm oven until the morning"
).split()


def text(number: int, *, words: int) -> str:
    """Return what is said in a turn, another with each number; texts of one length take about as many tokens."""
    return " ".join(
        [f"w{number}", *(_WORDS[(number * 7 + place * (1 + number % 3)) % len(_WORDS)] for place in range(words - 1))]
    )


def fill(store: MemoryStore, key: UserKey, backbone: Backbone, *, turns: int, words: int, repeats: int) -> None:
    """Journal turns, user and assistant by turns, in one transaction.

    Args:
        store: where.
        key: whose; nothing was said before.
        backbone: counts tokens.
        turns: how many.
        words: of each turn.
        repeats: texts come again after so many turns, so that journals of different length end alike.
    """
    said = [text(number, words=words) for number in range(repeats)]
    counted = [len(backbone.encode_chat([{"role": "user", "content": each}], generation_prompt=False)) for each in said]
    numbers = [(number - turns) % repeats for number in range(turns)]
    roles = ["user" if (turns - number) % 2 == 0 else "assistant" for number in range(turns)]
    store.append(
        key,
        [
            TurnDraft(role, said[number], token_count=counted[number])
            for role, number in zip(roles, numbers, strict=True)
        ],
    )


def commit(store: MemoryStore, key: UserKey, memory: LocasMemory, *, to_seq: int) -> None:
    """Save a memory as the first revision, as if it had learnt all turns up to one."""
    draft = RevisionDraft(
        parent=0,
        fingerprint=memory.fingerprint,
        config_hash="benchmark",
        code_version=CODE_VERSION,
        seed=0,
        from_seq=1,
        to_seq=to_seq,
        payload=to_bytes(memory),
    )
    store.commit(key, draft)
