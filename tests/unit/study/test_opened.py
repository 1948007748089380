"""Questions from openings: which about a turn are kept, and what of an answer is learnt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date

import pytest

from locas_agent.config import StudySettings
from locas_agent.conversation.messages import Message, question
from locas_agent.inference import Engine
from locas_agent.inference.generation import TopK
from locas_agent.memory import LocasMemory
from locas_agent.study.chunking import Chunk, TurnExcerpt
from locas_agent.study.forms.calibration import Calibration, Chosen
from locas_agent.study.forms.untold import MOST_UNTOLD, SAID_TOKENS, UNTOLD
from locas_agent.study.items import EarlierFact, GeneratedQuestions, Item
from locas_agent.study.opened import FOREIGN_SHARE, OpenedQuestionGenerator
from locas_agent.study.spans import words_of
from locas_agent.study.teacher import Answer, Candidate, Opening, ScoredAnswer, Teacher

SETTINGS = StudySettings(max_rounds=1, wordings_per_turn=2, negatives_per_piece=8)
CALIBRATION = Calibration(
    fingerprint="", dtype="float32", chosen=Chosen(near="text", wide="chat", writing=("ask",), min_confidence=0.3)
)
GAP = "What did I say: "
HEADER: Message = {"role": "system", "content": "Conversation on 3 May 2024."}
DOG = "My dog Kolin is ill since Sunday."
VET = "The vet wants 90 euros for it."

Writes = Callable[[Opening], str]
Reads = Callable[[Candidate], "str | tuple[str, float] | None"]


class FakeTeacher(Teacher):
    """Writes, reads and answers by rules of the test; makes items as every teacher does."""

    def __init__(self, engine: Engine, *, writes: Writes, reads: Reads, bare: str | None = None) -> None:
        super().__init__(engine, SETTINGS, seed=0)
        self._writes, self._reads, self._bare = writes, reads, bare
        self.opened: list[Opening] = []
        self.read: list[Candidate] = []

    def open(self, openings: Sequence[Opening], *, length: int, until: str, temperature: float) -> list[str]:
        self.opened += openings
        return [self._writes(opening) for opening in openings]

    def answer_with_distribution(self, candidates: Sequence[Candidate]) -> list[ScoredAnswer | None]:
        self.read += candidates
        return [self._scored(self._reads(candidate)) for candidate in candidates]

    def answer(
        self, prompts: Sequence[list[Message]], *, memories: Sequence[LocasMemory | None] | None = None
    ) -> list[Answer | None]:
        return [None if self._bare is None else Answer((1,), self._bare, 1.0) for _ in prompts]

    def _scored(self, said: str | tuple[str, float] | None) -> ScoredAnswer | None:
        if said is None:
            return None
        text, confidence = (said, 0.9) if isinstance(said, str) else said
        (given,) = self.given([text])
        return ScoredAnswer(given.ids, text, confidence, given.teacher)


def chunk(*texts: str, start: int = 1, roles: Sequence[str] | None = None, day: date | None = None) -> Chunk:
    said = tuple({"role": (roles or ["user"] * len(texts))[at], "content": text} for at, text in enumerate(texts))
    excerpts = tuple(
        TurnExcerpt(start + at, "I", text, said[at]["role"] == "user", at + 1, day) for at, text in enumerate(texts)
    )
    return Chunk((HEADER, *said), excerpts, start, start + len(texts) - 1)


def only(question: str) -> Writes:
    """Write one question, whatever the opening."""
    return lambda _: f"{question} Well."


def each(*questions: str) -> Writes:
    """Write the questions in turn."""
    at = iter(range(10**6))
    return lambda _: questions[next(at) % len(questions)]


def generated(
    teacher: FakeTeacher, *texts: str, settings: StudySettings = SETTINGS, day: date | None = None
) -> GeneratedQuestions:
    found = OpenedQuestionGenerator(teacher, settings, CALIBRATION).generate(
        {0: chunk(*texts, day=day)}, lambda _: None
    )
    return without_gaps(found[0])


def without_gaps(found: GeneratedQuestions) -> GeneratedQuestions:
    """Leave out what is learnt with a gap, and the turns of which nothing else is."""
    found.items = [item for item in found.items if not item.question.startswith(GAP)]
    asked = {item.turn_seq for item in found.items}
    found.covered &= asked
    return found


def test_what_is_learnt_is_the_span_that_an_answer_points_at(engine: Engine) -> None:
    teacher = FakeTeacher(engine, writes=only("What is my dog called?"), reads=lambda _: "Your dog is called Kolin.")
    found = generated(teacher, DOG)
    (item,) = found.items
    assert (item.question, item.answer, item.turn_seq) == ("What is my dog called?", "Kolin", 1)
    assert item.answer_ids == (*engine.backbone.encode("Kolin"), engine.backbone.end_id)
    assert item.teacher.logprobs.exp().sum() == len(item.answer_ids)  # all weight on what is to be said
    assert (found.carrying, found.covered, found.nothing) == ({1}, {1}, 0)
    assert found.sampled == len(teacher.opened) > 10


@pytest.mark.parametrize(
    "answer",
    [
        None,  # did not end in time
        "I do not know.",
        "A cat named Mitzi.",  # points at nothing of the turn
        ("Your dog is called Kolin.", 0.2),  # not believed
        "Your dog.",  # what was asked with
        "Kolin, Bruno, Rex, Hasso and Waldi.",  # invented for the most part
    ],
)
def test_what_gives_no_believed_span_is_dropped(engine: Engine, answer: str | tuple[str, float] | None) -> None:
    found = generated(FakeTeacher(engine, writes=only("Who is my dog?"), reads=lambda _: answer), DOG)
    assert found.items == []
    assert found.covered == set()


def test_share_of_invented_words_has_a_bound(engine: Engine) -> None:
    assert 0 < FOREIGN_SHARE < 1
    reads = iter(["Kolin, a beagle.", "Kolin, a handsome beagle puppy."])
    teacher = FakeTeacher(engine, writes=each("What is my dog called?", "Who is my dog?"), reads=lambda _: next(reads))
    assert [item.question for item in generated(teacher, DOG).items] == ["What is my dog called?"]


def test_what_the_bare_backbone_says_by_itself_is_not_learnt(engine: Engine) -> None:
    teacher = FakeTeacher(
        engine, writes=only("What is my dog called?"), reads=lambda _: "Kolin.", bare="It is Kolin, I guess."
    )
    found = generated(teacher, DOG)
    assert found.items == []
    assert (found.carrying, found.covered) == ({1}, set())


@pytest.mark.parametrize(("asked", "kept"), [("When is my dog due?", ["24 May 2024"]), ("What is my dog?", [])])
@pytest.mark.parametrize("told", ["My dog is due three weeks from today.", "My dog is due tomorrow."])
def test_what_points_at_a_dating_phrase_is_learnt_as_the_date(
    engine: Engine, told: str, asked: str, kept: list[str]
) -> None:
    said = "It is three weeks from today." if "three" in told else "It is tomorrow."
    day = date(2024, 5, 3) if "three" in told else date(2024, 5, 23)
    teacher = FakeTeacher(engine, writes=only(asked), reads=lambda _: said)
    assert [item.answer for item in generated(teacher, told, day=day).items] == kept


def test_wordings_of_one_span_are_bounded_and_the_surest_kept(engine: Engine) -> None:
    sure = {
        "What is my dog called?": 0.5,
        "Who is my dog?": 0.9,
        "Which dog is ill?": 0.7,
        "Since when is he ill?": 0.4,
    }
    teacher = FakeTeacher(
        engine,
        writes=each(*sure),
        reads=lambda asked: ("Sunday" if "when" in asked.question else "Kolin", sure[asked.question]),
    )
    found = [(item.question, item.answer) for item in generated(teacher, DOG).items]
    assert sorted(found) == [
        ("Since when is he ill?", "Sunday"),
        ("Which dog is ill?", "Kolin"),
        ("Who is my dog?", "Kolin"),
    ]


def test_one_question_is_read_once_and_alone_first(engine: Engine) -> None:
    teacher = FakeTeacher(engine, writes=only("How much does it cost?"), reads=lambda _: None)
    generated(teacher, DOG, VET)
    of_vet = [asked for asked in teacher.read if asked.turn_seq == 2]
    assert [[message["content"] for message in asked.read] for asked in of_vet] == [
        [HEADER["content"], VET],
        [HEADER["content"], DOG, VET],  # nothing was found with the turn alone
    ]
    assert all(asked.form.name == "text" for asked in of_vet)


def test_turns_that_may_not_be_learnt_are_not_asked_about(engine: Engine) -> None:
    teacher = FakeTeacher(engine, writes=only("What is my dog called?"), reads=lambda _: "Kolin.")
    generator = OpenedQuestionGenerator(teacher, SETTINGS, CALIBRATION)
    found = generator.generate(
        {0: chunk(DOG, "Poor Kolin!", "Ok", roles=("user", "assistant", "user"))}, lambda _: None
    )[0]
    assert {asked.turn_seq for asked in teacher.read} == {1}  # "Ok" says nothing
    assert {item.turn_seq for item in found.items} == {1}


def test_a_turn_with_enough_is_not_asked_again_and_each_round_is_told(engine: Engine) -> None:
    settings = SETTINGS.model_copy(update={"max_rounds": 3})
    chosen = CALIBRATION.chosen.model_copy(update={"writing": ("ask", "later")})
    both = CALIBRATION.model_copy(update={"chosen": chosen})
    rounds: list[int] = []
    enough = FakeTeacher(engine, writes=each("What is my dog called?", "Who is my dog?"), reads=lambda _: "Kolin.")
    OpenedQuestionGenerator(enough, settings, both).generate({0: chunk(DOG)}, rounds.append)
    nothing = FakeTeacher(engine, writes=only("no question"), reads=lambda _: None)
    OpenedQuestionGenerator(nothing, settings, both).generate({0: chunk(DOG)}, rounds.append)
    assert rounds == [1, 1, 2]  # one round for each form of writing
    assert len(nothing.opened) == 2 * len(enough.opened)
    assert len({opening.place for opening in nothing.opened}) == len(nothing.opened)  # a stream each


def test_users_side_by_side_keep_apart(engine: Engine) -> None:
    teacher = FakeTeacher(
        engine,
        writes=only("What is my dog called?"),
        reads=lambda asked: "Kolin." if any("Kolin" in each["content"] for each in asked.read) else "Bruno.",
    )
    chunks = {0: chunk(DOG), 7: chunk("My dog Bruno is fine.")}
    found = OpenedQuestionGenerator(teacher, SETTINGS, CALIBRATION).generate(chunks, lambda _: None)
    answers = {owner: [item.answer for item in without_gaps(one).items] for owner, one in found.items()}
    assert answers == {0: ["Kolin"], 7: ["Bruno"]}


def test_what_no_question_asks_for_is_learnt_with_a_gap(engine: Engine) -> None:
    teacher = FakeTeacher(engine, writes=only("What is my dog called?"), reads=lambda _: "Kolin.")
    found = OpenedQuestionGenerator(teacher, SETTINGS, CALIBRATION).generate(
        {0: chunk(DOG, "lovely weather")}, lambda _: None
    )[0]
    gaps = {item.answer: item.question for item in found.items if item.question.startswith(GAP)}
    assert "Kolin" not in gaps  # asked for already
    assert gaps["Sunday"] == 'What did I say: "My dog Kolin is ill since ..."?'
    assert {item.turn_seq for item in found.items} == {1}  # small talk names nothing


def fact(question: str) -> EarlierFact:
    return EarlierFact((Item("0" * 32, "question", 1, 1, 1, question, "Kolin", (1,), TopK.__new__(TopK)),), DOG)


def test_an_old_question_is_put_to_the_turns_that_share_its_words(engine: Engine) -> None:
    generator = OpenedQuestionGenerator(
        FakeTeacher(engine, writes=only(""), reads=lambda _: None), SETTINGS, CALIBRATION
    )
    later = chunk("It rained.", "My new dog is Bruno.", "A dog!", "The dog and the vet are new.", start=5)
    asked = generator.asked_again(0, later, fact("What is the name of my new dog?"), [])
    assert [candidate.read[-1]["content"] for candidate in asked] == [
        "My new dog is Bruno.",
        "The dog and the vet are new.",
    ]
    assert all(candidate.read[0] == HEADER for candidate in asked)
    assert all(candidate.question == "What is the name of my new dog?" for candidate in asked)
    assert generator.asked_again(0, chunk("It rained."), fact("What is the name of my new dog?"), []) == []
    assert generator.asked_again(0, later, fact("Who am I?"), []) == []


def test_an_old_question_is_learnt_with_the_span_of_the_new_item(engine: Engine) -> None:
    teacher = FakeTeacher(engine, writes=only("What is my dog called?"), reads=lambda _: "Your dog is Kolin.")
    (source,) = generated(teacher, DOG).items
    said = teacher._scored("Your dog is Kolin.")
    assert said is not None
    told = OpenedQuestionGenerator(teacher, SETTINGS, CALIBRATION).retold(said, source)
    assert (told.text, told.ids) == ("Kolin", source.answer_ids[:-1])


def test_negatives_share_no_telling_word_with_any_piece(engine: Engine) -> None:
    generator = OpenedQuestionGenerator(
        FakeTeacher(engine, writes=only(""), reads=lambda _: None), SETTINGS, CALIBRATION
    )
    told = [chunk(DOG, "My mother's name is Ada."), chunk("I collect stamps and I work in a bank.", start=3)]
    known = {text for text in UNTOLD if "phone" in text}
    found = generator.negatives({3: told}, {3: known})
    assert 0 < len(found) <= min(MOST_UNTOLD, SETTINGS.negatives_per_piece)  # noise of a random backbone is left out
    asked = [candidate.question for candidate, _ in found]
    assert len(set(asked)) == len(asked)
    assert not known & set(asked)
    said = {word.key for each in told for excerpt in each.excerpts for word in words_of(excerpt.text)}
    for text in asked:
        assert not said & {word.key for word in words_of(text) if word.carries}
    bare = engine.generate([engine.backbone.encode_chat(question(text)) for text in asked], max_new_tokens=SAID_TOKENS)
    assert [answer.ids for _, answer in found] == [said.ids for said in bare]
    assert {candidate.turn_seq for candidate, _ in found} == {3}
    assert generator.negatives({3: told}, {3: set(UNTOLD)}) == []


def test_untold_questions_are_one_persons_own() -> None:
    assert len(set(UNTOLD)) == len(UNTOLD) >= 90
    for text in UNTOLD:
        assert text.endswith("?")
        assert {"my", "i", "me", "mine"} & {word.text.casefold() for word in words_of(text)}
        assert any(word.carries for word in words_of(text))
