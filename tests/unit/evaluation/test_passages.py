"""A run over passages on a random backbone, how passages are read and told, SQuAD's scorer and the figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from locas_agent.agent import AgentMemory
from locas_agent.backbone import Backbone
from locas_agent.config import LocasConfig
from locas_agent.errors import ConfigurationError
from locas_agent.evaluation import asking
from locas_agent.evaluation.passages import figures
from locas_agent.evaluation.passages.asking import SHORT, PassageAsked, questions_of
from locas_agent.evaluation.passages.choices import ARMS, PassagesLeftOut, PassagesOptions, ToldAs
from locas_agent.evaluation.passages.coverage import covered
from locas_agent.evaluation.passages.data import PassageFile, drawn, read_passages
from locas_agent.evaluation.passages.raw_text import LEARNING_RATE, raw_text
from locas_agent.evaluation.passages.run import run_passages
from locas_agent.evaluation.passages.scoring import squad_exact, squad_f1
from locas_agent.evaluation.passages.telling import Telling, learn, sentences
from locas_agent.evaluation.scoring import clustered_interval, ratio_interval
from locas_agent.study.chunking import Chunk
from locas_agent.study.items import Item
from locas_storage import InMemoryStore
from tests.conftest import MakeBackbone
from tests.unit.agent.fake_learner import QuickLearner, quick_agent

PASSAGES = Path(__file__).with_name("three_passages.jsonl")
QUICK = LocasConfig.model_validate(
    {
        "study": {"forms": {}},
        "window": {"window_tokens": 64, "max_new_tokens": 16},
        "policy": {"automatic": False},
        "training": {"objective": "mix", "max_steps": 2, "anchor_tokens": 8},
        "admission": {"min_gain": 0, "max_drift_nats": 1000},
    }
)


@pytest.fixture
def file() -> PassageFile:
    return read_passages(PASSAGES)


@pytest.fixture
def agent(make_backbone: MakeBackbone) -> Iterator[AgentMemory]:
    with AgentMemory(backbone=make_backbone(), store=InMemoryStore(), config=QUICK) as made:
        yield made


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | None]]:
    """Prompts as one text each, with which memory they were answered; a number is one memory."""
    found: list[tuple[str, int | None]] = []
    answers = asking.answers

    def spied(agent: AgentMemory, prompts: Any, memories: Any, **rest: Any) -> list[asking.ArmAnswer]:
        for prompt, memory in zip(prompts, memories, strict=True):
            found.append(("\n".join(message["content"] for message in prompt), None if memory is None else id(memory)))
        return answers(agent, prompts, memories, **rest)

    monkeypatch.setattr(asking, "answers", spied)
    return found


def users(agent: AgentMemory) -> dict[str, list[tuple[int, int]]]:
    """By user and objective, the spans of the turns that each revision learnt."""
    return {
        f"{key.tenant}/{key.user}": [
            (revision.from_seq, revision.to_seq) for revision in agent.for_user(key.user, tenant=key.tenant).revisions()
        ]
        for key in agent.users()
    }


def test_file_is_read_whole(file: PassageFile) -> None:
    assert file.name == "three_passages.jsonl"
    assert [passage.id for passage in file.passages] == ["mill", "ferry", "bees"]
    assert [len(passage.questions) for passage in file.passages] == [2, 2, 1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mood": "Pepperpot"}, "line 2: mood"),
        ({"questions": []}, "line 2: questions"),
        ({"questions": [{"question": "Pepperpot?"}]}, "line 2: questions.0.answer"),
        ({"context": " "}, "line 2: context"),
        ({"id": "mill"}, "line 2: a passage of the same id"),
    ],
)
def test_line_that_is_no_passage_is_refused_without_its_text(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    first = json.loads(PASSAGES.read_text(encoding="utf-8").splitlines()[0])
    path = tmp_path / "changed.jsonl"
    lines = [first, first | {"id": "other", "context": "Pepperpot is a goat."} | change]
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=said) as refused:
        read_passages(path)
    assert "Pepperpot" not in str(refused.value)


@pytest.mark.parametrize(("content", "said"), [(b"", "holds no passage"), (b"\xff", "UTF-8"), (b"{", "line 1")])
def test_file_that_holds_no_passage_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=said):
        read_passages(path)


def test_the_seed_draws_which_passages_and_their_order(file: PassageFile) -> None:
    orders = {tuple(passage.id for passage in drawn(file.passages, None, seed=seed)) for seed in range(20)}
    assert len(orders) > 1
    assert all(sorted(order) == ["bees", "ferry", "mill"] for order in orders)
    assert drawn(file.passages, 2, seed=3) == drawn(file.passages, None, seed=3)[:2]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "The mill was built in 1811 by a widow of Tarn. It ground oats until its wheel broke in 1840.",
            ["The mill was built in 1811 by a widow of Tarn.", "It ground oats until its wheel broke in 1840."],
        ),
        ("It paid $5.11 a sack to J. R. Corder.", ["It paid $5.11 a sack to J. R. Corder."]),
        ("So it is. The rest of the story was never told by anybody.", None),
        (
            'She said: "The wheel is broken, and there is nobody to mend it." Nobody came.',
            ['She said: "The wheel is broken, and there is nobody to mend it."', "Nobody came."],
        ),
        ("one line without an end", ["one line without an end"]),
    ],
)
def test_text_is_cut_behind_sentences_and_nothing_is_lost(text: str, parts: list[str] | None) -> None:
    assert sentences(text) == ([text] if parts is None else parts)  # a short beginning is told with what follows
    assert " ".join(sentences(text)) == text


@pytest.mark.parametrize(("told_as", "turns"), [(ToldAs.SENTENCES, 2), (ToldAs.PASSAGES, 1)])
def test_passage_is_told_as_a_session_headed_by_its_title(
    agent: AgentMemory, file: PassageFile, told_as: ToldAs, turns: int
) -> None:
    telling, passage = Telling(file.digest, told_as), file.passages[0]
    handle = telling.handles(agent, [passage])[0]
    for _ in range(2):  # the second time as a run that goes on
        telling.tell(handle, passage)
    told = handle.turns()
    assert len(told) == turns
    assert " ".join(turn.content for turn in told) == f"{passage.title}: {passage.context}"
    assert {(turn.role, turn.session) for turn in told} == {("user", "mill")}


@pytest.mark.parametrize(
    ("answer", "gold", "is_exact", "f1"),
    [
        ("The Ada Corder.", "Ada Corder", True, 1.0),
        ("It was Ada Corder", "Ada Corder", False, 2 * 2 / (4 + 2)),
        ("nine-minutes", "nine minutes", False, 0.0),  # punctuation leaves no space
        ("oats", "barley", False, 0.0),
        ("The", "a", True, 1.0),
        ("", "oats", False, 0.0),
    ],
)
def test_squad_scores(answer: str, gold: str, is_exact: bool, f1: float) -> None:
    assert squad_exact(answer, gold) is is_exact
    assert squad_f1(answer, gold) == pytest.approx(f1)


def test_share_is_what_the_memory_adds_of_what_reading_adds(file: PassageFile) -> None:
    asked = questions_of(file.passages, short=False)
    golds = [one.gold for one in asked]
    none = figures.scored(["I do not know."] * 5, asked)
    context = figures.scored([*golds[:4], "no idea"], asked)
    memory = figures.scored([golds[0], "no", golds[2], "no", "no"], asked)
    found = figures.over_none(memory, none, context)
    assert found["exact_match"]["difference"] == 0.4
    assert found["squad_f1"]["share"] == found["exact_match"]["share"] == 0.5
    assert found["exact_match"]["share_ci95"] is None  # a passage that reading adds nothing to may be all of a draw
    assert memory.report()["ci95"] == [0.0, 0.5]
    assert figures.over_none(memory, none, none)["exact_match"]["share"] is None


def test_interval_of_a_share_draws_both_of_its_parts_alike() -> None:
    above, below, clusters = [1.0, 0.0, 1.0, 0.0], [2.0, 0.0, 2.0, 0.0], [0, 0, 1, 2]
    assert clustered_interval(above, clusters) != clustered_interval(below, clusters)
    assert ratio_interval([1.0, 1.0, 3.0], [2.0, 2.0, 6.0], [0, 1, 2]) == [0.5, 0.5]
    assert ratio_interval(above, below, clusters) is None  # one draw of 27 has the third cluster alone
    assert ratio_interval([0.0, 2.0], [2.0, 2.0], [0, 1]) == [0.0, 1.0]


def test_question_is_covered_by_an_item_of_its_own_passage(
    backbone: Backbone, file: PassageFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = QuickLearner.item_of

    def naming(chunk: Chunk, turn_seq: int, text: str) -> Item:
        said = "It is grey oats." if "bees" in text else "It is Ada Corder."
        return replace(made(chunk, turn_seq, text), answer=said)

    monkeypatch.setattr(QuickLearner, "item_of", staticmethod(naming))
    with quick_agent(backbone, InMemoryStore()) as agent:
        telling, asked = Telling(file.digest, ToldAs.SENTENCES), questions_of(file.passages, short=False)
        own, everything = telling.handles(agent, file.passages), telling.common(agent, file.passages, "all")
        for handle, passage in zip(own, file.passages, strict=True):
            telling.tell(handle, passage)
            telling.tell(everything, passage)
        learn(agent, [*own, everything], stage="learnt")
        for handles in (own, [everything]):  # "oats" is an answer about the mill: an item about the bees is none
            is_covered = covered(agent, handles, file.passages, asked)
            assert [one.gold for one, found in zip(asked, is_covered, strict=True) if found] == ["Ada Corder", "grey"]


def test_answers_are_counted_by_whether_study_covered_them() -> None:
    asked = [PassageAsked(0, "a", at, "?", gold) for at, gold in enumerate(("oats", "barley", "rye", "wheat"))]
    scores = figures.scored(["oats", "no", "rye", "no"], asked)
    found = figures.by_coverage(scores, [True, False, False, False])
    assert found == {"coverage": 0.25, "exact_match_covered": 1.0, "exact_match_uncovered": 0.3333}
    assert figures.by_coverage(scores, [False] * 4)["exact_match_covered"] is None


def test_what_is_forgotten_in_a_sequence_is_a_fall() -> None:
    asked = [
        PassageAsked(0, "a", 0, "?", "oats"),
        PassageAsked(0, "a", 1, "?", "barley"),
        PassageAsked(1, "b", 0, "?", "rye"),
    ]
    found = figures.sequence([["oats", "barley"], ["oats", "grey", "rye"]], asked, ["no"] * 3, 1)
    assert found["sequence_by_passage"] == [[1.0], [0.5, 1.0]]
    assert [step["exact_match"] for step in found["sequence"]] == [1.0, 0.6667]
    assert found["sequence"][0]["ci95"] is None  # of one passage
    assert found["sequence_fall"]["difference"] == 0.3333
    assert found["sequence_none"]["exact_match"] == 0.0
    assert found["sequence_refused"] == 1


def test_only_reading_has_the_passage_and_only_memories_answer_the_learnt_arms(
    agent: AgentMemory, file: PassageFile, seen: list[tuple[str, int | None]]
) -> None:
    report = run_passages(agent, file, PassagesOptions(short=True))
    assert tuple(report["arms"]) == tuple(ARMS)
    assert all(arm["n"] == 5 for arm in report["arms"].values())
    none, raw_text, memory, together, context = (seen[at : at + 5] for at in range(0, 25, 5))
    bare = sorted(text for text, _ in none)
    assert all(text.endswith(f"? {SHORT}") and "\n" not in text for text in bare)
    assert all(sorted(text for text, _ in rows) == bare for rows in (raw_text, memory, together))
    assert [len({one for _, one in rows}) for rows in (none, raw_text, memory, together)] == [1, 3, 3, 1]
    assert {one for _, one in none} == {one for _, one in context} == {None}
    assert None not in {one for _, one in (*raw_text, *memory, *together)}
    assert all(any(passage.context.split(". ")[0] in text for passage in file.passages) for text, _ in context)
    assert [report["learnt"][name]["memories"] for name in ("raw_text", "memory", "memory_all")] == [3, 3, 1]


def test_raw_text_is_learnt_by_next_token_loss_at_a_rate_of_its_own(agent: AgentMemory, file: PassageFile) -> None:
    run_passages(agent, file, PassagesOptions(limit=1, without=(PassagesLeftOut.MEMORY_ALL,)))
    found = {
        revision.config_hash: revision.metrics.learning_rate
        for key in agent.users()
        for revision in agent.for_user(key.user, tenant=key.tenant).revisions()
    }
    assert set(found) == {QUICK.digest(), raw_text(QUICK).digest()}
    assert found[raw_text(QUICK).digest()] == LEARNING_RATE != found[QUICK.digest()]


def test_raw_text_is_asked_although_it_drifts_beyond_what_the_gate_allows(
    make_backbone: MakeBackbone, file: PassageFile
) -> None:
    strict = QUICK.model_copy(update={"admission": QUICK.admission.model_copy(update={"max_drift_nats": 1e-9})})
    with AgentMemory(backbone=make_backbone(), store=InMemoryStore(), config=strict) as agent:
        report = run_passages(agent, file, PassagesOptions(limit=1, without=(PassagesLeftOut.MEMORY_ALL,)))
    learnt = report["learnt"]
    assert (learnt["memory"]["memories"], learnt["memory"]["refusals"]) == (0, {"drift": 1})
    assert (learnt["raw_text"]["memories"], learnt["raw_text"]["refusals"]) == (1, {})


def test_run_that_is_given_again_learns_nothing_but_the_sequence(agent: AgentMemory, file: PassageFile) -> None:
    options = PassagesOptions(sequence=3)
    first = run_passages(agent, file, options)
    spans = users(agent)
    again = run_passages(agent, file, options)
    assert users(agent) == spans
    assert again["arms"] == first["arms"]
    assert again["sequence"] == first["sequence"]
    assert [step["n"] for step in first["sequence"]] in ([2, 4, 5], [2, 3, 5], [1, 3, 5])
    assert [len(rates) for rates in first["sequence_by_passage"]] == [1, 2, 3]
    assert sorted(len(each) for each in spans.values()) == [*[1] * 7, 3]  # two of each passage, all at once, in steps


@pytest.mark.parametrize(
    ("stage", "at"), [("raw_text learnt", 3), ("asked: memory", 5), ("sequence learnt", 1), ("sequence learnt", 2)]
)
def test_stopped_run_goes_on_and_asks_only_what_is_missing(
    stage: str,
    at: int,
    make_backbone: MakeBackbone,
    file: PassageFile,
    seen: list[tuple[str, int | None]],
    tmp_path: Path,
) -> None:
    options, store, path = PassagesOptions(sequence=3), InMemoryStore(), tmp_path / "answers.jsonl"

    def stop(name: str, done: int, total: int) -> None:
        if (name, done) == (stage, at):
            raise KeyboardInterrupt

    with AgentMemory(backbone=make_backbone(), store=store, config=QUICK) as agent, pytest.raises(KeyboardInterrupt):
        run_passages(agent, file, options, answers=path, progress=stop)
    asked = len(seen)
    path.write_text(path.read_text(encoding="utf-8") + '{"arm": "memo', encoding="utf-8")  # what a kill leaves
    with AgentMemory(backbone=make_backbone(), store=store, config=QUICK) as agent:
        report = run_passages(agent, file, options, answers=path)
        spans = users(agent)
        whole = len(seen)
        again = run_passages(agent, file, options, answers=path)
    assert whole == 25 + sum(step["n"] for step in report["sequence"])  # each question once, in two runs
    assert asked < whole == len(seen)
    assert sorted(len(each) for each in spans.values()) == [*[1] * 7, 3]
    timed = {"seconds", "asking_seconds"}
    assert {k: v for k, v in report.items() if k not in timed} == {k: v for k, v in again.items() if k not in timed}
    kept = path.read_text(encoding="utf-8")
    assert not any(one.question in kept or one.answer in kept for each in file.passages for one in each.questions)


def test_answers_of_another_run_are_refused_and_of_another_store_not_taken(
    agent: AgentMemory,
    make_backbone: MakeBackbone,
    file: PassageFile,
    seen: list[tuple[str, int | None]],
    tmp_path: Path,
) -> None:
    options, path = PassagesOptions(sequence=2, limit=2), tmp_path / "answers.jsonl"
    run_passages(agent, file, options, answers=path)
    with pytest.raises(ConfigurationError, match="differs in short"):
        run_passages(agent, file, options.model_copy(update={"short": True}), answers=path)
    before = len(seen)
    with AgentMemory(backbone=make_backbone(), store=InMemoryStore(), config=QUICK) as other:
        report = run_passages(other, file, options, answers=path)
    # nothing was learnt there, so what the sequence knew is asked anew; equal memories have given equal answers
    assert len(seen) - before == sum(step["n"] for step in report["sequence"])


def test_sequence_is_asked_with_the_memory_of_its_step(
    agent: AgentMemory, file: PassageFile, seen: list[tuple[str, int | None]]
) -> None:
    left_out = (PassagesLeftOut.RAW_TEXT, PassagesLeftOut.MEMORY_ALL)
    report = run_passages(agent, file, PassagesOptions(sequence=2, without=left_out))
    assert report["arms"]["raw_text"] is None
    assert set(report["over_none"]) == {"memory"}
    steps = [step["n"] for step in report["sequence"]]
    rows = seen[15:]
    assert len(rows) == sum(steps)
    assert len({one for _, one in rows[: steps[0]]}) == 1
    assert {one for _, one in rows[: steps[0]]} != {one for _, one in rows[steps[0] :]}


def test_sequence_is_no_longer_than_the_passages_are_many(agent: AgentMemory, file: PassageFile) -> None:
    with pytest.raises(ConfigurationError, match="sequence of 4 passages"):
        run_passages(agent, file, PassagesOptions(sequence=4))
    with pytest.raises(ConfigurationError, match="there are 2"):
        run_passages(agent, file, PassagesOptions(sequence=3, limit=2))
