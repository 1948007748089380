"""What learning covered and cost, read from the store: by told fact, by turn, beside a forward over the same turns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from locas_agent import AgentMemory
from locas_agent.backbone import Backbone
from locas_agent.consolidation.learner import Outcome, Task
from locas_agent.evaluation.recall.learnt import costs, covered_facts, forward_seconds, trained_wordings
from locas_agent.evaluation.recall.people import Source
from locas_agent.evaluation.recall.setup import RecallOptions, handles_of, teach
from locas_agent.types import Progress
from locas_agent.user import UserMemory
from locas_storage import InMemoryStore
from tests.unit.agent.fake_learner import QuickLearner, quick_agent

PEOPLE = Path(__file__).with_name("two_people.jsonl")
OPTIONS = RecallOptions(files=(PEOPLE,))
ScoredAnswer = tuple[AgentMemory, Source, list[UserMemory]]


@pytest.fixture
def agent(backbone: Backbone) -> Iterator[AgentMemory]:
    with quick_agent(backbone, InMemoryStore()) as made:
        yield made


def taught(agent: AgentMemory, options: RecallOptions = OPTIONS) -> ScoredAnswer:
    source = options.source()
    teach(agent, source, options)
    return agent, source, handles_of(agent, source, options)


def quick(agent: AgentMemory) -> QuickLearner:
    assert isinstance(agent.runner.learner, QuickLearner)
    return agent.runner.learner


def test_people_are_told_with_their_dates_and_sessions(agent: AgentMemory) -> None:
    _, source, (ada, ben) = taught(agent)
    turns = ada.turns()
    assert [turn.session for turn in turns] == ["session 1"] * 4 + ["session 2"] * 3
    assert [turn.role for turn in turns[:2]] == ["user", "assistant"]
    assert [turn.at for turn in turns] == [turn.at for turn in source.tellers[0].turns]
    assert {turn.trust for turn in turns} == {"user"}
    assert (len(ada.revisions()), len(ben.revisions())) == (2, 1)


def test_steps_are_consolidations_and_other_users_of_the_store(agent: AgentMemory) -> None:
    _, source, by_session = taught(agent)
    steps = OPTIONS.model_copy(update={"consolidations": 5})
    taught(agent, steps)
    ada, ben = handles_of(agent, source, steps)
    assert (len(ada.revisions()), len(ben.revisions())) == (5, 2)
    assert ada.key.tenant != by_session[0].key.tenant
    assert [turn.content for turn in ada.turns()] == [turn.content for turn in by_session[0].turns()]


def test_all_turns_of_the_assistant_have_one_label(agent: AgentMemory) -> None:
    _, _, (ada, _) = taught(agent, OPTIONS.model_copy(update={"assistant_trust": "found"}))
    assert {(turn.role, turn.trust) for turn in ada.turns()} == {("user", "user"), ("assistant", "found")}


def test_people_are_learnt_in_batches(agent: AgentMemory) -> None:
    rounds: list[int] = []
    quick(agent).meanwhile = lambda texts: rounds.append(len(texts))
    taught(agent, OPTIONS.model_copy(update={"users_per_batch": 1}))
    assert rounds == [1, 1, 1]  # two people's first session, one by one, then the second of the one who has it


def test_coverage_goes_by_fact_and_not_by_turn(agent: AgentMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that tells two facts is not covered by an item about one of them."""
    monkeypatch.setattr(QuickLearner, "item_of", staticmethod(_item_that_says_one_word))
    _, source, handles = taught(agent)
    covered, written = covered_facts(agent, handles, source)
    named = {
        source.tellers[user].facts[place].answers[0] for (user, place), is_covered in covered.items() if is_covered
    }
    assert named == {"clocks", "Vell", "Tuesday"}
    assert written == round(3 / 7, 4)


_MADE = QuickLearner.item_of


def _item_that_says_one_word(chunk: object, turn_seq: int, text: str) -> object:
    word = next((word for word in ("Vell", "Tuesday", "clocks") if word in text), "nothing")
    return replace(_MADE(chunk, turn_seq, text), answer=f"It is {word}.")  # type: ignore[arg-type]


def test_seconds_are_those_of_all_consolidations_over_the_turns_learnt(
    agent: AgentMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = QuickLearner.learn

    def timed(
        self: QuickLearner, tasks: list[Task], *, seed: int | None = None, progress: Progress | None = None
    ) -> list[Outcome]:
        outcomes = learn(self, tasks, seed=seed, progress=progress)
        taken = {"study_seconds": 3.0, "train_seconds": 1.0}
        return [replace(one, metrics=one.metrics.model_copy(update=taken)) for one in outcomes]

    monkeypatch.setattr(QuickLearner, "learn", timed)
    quick(agent).refused = {"Hello, I row on Tuesdays, and my boat is the Sandpiper."}
    _, _, handles = taught(agent)
    memories = [agent.memory_of(handle.key, agent.store.revision(handle.key)) for handle in handles]
    report = costs(agent, handles, memories)
    assert report["refused_consolidations"] == 1
    assert report["learnt_turns"] == 7  # Ben's are not learnt, and what was spent on him counts all the same
    assert report["seconds_per_turn"] == round(3 * 4.0 / 7, 4)
    assert (report["placement"], report["width"], report["dtype"]) == ([0, 1], 2, "float32")
    assert 0 < report["cost"] < 12.0 / 1e-6


def test_a_forward_reads_long_rows_in_parts(agent: AgentMemory) -> None:
    assert forward_seconds(agent, []) == 0.0
    assert forward_seconds(agent, [[1] * (2 * agent.backbone.context_tokens + 1), [1]]) > 0.0


def test_questions_that_were_trained_on_are_counted_or_refused(agent: AgentMemory) -> None:
    _, source, handles = taught(agent)
    asked = source.asked()
    assert trained_wordings(agent, handles, asked, is_held_out=True) == 0
    trained = agent.store.study_items(handles[0].key)[0].question
    same = [*asked, type(asked[0])(0, trained, 0, asked[0].fact, (), is_own=True)]
    assert trained_wordings(agent, handles, same, is_held_out=False) == 1
    with pytest.raises(RuntimeError, match="1 questions"):
        trained_wordings(agent, handles, same, is_held_out=True)
