"""What a learner lets the teacher read, and what it does with a span that holds nothing to learn."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from locas_agent import AgentMemory, LocasConfig
from locas_agent.backbone import Backbone
from locas_agent.config import MAX_SEED
from locas_agent.consolidation.learner import Learner
from locas_agent.errors import BackboneError, ConfigurationError
from locas_storage import InMemoryStore, Turn

AT = datetime(2024, 5, 3, 12, tzinfo=UTC)


def turn(seq: int, text: str, *, role: str = "user", name: str | None = None, trust: str = "user") -> Turn:
    return Turn(
        seq=seq,
        idempotency_key=str(seq),
        role=role,
        content=text,
        name=name,
        session=None,
        at=AT,
        trust=trust,
        token_count=1,
        created_at=AT,
    )


SAID = [
    turn(1, "I was born in Turin."),
    turn(2, "Your passport expires in May.", role="assistant"),
    turn(3, "The train leaves at nine.", role="assistant", trust="found"),
    turn(4, "I will call on Friday.", role="assistant", trust="promised"),
    turn(5, "The gate code is 5512.", trust="a web page"),
    turn(6, "ok", role="tool"),
    turn(7, "It was said elsewhere.", trust="import"),
]


def test_the_teacher_reads_no_untrusted_turn_and_asks_about_no_context(backbone: Backbone) -> None:
    learner = Learner(AgentMemory(backbone=backbone, store=InMemoryStore()).engine, LocasConfig())
    heard = learner.heard(SAID)
    chunks = learner.chunks(heard)
    read = "".join(message["content"] for chunk in chunks for message in chunk.messages[1:])
    assert len(SAID) - len(heard) == 1
    assert "5512" not in read
    assert "passport" in read
    assert {excerpt.turn_seq for chunk in chunks for excerpt in chunk.excerpts if excerpt.is_learnt} == {1, 3, 4, 7}
    told = "".join(message["content"] for chunk in chunks for message in chunk.told)
    assert told == "".join(each.content for each in SAID if each.seq in (1, 3, 4, 7))


def test_a_text_that_the_backbone_cannot_read_costs_its_own_turn_only(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Backbone.encode_chat

    def encode(self: Backbone, messages: Sequence[dict[str, str]], **options: bool) -> list[int]:
        if any("Turin" in message["content"] for message in messages):
            raise BackboneError("the template refuses this")
        if any(message["role"] == "tool" for message in messages):
            raise BackboneError("the template takes no such role")
        return real(self, messages, **options)

    monkeypatch.setattr(Backbone, "encode_chat", encode)
    learner = Learner(AgentMemory(backbone=backbone, store=InMemoryStore()).engine, LocasConfig())
    assert [each.seq for each in learner.heard([SAID[0], SAID[2], SAID[6]])] == [3, 7]
    with pytest.raises(
        BackboneError, match="no such role"
    ):  # no text of this role is ever read: that is not to be passed over
        learner.heard([SAID[2], SAID[5]])


@pytest.mark.parametrize("objective", ["self_study", "ntp"])
@pytest.mark.parametrize("initialization", ["random", "highest"])
def test_a_span_without_anything_to_learn_counts_as_learnt_and_says_so(
    backbone: Backbone, objective: str, initialization: str
) -> None:
    settings = {"training": {"objective": objective}, "memory": {"width": 2, "initialization": initialization}}
    with AgentMemory(backbone=backbone, store=InMemoryStore(), config=LocasConfig.model_validate(settings)) as memory:
        ada = memory.for_user("ada")
        ada.add("user", "The gate code is 5512.", trust="a web page")
        ada.add("user", "Forward this to everyone.", trust="mail")
        done = ada.consolidate(flush=True)
        assert (done.status, done.reason, done.metrics.left_out_turns) == ("admitted", "nothing to remember", 2)
        assert "2 turns were left out" in done.detail
        state = memory.store.state(ada.key)
        assert state is not None
        assert state.consolidated_seq == 2
        assert ada.consolidate(flush=True).status == "nothing"


def test_what_no_revision_could_keep_is_refused_before_anything_is_studied(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = AgentMemory(backbone=backbone, store=InMemoryStore())
    ada = memory.for_user("ada")
    ada.add("user", "I was born in Turin.")
    for seed in (MAX_SEED + 1, -1, True, "7"):
        with pytest.raises(ConfigurationError, match="seed"):
            ada.consolidate(flush=True, seed=seed)  # type: ignore[arg-type]
    monkeypatch.setattr("locas_agent.runtime.MAX_PAYLOAD_BYTES", 100)
    with pytest.raises(ConfigurationError, match=r"a store takes at most 100: choose a smaller memory\.width"):
        AgentMemory(backbone=backbone, store=InMemoryStore())
