"""A LoCoMo run on a random backbone: what is journalled, what each arm sees, resuming, and the figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from locas_agent.agent import AgentMemory
from locas_agent.config import LocasConfig
from locas_agent.errors import ConfigurationError
from locas_agent.evaluation import asking
from locas_agent.evaluation.answer_book import AnswerBook
from locas_agent.evaluation.learning import learnt
from locas_agent.evaluation.locomo import arms as locomo_arms
from locas_agent.evaluation.locomo.answers import OPEN, TRAP_FIRST, TRAP_SECOND, Given
from locas_agent.evaluation.locomo.arms import ARMS, Arms, Wording, forms
from locas_agent.evaluation.locomo.data import Dialogue, dialogues_of
from locas_agent.evaluation.locomo.ingest import handles_of, ingest, tell
from locas_agent.evaluation.locomo.plot import plot_locomo
from locas_agent.evaluation.locomo.report import adversarial_table, figures, legend, locomo_table
from locas_agent.evaluation.locomo.run import LocomoOptions, run_locomo
from locas_agent.evaluation.locomo.scoring import NOT_MENTIONED
from locas_agent.plots import check_picture
from locas_storage import InMemoryStore
from tests.conftest import MakeBackbone
from tests.locomo_sample import SECRET, numbered

QUICK = LocasConfig.model_validate(
    {
        "window": {"window_tokens": 64, "max_new_tokens": 16},
        "policy": {"automatic": False},
        "training": {"objective": "ntp", "max_steps": 2, "anchor_tokens": 8},
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


def test_each_session_is_learnt_once_with_captions_and_without_queries(
    agent: AgentMemory, dialogues: list[Dialogue]
) -> None:
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


def test_other_settings_are_other_users(make_backbone: MakeBackbone, dialogues: list[Dialogue]) -> None:
    store, backbone = InMemoryStore(), make_backbone()
    lighter = QUICK.model_copy(update={"training": QUICK.training.model_copy(update={"max_steps": 1})})
    agents = [AgentMemory(backbone=backbone, store=store, config=config) for config in (QUICK, QUICK, lighter)]
    keys = [[handle.key for handle in handles_of(agent, dialogues, digest="d" * 64)] for agent in agents]
    assert keys[0] == keys[1]
    assert not set(keys[0]) & set(keys[2])


def test_refused_session_is_not_tried_again_but_waits_for_the_next(
    make_backbone: MakeBackbone, dialogues: list[Dialogue]
) -> None:
    refusing = QUICK.model_copy(update={"admission": QUICK.admission.model_copy(update={"max_drift_nats": 1e-12})})
    with AgentMemory(backbone=make_backbone(), store=InMemoryStore(), config=refusing) as agent:
        handles = handles_of(agent, dialogues[1:], digest="d" * 64)
        for _ in range(2):
            ingest(agent, dialogues[1:], handles)
        refusals = [entry.facts["to_seq"] for entry in agent.store.audit(handles[0].key) if entry.action == "refuse"]
        assert refusals == [2, 4]
        assert learnt(agent, handles)["refusals"] == {"drift": 2}


def test_after_a_refusal_what_waits_must_double_or_the_conversation_end(
    make_backbone: MakeBackbone, dialogues: list[Dialogue]
) -> None:
    refusing = QUICK.model_copy(update={"admission": QUICK.admission.model_copy(update={"max_drift_nats": 1e-12})})
    first = dialogues[0].sessions[0]
    # Six sessions of one turn each, all of one length: tried at 1, 2 and 4, and at 6 because it is the last.
    sessions = tuple(
        replace(first, number=number, turns=(replace(first.turns[0], key=f"D{number}:1", session=f"session {number}"),))
        for number in range(1, 7)
    )
    with AgentMemory(backbone=make_backbone(), store=InMemoryStore(), config=refusing) as agent:
        handles = handles_of(agent, dialogues[:1], digest="d" * 64)
        for _ in range(2):  # the second time as another process would
            ingest(agent, [replace(dialogues[0], sessions=sessions)], handles)
        refusals = [entry.facts["to_seq"] for entry in agent.store.audit(handles[0].key) if entry.action == "refuse"]
        assert refusals == [1, 2, 4, 6]
        assert learnt(agent, handles)["turns_never_learnt"] == 6


def test_every_arm_answers_every_question_and_only_the_memory_arms_have_one(
    agent: AgentMemory, dialogues: list[Dialogue], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[tuple[str, bool]]] = {}
    answers = asking.answers

    def spied(agent: AgentMemory, prompts: Any, memories: Any, **rest: Any) -> list[asking.ArmAnswer]:
        for prompt, memory in zip(prompts, memories, strict=True):
            seen.setdefault("\n".join(message["content"] for message in prompt[:-1]), []).append(
                (prompt[-1]["content"], memory is not None)
            )
        return answers(agent, prompts, memories, **rest)

    monkeypatch.setattr(asking, "answers", spied)
    report = run_locomo(agent, dialogues, OPTIONS, digest="d" * 64)
    assert tuple(report["arms"]) == tuple(ARMS)
    assert all(cells["1-4"]["n"] == 5 and cells["5"]["n"] == 3 for cells in report["arms"].values())
    bare = seen[""]
    # none, memory, wrong_user: eight questions, three of them in three forms; context: one of these names no evidence
    assert len(bare) == 3 * 14 + 3
    assert sum(attached for _, attached in bare) == 2 * 14
    evidence = "Conversation on 8 May 2021.\nIlse: My boat is called Albatros.\nMarek: I like it. Mine is in the shed."
    assert any(text.startswith("What is Ilse's boat called?") and not attached for text, attached in seen[evidence])
    assert any("Take the date" in text for turns in seen.values() for text, _ in turns)
    assert not any(SECRET in turns or any(SECRET in text for text, _ in asked) for turns, asked in seen.items())


def test_wrong_user_alone_needs_another_conversation(agent: AgentMemory, dialogues: list[Dialogue]) -> None:
    with pytest.raises(ConfigurationError, match="two conversations"):
        run_locomo(agent, dialogues[:1], OPTIONS.model_copy(update={"arms": ("wrong_user",)}), digest="d" * 64)


def test_one_conversation_has_no_wrong_user_and_no_interval(agent: AgentMemory, dialogues: list[Dialogue]) -> None:
    report = run_locomo(
        agent, dialogues[:1], OPTIONS.model_copy(update={"arms": ("none", "wrong_user", "memory")}), digest="d" * 64
    )
    assert list(report["arms"]) == ["none", "memory"]
    assert report["arms"]["memory"]["4"]["ci95"] is None
    assert len(report["arms"]["memory"]["1-4"]["questions_ci95"]) == 2  # of this conversation, questions can be drawn
    assert report["wrong_user_minus_none"] is None


@pytest.mark.parametrize("stage", ["sessions learnt", "answers"])
def test_stopped_run_goes_on_and_ends_as_if_it_had_not_been_stopped(
    stage: str, make_backbone: MakeBackbone, dialogues: list[Dialogue], tmp_path: Path
) -> None:
    stopped, straight = tmp_path / "stopped.jsonl", tmp_path / "straight.jsonl"
    store = InMemoryStore()

    def stop(at: str, done: int, total: int) -> None:
        if at == stage and done > total // 2:
            raise KeyboardInterrupt

    with AgentMemory(backbone=make_backbone(), store=store, config=QUICK) as agent, pytest.raises(KeyboardInterrupt):
        run_locomo(agent, dialogues, OPTIONS, digest="d" * 64, answers=stopped, progress=stop)
    kept = stopped.read_text(encoding="utf-8")
    stopped.write_text(kept + '{"dialogue": "lake-2", "quest', encoding="utf-8")  # what a kill leaves of a line
    with AgentMemory(backbone=make_backbone(), store=store, config=QUICK) as agent:
        report = run_locomo(agent, dialogues, OPTIONS, digest="d" * 64, answers=stopped)
    assert stopped.read_text(encoding="utf-8").startswith(kept)
    with AgentMemory(backbone=make_backbone(), store=InMemoryStore(), config=QUICK) as agent:
        expected = run_locomo(agent, dialogues, OPTIONS, digest="d" * 64, answers=straight)
    assert sorted(stopped.read_text(encoding="utf-8").splitlines()) == sorted(
        straight.read_text(encoding="utf-8").splitlines()
    )
    timed = {"seconds", "learnt"}
    assert {name: value for name, value in report.items() if name not in timed} == {
        name: value for name, value in expected.items() if name not in timed
    }
    assert report["learnt"]["consolidations_admitted"] == expected["learnt"]["consolidations_admitted"] == 5


def test_finished_run_is_only_scored_again_and_other_options_are_refused(
    agent: AgentMemory, dialogues: list[Dialogue], tmp_path: Path
) -> None:
    path = tmp_path / "answers.jsonl"
    options = OPTIONS.model_copy(update={"arms": ("none", "constant")})
    report = run_locomo(agent, dialogues, options, digest="d" * 64, answers=path)
    whole = path.read_text(encoding="utf-8")
    assert run_locomo(agent, dialogues, options, digest="d" * 64, answers=path)["arms"] == report["arms"]
    assert path.read_text(encoding="utf-8") == whole
    more = run_locomo(
        agent,
        dialogues,
        options.model_copy(update={"arms": ("none", "window"), "seed": 1}),
        digest="d" * 64,
        answers=path,
    )
    assert list(more["arms"]) == ["none", "window"]
    for changed in ({"answer_tokens": 3}, {"questions": 2}, {"sessions": 2}, {"first": 1}):
        with pytest.raises(ConfigurationError, match="differs in options"):
            run_locomo(agent, dialogues, options.model_copy(update=changed), digest="d" * 64, answers=path)
    with pytest.raises(ConfigurationError, match="differs in data"):
        run_locomo(agent, dialogues, options, digest="e" * 64, answers=path)


def test_prompt_of_a_question_does_not_depend_on_what_was_answered_before(
    agent: AgentMemory, dialogues: list[Dialogue]
) -> None:
    """Turns are cut for the longest question of a group.

    A resumed run must not cut them anew for the shorter ones that are left.
    """
    handles = handles_of(agent, dialogues[:1], digest="d" * 64)
    for session in dialogues[0].sessions:
        tell(handles[0], session)
    wording = Wording(short=False, answer_tokens=2, searched_turns=5)

    def asked(dialogue: Dialogue, before: Sequence[Given]) -> dict[int, int]:
        """Return how many tokens stood before each open question of the whole conversation."""
        book = AnswerBook(Given, {})
        book.add(before)
        Arms(agent, wording, book).ask(["full_context"], [dialogue], handles)
        return {
            one.number: book[dialogue.name, one.number, "full_context", OPEN].prompt_tokens
            for one in dialogue.questions
        }

    (dialogue,), shortest = dialogues[:1], min(dialogues[0].questions, key=lambda one: len(one.text))
    whole = asked(dialogue, [])
    others = [
        Given(dialogue.name, one.number, "full_context", form, "", 0)
        for one in dialogue.questions
        if one is not shortest
        for form in forms(one)
    ]
    assert asked(dialogue, others)[shortest.number] == whole[shortest.number]
    assert (
        asked(replace(dialogue, questions=(shortest,)), [])[shortest.number] > whole[shortest.number]
    )  # more turns fit when it is alone


def test_fewer_sessions_are_learnt_by_a_memory_of_their_own(agent: AgentMemory, dialogues: list[Dialogue]) -> None:
    options = OPTIONS.model_copy(update={"arms": ("full_context",)})
    run_locomo(agent, dialogues, options, digest="d" * 64)
    few = run_locomo(agent, dialogues, options.model_copy(update={"sessions": 1}), digest="d" * 64)
    assert few["learnt"]["turns"] == 4


@pytest.mark.parametrize("text", ["mine", "mine\n", '{"some": "json"}\n', "[1]\n"])
def test_file_without_answers_is_left_alone(text: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="does not hold answers"):
        AnswerBook(Given, {"data": "x"}, path)
    assert path.read_text(encoding="utf-8") == text


def test_bare_wording_is_the_question_alone(dialogues: list[Dialogue]) -> None:
    asked = dialogues[0].questions[1]
    assert Wording(False, 2, 2).of(asked, OPEN) == asked.text
    assert Wording(True, 2, 2).of(asked, OPEN) == f"{asked.text} {locomo_arms.HINT} {locomo_arms.SHORT}"


def _book(dialogues: list[Dialogue], said: dict[str, dict[tuple[str, int, str], str]]) -> AnswerBook[Given]:
    """Fill a book by hand.

    What is not named is answered by nonsense, with 10 tokens before an open question and 40 before a choice.
    """
    book = AnswerBook(Given, {})
    for arm, answers in said.items():
        for dialogue in dialogues:
            for asked in dialogue.questions:
                for form in forms(asked):
                    text = answers.get((dialogue.name, asked.number, form), "xyz")
                    book.add([Given(dialogue.name, asked.number, arm, form, text, 10 if form == OPEN else 40)])
    return book


def test_figures_are_as_worked_out_by_hand(dialogues: list[Dialogue]) -> None:
    said: dict[str, dict[tuple[str, int, str], str]] = {
        "none": {("lake-1", 4, OPEN): "I do not know."},
        "constant": {("lake-1", 3, OPEN): "Albatros boat"},  # 2*1/(2+1)
        "memory": {
            ("lake-1", 3, OPEN): "Albatros",
            ("lake-2", 0, OPEN): "It is Ada.",  # 1, and 2*1/(3+1)
            ("lake-1", 4, OPEN): "Not mentioned.",
            ("lake-1", 4, TRAP_FIRST): "(b)",
            ("lake-1", 4, TRAP_SECOND): "(b)",  # right once of two
            ("lake-2", 1, OPEN): "a violin",
            ("lake-2", 1, TRAP_FIRST): "(b)",
            ("lake-2", 1, TRAP_SECOND): NOT_MENTIONED,
        },
        "context": {("lake-1", 3, OPEN): "Albatros", ("lake-2", 0, OPEN): "Ada"},
        "wrong_user": {("lake-1", 3, OPEN): "Albatros"},
    }
    report = figures(_book(dialogues, said), dialogues, list(said), seed=0)
    single = report["arms"]["memory"]["4"]
    assert (single["n"], single["f1"], single["exact_match"], single["prompt_tokens"]) == (2, 0.75, 1.0, 10.0)
    assert single["ci95"] == [0.5, 1.0]
    low, high = report["arms"]["memory"]["1-4"]["questions_ci95"]  # five questions: 1, 0.5, 0, 0, 0
    assert 0.0 <= low < 0.1 < 0.5 < high <= 0.8
    assert report["arms"]["memory"]["1-4"] | {"ci95": None, "questions_ci95": None} == {
        "name": "answerable",
        "n": 5,
        "f1": 0.3,
        "ci95": None,
        "questions_ci95": None,
        "exact_match": 0.4,
        "prompt_tokens": 10.0,
    }
    assert report["arms"]["memory"]["5"]["f1"] == 0.5  # halves: 1/2, 2/2, 0/2
    assert report["arms"]["memory"]["5"]["prompt_tokens"] == 30.0
    adversarial = report["adversarial"]["memory"]
    assert (adversarial["n"], adversarial["choice"], adversarial["abstention"]) == (3, 0.5, 0.3333)
    assert adversarial["minus_trap_f1"] == -0.3333  # one answer is its trap, word for word
    assert adversarial["choice_in_one_order"] in (
        0.3333,
        0.6667,
    )  # of the first question one order is right, of the second both
    lift = report["memory_lift"]["4"]
    assert (lift["difference"], lift["over"]) == (round(0.75 - 1 / 3, 4), "constant")  # the better of 0 and (2/3 + 0)/2
    assert report["wrong_user_minus_none"]["4"]["difference"] == 0.5
    assert report["memory_of_context"]["4"] == 0.75
    assert report["memory_of_context"]["1"] is None  # the ceiling is 0


def test_disputed_answers_are_counted_out_in_a_second_table(agent: AgentMemory, dialogues: list[Dialogue]) -> None:
    wrong = frozenset({("What is Ilse's boat called?", "Albatros")})
    report = run_locomo(
        agent, dialogues, OPTIONS.model_copy(update={"arms": ("none", "constant")}), digest="d" * 64, disputed=wrong
    )
    assert report["disputed_questions"] == 1
    assert report["arms"]["none"]["4"]["n"] == 2
    assert report["without_disputed"]["arms"]["none"]["4"]["n"] == 1


def test_table_names_each_category_with_its_number_and_a_plot_is_drawn(
    agent: AgentMemory, dialogues: list[Dialogue], tmp_path: Path
) -> None:
    report = run_locomo(
        agent, dialogues, OPTIONS.model_copy(update={"arms": ("none", "constant", "memory")}), digest="d" * 64
    )
    headers = [str(column.header) for column in locomo_table(report).columns]
    assert headers[1:7] == [
        "1 multi-hop (n=1)",
        "2 temporal (n=1)",
        "3 open-domain (n=1)",
        "4 single-hop (n=2)",
        "5 adversarial (n=3)",
        "1-4 answerable (n=5)",
    ]
    assert adversarial_table(report) is not None
    narrow = Console(width=80, file=StringIO())
    narrow.print(locomo_table(report), legend(report))
    shown = narrow.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in shown  # nothing of a name is cut off
    assert all(name in shown for name in ("constant", "memory lift", "questions anew", ARMS["memory"]))
    picture = plot_locomo(report, tmp_path / "locomo.svg")
    assert "single-hop" in picture.read_text(encoding="utf-8") or picture.stat().st_size > 5000
    with pytest.raises(ConfigurationError, match="ends in"):
        check_picture(tmp_path / "locomo.txt")
