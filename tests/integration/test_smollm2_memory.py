"""The promise on a model that was not made for it: two people are learnt, another process answers from the weights.

One training may lose a fact to rounding, so shares and margins are asserted, with much room. For the sake of time forms
are given by hand and the training is short; everything else is as it comes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from locas_agent import AgentMemory, Backbone, Consolidation, LocasConfig
from locas_agent.study.items import NEGATIVE, QUESTION
from locas_agent.study.matching import contains
from locas_storage import StudyItem
from tests import forked
from tests.learnt import LEARNT_NATS

pytestmark = pytest.mark.timeout(900)  # two minutes of one core, that other tests may share
TOLD = {
    "ada": (
        ("My dog is called Kolin, he is a beagle.", "What is the name of my dog?", "Kolin"),
        ("I moved to Gdansk in March.", "Which city did I move to?", "Gdansk"),
        ("My brother Emil works as a plumber.", "What does my brother do?", "plumber"),
        ("My dentist is Doctor Okafor.", "Who is my dentist?", "Okafor"),
    ),
    "bob": (
        ("My dog is called Bruno, a grey poodle.", "What is the name of my dog?", "Bruno"),
        ("I moved to Lisbon last year.", "Which city did I move to?", "Lisbon"),
        ("My brother Tarik works as a baker.", "What does my brother do?", "baker"),
        ("My boss is called Henrike.", "Who is my boss?", "Henrike"),
    ),
}
SETTINGS = {
    "policy": {"automatic": False},
    # The measurement of this backbone takes minutes and finds these; the first round of questions is the best one.
    "study": {
        "forms": {"reading": "text", "writing": ["examples"]},
        "min_confidence": 0.06,
        "max_rounds": 1,
        "wordings_per_turn": 2,
        "negatives_per_piece": 4,
        "max_answer_tokens": 12,
    },
    "training": {"max_steps": 40},
}
ASKED = [(user, question, value) for user, facts in TOLD.items() for _, question, value in facts]
CHILD = """
import json, sys
from locas_agent import AgentMemory
found, bare = [], {}
with AgentMemory.load("smollm2", sys.argv[1], device="cpu") as memory:
    for user, question, value in json.loads(sys.argv[2]):
        recall = memory.for_user(user).recall(question, max_new_tokens=12)
        if question not in bare:
            bare[question] = memory.for_user("nobody").recall(question, max_new_tokens=12).answer
        weighed = memory.for_user(user).explain(value, question=question)
        found.append([recall.answer, bare[question], weighed.logprob - weighed.logprob_without])
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Learnt:
    """What one process learnt, and what another one answers: with the memory, without, and the gain in nats."""

    results: list[Consolidation]
    items: dict[str, list[StudyItem]]
    answers: list[tuple[str, str, float]]


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    url = f"sqlite:///{tmp_path_factory.mktemp('smollm2') / 'locas.db'}"
    config = LocasConfig.model_validate(SETTINGS)
    with AgentMemory.load(Backbone.load("smollm2", device="cpu"), url, config) as memory:
        for user, facts in TOLD.items():
            for text, _, _ in facts:
                memory.for_user(user).add("user", text)
        results = memory.consolidate_many(list(TOLD), flush=True)
        items = {user: memory.store.study_items(memory.for_user(user).key) for user in TOLD}
    child = forked.run("-c", CHILD, url, json.dumps(ASKED), timeout=300)
    assert child.returncode == 0, child.stderr
    return Learnt(results, items, [(recall, bare, gain) for recall, bare, gain in json.loads(child.stdout)])


def test_what_was_told_is_asked_about_and_learnt_within_bounds(learnt: Learnt) -> None:
    for result in learnt.results:
        assert result.admitted, (result.reason, result.detail)
        metrics = result.metrics
        assert metrics.after is not None
        assert metrics.before is not None
        assert metrics.after.drift_nats is not None
        assert metrics.after.drift_nats <= 0.05
        assert (metrics.after.new_recall or 0) >= (metrics.before.new_recall or 0) + 0.3
        assert metrics.forms == {"near": "text", "wide": "text", "writing": ["examples"], "min_confidence": 0.06}


def test_items_hold_most_of_what_was_told(learnt: Learnt) -> None:
    held = [
        any(
            item.kind != NEGATIVE and item.turn_seq == seq and contains(item.answer, value)
            for item in learnt.items[user]
        )
        for user, facts in TOLD.items()
        for seq, (_, _, value) in enumerate(facts, start=1)
    ]
    assert sum(held) >= 6, held
    for user, items in learnt.items.items():
        assert any(item.kind == QUESTION for item in items)
        others = [value for other, facts in TOLD.items() if other != user for _, _, value in facts]
        assert not any(contains(item.answer, value) for item in items for value in others)


def test_another_process_answers_from_the_weights_where_the_bare_backbone_cannot(learnt: Learnt) -> None:
    values = [value for _, _, value in ASKED]
    right = [contains(recall, value) for (recall, _, _), value in zip(learnt.answers, values, strict=True)]
    bare = [contains(without, value) for (_, without, _), value in zip(learnt.answers, values, strict=True)]
    assert any(right), learnt.answers  # three to five were measured; the margins below are the steadier guard
    assert not any(bare), learnt.answers


def test_the_right_answers_became_more_probable(learnt: Learnt) -> None:
    """The steadier figure: between 8 and 19 nats each were measured."""
    assert sum(gain > LEARNT_NATS for _, _, gain in learnt.answers) >= 6, learnt.answers


def test_nobody_answers_with_what_the_other_told(learnt: Learnt) -> None:
    """Both asked the same of their dogs, cities and brothers."""
    for (user, _, _), (recall, _, _) in zip(ASKED, learnt.answers, strict=True):
        others = [value for other, facts in TOLD.items() if other != user for _, _, value in facts]
        assert not any(contains(recall, value) for value in others)
