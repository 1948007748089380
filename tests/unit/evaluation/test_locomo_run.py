"""A LoCoMo run on a random backbone: what is journalled, what each arm sees, resuming, and the figures. Knows nothing of how well it answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from locas_agent.agent import AgentMemory
from locas_agent.config import LocasConfig
from locas_agent.errors import ConfigurationError
from locas_agent.evaluation import asking, locomo_arms
from locas_agent.evaluation.locomo import LocomoOptions, run_locomo
from locas_agent.evaluation.locomo_answers import OPEN, TRAP_FIRST, TRAP_SECOND, AnswerBook, Given
from locas_agent.evaluation.locomo_arms import ARMS, Wording
from locas_agent.evaluation.locomo_data import Dialogue, dialogues_of
from locas_agent.evaluation.locomo_ingest import handles_of, ingest, learnt
from locas_agent.evaluation.locomo_plot import check_plot, plot_locomo
from locas_agent.evaluation.locomo_report import adversarial_table, figures, locomo_table
from locas_agent.evaluation.locomo_scoring import NOT_MENTIONED
from locas_storage import InMemoryStore
from tests.conftest import MakeBackbone
from tests.locomo_sample import SECRET, numbered

QUICK = LocasConfig.model_validate(
    {
        "window": {"window_tokens": 64, "max_new_tokens": 16},
        "policy": {"automatic": False},
        "training": {"objective": "ntp", "max_steps": 2},
        "admission": {"min_gain": 0, "max_drift_nats": 1000},
    }
)
OPTIONS = LocomoOptions(answer_tokens=2, short=True)


@pytest.fixture
def agent(make_backbone: MakeBackbone) -> Iterator[AgentMemory]:
    with AgentMemory(backbone=make_backbone(), store=InMemoryStore(), config=QUICK) as made:
        yield made


@pytest.fixture
def dialogues() -> list[Dialogue]:
    return dialogues_of(numbered())


def test_each_session_is_learnt_once_with_captions_and_without_queries(agent: AgentMemory, dialogues: list[Dialogue]) -> None:
    handles = handles_of(agent, dialogues, digest="d" * 64)
    done: list[tuple[str, int, int]] = []
    ingest(agent, dialogues, handles, progress=lambda *call: done.append(call))
    assert done[-1] == ("sessions learnt", 5, 5)
    spans = [[(revision.from_seq, revision.to_seq) for revision in handle.revisions()] for handle in handles]
    assert spans == [[(1, 2), (3, 5), (6, 7)], [(1, 2), (3, 4)]]
    said = [turn.content for handle in handles for turn in handle.turns()]
    assert any("a photo of a red kite" in text for text in said)
    assert not any(SECRET in text for text in said)
    ingest(agent, dialogues, handles)  # as a second process would
    assert [[(revision.from_seq, revision.to_seq) for revision in handle.revisions()] for handle in handles] == spans
    assert learnt(agent, handles)["consolidations_admitted"] == 5


def test_refused_session_is_not_tried_again_but_waits_for_the_next(make_backbone: MakeBackbone, dialogues: list[Dialogue]) -> None:
    refusing = QUICK.model_copy(update={"admission": QUICK.admission.model_copy(update={"max_drift_nats": 1e-12})})
    with AgentMemory(backbone=make_backbone(), store=InMemoryStore(), config=refusing) as agent:
        handles = handles_of(agent, dialogues[1:], digest="d" * 64)
        for _ in range(2):
            ingest(agent, dialogues[1:], handles)
        refusals = [entry.facts["to_seq"] for entry in agent.store.audit(handles[0].key) if entry.action == "refuse"]
        assert refusals == [2, 4]
        assert learnt(agent, handles)["refusals"] == {"drift": 2}


def test_every_arm_answers_every_question_and_only_the_memory_arms_have_one(
    agent: AgentMemory, dialogues: list[Dialogue], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[tuple[str, bool]]] = {}
    answers = asking.answers

    def spied(agent: AgentMemory, prompts: Any, memories: Any, **rest: Any) -> list[asking.Answer]:
        for prompt, memory in zip(prompts, memories, strict=True):
            seen.setdefault("\n".join(message["content"] for message in prompt[:-1]), []).append((prompt[-1]["content"], memory is not None))
        return answers(agent, prompts, memories, **rest)

    monkeypatch.setattr(locomo_arms.asking, "answers", spied)
    report = run_locomo(agent, dialogues, OPTIONS, digest="d" * 64)
    assert tuple(report["arms"]) == tuple(ARMS)
    assert all(cells["1-4"]["n"] == 5 and cells["5"]["n"] == 3 for cells in report["arms"].values())
    bare = seen[""]  # none, memory, wrong_user: eight questions, three of them in three forms; context: one of these names no evidence
    assert len(bare) == 3 * 14 + 3
    assert sum(attached for _, attached in bare) == 2 * 14
    evidence = "Conversation on 8 May 2021.\nIlse: My boat is called Albatros.\nMarek: I like it. Mine is in the shed."
    assert any(text.startswith("What is Ilse's boat called?") and not attached for text, attached in seen[evidence])
    assert any("Take the date" in text for turns in seen.values() for text, _ in turns)
    assert not any(SECRET in turns or any(SECRET in text for text, _ in asked) for turns, asked in seen.items())


def test_one_conversation_has_no_wrong_user_and_no_interval(agent: AgentMemory, dialogues: list[Dialogue]) -> None:
    report = run_locomo(agent, dialogues[:1], OPTIONS.model_copy(update={"arms": ("none", "wrong_user", "memory")}), digest="d" * 64)
    assert list(report["arms"]) == ["none", "memory"]
    assert report["arms"]["memory"]["4"]["ci95"] is None
    assert report["wrong_user_minus_none"] is None


def test_stopped_run_goes_on_where_it_was(make_backbone: MakeBackbone, dialogues: list[Dialogue], tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    store = InMemoryStore()

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "answers" and done > total // 2:
            raise KeyboardInterrupt

    with AgentMemory(backbone=make_backbone(), store=store, config=QUICK) as agent:
        with pytest.raises(KeyboardInterrupt):
            run_locomo(agent, dialogues, OPTIONS, digest="d" * 64, answers=path, progress=stop)
        kept = path.read_text(encoding="utf-8")
        path.write_text(kept + '{"dialogue": "lake-2", "quest', encoding="utf-8")  # what a kill leaves of a line
        report = run_locomo(agent, dialogues, OPTIONS, digest="d" * 64, answers=path)
        whole = path.read_text(encoding="utf-8")
        assert whole.startswith(kept)
        rows = [json.loads(line) for line in whole.splitlines()[1:]]
        assert len(rows) == len({(row["dialogue"], row["question"], row["arm"], row["form"]) for row in rows}) == 10 * 14
        again = run_locomo(agent, dialogues, OPTIONS, digest="d" * 64, answers=path)
        assert path.read_text(encoding="utf-8") == whole
        assert again["arms"] == report["arms"]
        with pytest.raises(ConfigurationError, match="differs in options"):
            run_locomo(agent, dialogues, OPTIONS.model_copy(update={"answer_tokens": 3}), digest="d" * 64, answers=path)
        with pytest.raises(ConfigurationError, match="differs in data"):
            run_locomo(agent, dialogues, OPTIONS, digest="e" * 64, answers=path)


@pytest.mark.parametrize("text", ["mine", "mine\n", '{"some": "json"}\n', "[1]\n"])
def test_file_without_answers_is_left_alone(text: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="does not hold answers"):
        AnswerBook({"data": "x"}, path)
    assert path.read_text(encoding="utf-8") == text


def test_bare_wording_is_the_question_alone(dialogues: list[Dialogue]) -> None:
    asked = dialogues[0].questions[1]
    assert Wording(False, 2, 2).of(asked, OPEN) == asked.text
    assert Wording(True, 2, 2).of(asked, OPEN) == f"{asked.text} {locomo_arms.HINT} {locomo_arms.SHORT}"


def _book(dialogues: list[Dialogue], said: dict[str, dict[tuple[str, int, str], str]]) -> AnswerBook:
    """Fill a book by hand; what is not named is answered by nonsense, with 10 tokens before an open question and 40 before a choice."""
    book = AnswerBook({})
    for arm, answers in said.items():
        for dialogue in dialogues:
            for asked in dialogue.questions:
                for form in locomo_arms.forms(asked):
                    text = answers.get((dialogue.name, asked.number, form), "xyz")
                    book.add([Given(dialogue.name, asked.number, arm, form, text, 10 if form == OPEN else 40)])
    return book


def test_figures_are_as_worked_out_by_hand(dialogues: list[Dialogue]) -> None:
    said: dict[str, dict[tuple[str, int, str], str]] = {
        "none": {("lake-1", 4, OPEN): "I do not know."},
        "constant": {("lake-1", 3, OPEN): "Albatros boat"},  # 2*1/(2+1)
        "memory": {
            ("lake-1", 3, OPEN): "Albatros", ("lake-2", 0, OPEN): "It is Ada.",  # 1, and 2*1/(3+1)
            ("lake-1", 4, OPEN): "Not mentioned.", ("lake-1", 4, TRAP_FIRST): "(b)", ("lake-1", 4, TRAP_SECOND): "(b)",  # right once of two
            ("lake-2", 1, OPEN): "a violin", ("lake-2", 1, TRAP_FIRST): "(b)", ("lake-2", 1, TRAP_SECOND): NOT_MENTIONED,
        },
        "context": {("lake-1", 3, OPEN): "Albatros", ("lake-2", 0, OPEN): "Ada"},
        "wrong_user": {("lake-1", 3, OPEN): "Albatros"},
    }  # fmt: skip
    report = figures(_book(dialogues, said), dialogues, list(said), seed=0)
    single = report["arms"]["memory"]["4"]
    assert (single["n"], single["f1"], single["exact_match"], single["prompt_tokens"]) == (2, 0.75, 1.0, 10.0)
    assert single["ci95"] == [0.5, 1.0]
    assert report["arms"]["memory"]["1-4"] | {"ci95": None} == {
        "name": "answerable", "n": 5, "f1": 0.3, "ci95": None, "exact_match": 0.4, "prompt_tokens": 10.0,
    }  # fmt: skip
    assert report["arms"]["memory"]["5"]["f1"] == 0.5  # halves: 1/2, 2/2, 0/2
    assert report["arms"]["memory"]["5"]["prompt_tokens"] == 30.0
    adversarial = report["adversarial"]["memory"]
    assert (adversarial["n"], adversarial["choice"], adversarial["abstention"]) == (3, 0.5, 0.3333)
    assert adversarial["minus_trap_f1"] == -0.3333  # one answer is its trap, word for word
    assert adversarial["choice_in_one_order"] in (0.3333, 0.6667)  # of the first question one order is right, of the second both
    lift = report["memory_lift"]["4"]
    assert (lift["difference"], lift["over"]) == (round(0.75 - 1 / 3, 4), "constant")  # the better of 0 and (2/3 + 0)/2
    assert report["wrong_user_minus_none"]["4"]["difference"] == 0.5
    assert report["memory_of_context"]["4"] == 0.75
    assert report["memory_of_context"]["1"] is None  # the ceiling is 0


def test_disputed_answers_are_counted_out_in_a_second_table(agent: AgentMemory, dialogues: list[Dialogue]) -> None:
    wrong = frozenset({("What is Ilse's boat called?", "Albatros")})
    report = run_locomo(agent, dialogues, OPTIONS.model_copy(update={"arms": ("none", "constant")}), digest="d" * 64, disputed=wrong)
    assert report["disputed_questions"] == 1
    assert report["arms"]["none"]["4"]["n"] == 2
    assert report["without_disputed"]["arms"]["none"]["4"]["n"] == 1


def test_table_names_each_category_with_its_number_and_a_plot_is_drawn(agent: AgentMemory, dialogues: list[Dialogue], tmp_path: Path) -> None:
    report = run_locomo(agent, dialogues, OPTIONS.model_copy(update={"arms": ("none", "constant", "memory")}), digest="d" * 64)
    headers = [str(column.header) for column in locomo_table(report).columns]
    assert headers[2:8] == [
        "1 multi-hop (n=1)", "2 temporal (n=1)", "3 open-domain (n=1)", "4 single-hop (n=2)", "5 adversarial (n=3)", "1-4 answerable (n=5)",
    ]  # fmt: skip
    assert adversarial_table(report) is not None
    picture = plot_locomo(report, tmp_path / "locomo.svg")
    assert "single-hop" in picture.read_text(encoding="utf-8") or picture.stat().st_size > 5000
    with pytest.raises(ConfigurationError, match="ends in"):
        check_plot(tmp_path / "locomo.txt")
