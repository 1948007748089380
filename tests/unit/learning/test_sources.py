"""Who may be learnt from.

Whose words become items, what the teacher reads, and what a consolidation says of the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from locas_agent import AgentMemory, LocasConfig
from locas_agent.backbone import Backbone
from locas_agent.config import MAX_SEED, MemorySettings, SourceSettings
from locas_agent.consolidation.learner import Learner
from locas_agent.consolidation.remarks import of_coverage, of_shape
from locas_agent.errors import BackboneError, ConfigurationError
from locas_agent.study.chunking import Quote
from locas_agent.study.items import Coverage
from locas_agent.study.question_generation import told_in
from locas_agent.study.sources import Sources
from locas_storage import InMemoryStore, Turn
from tests.conftest import MakeMemory
from tests.unit.learning.test_study import item

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


def learnt(turns: Sequence[Turn], settings: SourceSettings | None = None) -> list[int]:
    sources = Sources.of(turns, settings or SourceSettings())
    return [each.seq for each in turns if sources.may_be_read(each) and sources.may_be_learnt(each)]


SAID = [
    turn(1, "I was born in Turin."),
    turn(2, "Your passport expires in May.", role="assistant"),
    turn(3, "The train leaves at nine.", role="assistant", trust="found"),
    turn(4, "I will call on Friday.", role="assistant", trust="promised"),
    turn(5, "The gate code is 5512.", trust="a web page"),
    turn(6, "ok", role="tool"),
    turn(7, "It was said elsewhere.", trust="import"),
]


def test_the_user_is_learnt_from_and_of_the_assistant_what_it_promised_or_found() -> None:
    assert learnt(SAID) == [1, 3, 4, 7]
    assert learnt(SAID, SourceSettings(assistant=())) == [1, 7]
    assert learnt(SAID, SourceSettings(user=("user", "a web page"), assistant=("user",))) == [1, 2, 5]


def test_two_people_who_carry_names_are_both_learnt_from() -> None:
    people = [turn(1, "I sold my boat.", name="Ines"), turn(2, "I bought a mill.", role="assistant", name="Olaf")]
    assert learnt(people) == [1, 2]
    assert learnt(people, SourceSettings(named_speakers=False)) == [1]
    # A program that names its bot and not its user speaks for the bot.
    assert learnt([turn(1, "I sold my boat."), turn(2, "You bought a mill.", role="assistant", name="Helper")]) == [1]


def test_the_teacher_reads_no_untrusted_turn_and_asks_about_no_context(backbone: Backbone) -> None:
    learner = Learner(AgentMemory(backbone=backbone, store=InMemoryStore()).engine, LocasConfig())
    heard = learner.heard(SAID)
    pieces = learner.pieces(heard)
    read = "".join(message["content"] for piece in pieces for message in piece.messages[1:])
    assert len(SAID) - len(heard) == 1
    assert "5512" not in read
    assert "passport" in read
    assert {quote.turn_seq for piece in pieces for quote in piece.quotes if quote.is_learnt} == {1, 3, 4, 7}
    told = "".join(message["content"] for piece in pieces for message in piece.told)
    assert told == "".join(each.content for each in SAID if each.seq in (1, 3, 4, 7))


QUOTES = (
    Quote(1, "I", "I was born in Turin."),
    Quote(2, "You", "Your passport expires in May.", is_learnt=False),
    Quote(3, "I", "My cousin Bo lives in Turin."),
    Quote(4, "You", "Noted, Turin.", is_learnt=False),
)


@pytest.mark.parametrize(
    ("asked", "answer", "told"),
    [
        (0, "It is May.", None),  # asked about the user's turn, answered with the assistant's claim
        (0, "It is Turin.", 0),  # an echo takes nothing away
        (0, "It is Bo.", 2),  # another turn of the user's tells it
        (0, "It is green.", 0),  # nobody's words
        (0, "In May, in Turin, my passport.", None),
    ],
)
def test_what_only_the_assistant_claimed_becomes_no_item(asked: int, answer: str, told: int | None) -> None:
    assert told_in(QUOTES, asked, item("What do you know of it?", answer)) == told


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


def test_a_memory_that_keeps_its_shape_says_what_was_asked_for(backbone: Backbone, make_memory: MakeMemory) -> None:
    memory = make_memory()
    same = MemorySettings(width=memory.width, layers=memory.n_layers)
    assert of_shape(memory, same, n_layers=backbone.n_layers) == []
    assert of_shape(None, MemorySettings(width=1), n_layers=backbone.n_layers) == []
    (said,) = of_shape(
        memory, MemorySettings(width=memory.width + 1, layers=memory.n_layers), n_layers=backbone.n_layers
    )
    assert f"keeps its {memory.width} slots" in said
    assert f"{memory.width + 1} beside {memory.n_layers} layers are asked for" in said


@pytest.mark.parametrize(
    ("carrying", "covered", "dropped", "said"),
    [
        (5, 2, 0, ["2 of 5 turns"]),
        (3, 3, 0, []),
        (0, 0, 0, []),
        (4, 0, 0, []),
        (4, 1, 2, ["1 of 4 turns", "2 questions were dropped"]),
    ],
)
def test_what_was_not_covered_is_said_in_numbers(carrying: int, covered: int, dropped: int, said: list[str]) -> None:
    remarks = of_coverage(Coverage(9, carrying, covered, 0, 30, dropped))
    assert [found.startswith(each) for found, each in zip(remarks, said, strict=True)] == [True] * len(said)
