"""What a learner lets the teacher read, and what it does with a span that holds nothing to learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from locas_agent import AgentMemory, LocasConfig
from locas_agent.backbone import Backbone
from locas_agent.config import MAX_SEED
from locas_agent.consolidation import admission
from locas_agent.consolidation.learner import Learner
from locas_agent.errors import BackboneError, ConfigurationError
from locas_agent.inference import Engine
from locas_agent.results import Consolidation
from locas_agent.study.strategies import (
    QUESTION,
    Candidate,
    Chunk,
    EarlierFact,
    GeneratedQuestions,
    Item,
    ScoredAnswer,
    Teacher,
)
from locas_agent.training.schedule import MORE_REHEARSAL
from locas_storage import InMemoryStore, Turn
from tests.conftest import MakeBackbone

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


class WhatWasSaid:
    """A way to study that asks what each turn said, and answers with its last word."""

    def __init__(self, teacher: Teacher, settings: object) -> None:
        self._teacher = teacher

    def generate(self, chunks: Mapping[int, Chunk], done: Callable[[int], None]) -> dict[int, GeneratedQuestions]:
        found = {}
        for owner, chunk in chunks.items():
            asked = [Candidate(owner, chunk, one.turn_seq, f"What is {one.text[:9]}?", "") for one in chunk.excerpts]
            answers = self._teacher.given([one.text.split()[-1] for one in chunk.excerpts])
            items = self._teacher.to_items([(*pair, QUESTION) for pair in zip(asked, answers, strict=True)])
            turns = {one.turn_seq for one in chunk.excerpts}
            found[owner] = GeneratedQuestions([item for item in items if item], turns, turns)
        return found

    def asked_again(self, owner: int, chunk: Chunk, fact: EarlierFact, news: Sequence[Item]) -> Sequence[Candidate]:
        return []

    def are_sure(self, answers: Sequence[tuple[Candidate, ScoredAnswer]]) -> Sequence[bool]:
        return [False for _ in answers]

    def retold(self, answer: ScoredAnswer, source: Item) -> ScoredAnswer:
        return answer

    def negatives(self, chunks: object, known: object) -> list[tuple[Candidate, ScoredAnswer]]:
        return []


def learnt_twice(backbone: Backbone, **training: Any) -> tuple[Consolidation, bytes]:
    """Return the second consolidation of somebody, and the memory that it left."""
    settings = {
        "training": {"max_steps": 4, "window_tokens": 0, **training},
        "memory": {"width": 2, "initialization": "random"},
        "admission": {"min_gain": 0, "max_old_loss": 1, "max_drift_nats": 1e9},
        "policy": {"automatic": False},
    }
    with AgentMemory(
        backbone=backbone, store=InMemoryStore(), config=LocasConfig.model_validate(settings), strategy=WhatWasSaid
    ) as memory:
        ada = memory.for_user("ada")
        for text in ("My dog is Rex", "My car is red"):
            ada.add("user", text)
            done = ada.consolidate(flush=True)
        return done, memory.store.payload(ada.key, ada.revisions()[-1].number)


def test_study_is_told_what_the_turns_of_earlier_facts_said(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[EarlierFact, Sequence[Item]]] = []

    def look(self: object, owner: int, chunk: Chunk, fact: EarlierFact, news: Sequence[Item]) -> Sequence[Candidate]:
        seen.append((fact, news))
        return []

    monkeypatch.setattr(WhatWasSaid, "asked_again", look)
    learnt_twice(backbone)
    assert {fact.told for fact, _ in seen} == {"My dog is Rex"}
    assert all(fact.answer in fact.told for fact, _ in seen)


def forgetting(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the gate find that a memory forgets, so many times after the first consolidation."""
    real, left = admission.admit, [times]

    def admit(before: admission.Measurement, after: admission.Measurement, **rest: Any) -> admission.Admission:
        if before.earlier_recall is not None and left[0]:
            left[0] -= 1
            return admission.Admission(False, admission.FORGETS, "")
        return real(before, after, **rest)

    monkeypatch.setattr(admission, "admit", admit)


def test_what_forgets_is_trained_once_more_and_rehearses_more(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    once, at_once = learnt_twice(backbone)
    rehearsing, expected = learnt_twice(backbone, rehearsal_share=MORE_REHEARSAL)
    assert at_once != expected
    forgetting(1, monkeypatch)
    again, kept = learnt_twice(backbone)
    assert (once.metrics.trainings, again.metrics.trainings, again.admitted) == (1, 2, True)
    assert kept == expected
    assert again.metrics.tokens == (once.metrics.tokens or 0) + (rehearsing.metrics.tokens or 0)


def test_what_forgets_twice_or_was_told_how_much_to_rehearse_is_refused(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgetting(2, monkeypatch)
    refused, _ = learnt_twice(backbone)
    assert (refused.status, refused.reason, refused.metrics.trainings) == ("refused", "forgets", 2)
    forgetting(1, monkeypatch)
    refused, _ = learnt_twice(backbone, rehearsal_share=0.3)
    assert (refused.status, refused.reason, refused.metrics.trainings) == ("refused", "forgets", 1)


def test_agents_on_one_backbone_share_nothing_but_what_follows_from_its_weights(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone()
    learners = [Learner(Engine(backbone), LocasConfig()) for _ in range(2)]
    assert learners[0].neutral is learners[1].neutral
    assert learners[0].last_layer is learners[1].last_layer
