"""The scribe: its lessons, its forms, and which of its questions are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from locas_agent.config import StudySettings
from locas_agent.conversation.messages import Message, question
from locas_agent.inference import Engine
from locas_agent.inference.batching import KeptBeginnings
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.study.chunking import Chunk, TurnExcerpt
from locas_agent.study.dates.found import asks_for_day
from locas_agent.study.forms.reading import ReadingForm
from locas_agent.study.forms.untold import SAID_TOKENS, draw_untold
from locas_agent.study.items import NEGATIVE, EarlierFact, GeneratedQuestions, StudyRequest
from locas_agent.study.scribe.asked_turn import ASKED, DAY_ASKED, AskedTurn
from locas_agent.study.scribe.forms import answer_in, opening_of, pair_of, question_in, to_read, to_write
from locas_agent.study.scribe.lessons import held_out, lesson_turns, taught
from locas_agent.study.scribe.question_generation import ANSWERS, SMALL_TALK, ScribeQuestionGenerator
from locas_agent.study.scribe.retelling import told_otherwise
from locas_agent.study.self_study import SelfStudy
from locas_agent.study.teacher import Candidate, Opening, ScoredAnswer, Teacher
from locas_agent.training.initialization import empty_memory
from tests.unit.core.counting import Counting

SETTINGS = StudySettings(wordings_per_turn=3, negatives_per_piece=6)
HEADER: Message = {"role": "system", "content": "Conversation on 3 May 2024."}
HERS = "My dog, Kolin is ill since Sunday."
DOG, NEW = "The dog Kolin is ill since Sunday.", "Balu"

Writes = Callable[[str], str]
Believes = Callable[[str, str], float]


class FakeTeacher(Teacher):
    """Writes after an opening and believes answers by rules of the test; makes items as every teacher does."""

    def __init__(
        self, engine: Engine, *, writes: Writes, believes: Believes, bare: float = 0.0, fits: float = 1.0
    ) -> None:
        super().__init__(engine, SETTINGS, seed=0)
        self._writes, self._believes, self._bare, self._fits = writes, believes, bare, fits
        self.opened: list[str] = []
        self.written_to: list[Sequence[Message]] = []
        self.says: str | None = None
        self.falls = 0.0
        self.reads: Callable[[str], str] = lambda _: "nothing"
        self.read_aloud: list[str] = []

    def open(
        self,
        openings: Sequence[Opening],
        *,
        length: int,
        until: str,
        temperature: float = 0.0,
        scribe: LocasMemory | None = None,
        begun: KeptBeginnings | None = None,
    ) -> list[str]:
        assert scribe is not None
        self.opened += [opening.words for opening in openings]
        self.written_to += [opening.messages for opening in openings]
        behind = [opening.words.removesuffix(" Which").removesuffix(" What") for opening in openings]
        return [words + self._writes(words) for words in behind]  # a rule of a test writes whole questions

    def answer_with_distribution(self, candidates: Sequence[Candidate]) -> list[ScoredAnswer | None]:
        """Answer what was asked before with the new name where the turn read has it, else as before."""
        said = [self.says or (NEW if NEW in each.prompt[-1]["content"] else each.written) for each in candidates]
        return [replace(each, confidence=0.9) for each in self.given(said)]

    def fitting(
        self,
        written: Sequence[tuple[Sequence[Message], tuple[str, str]]],
        *,
        scribe: LocasMemory | None = None,
        begun: KeptBeginnings | None = None,
    ) -> list[float]:
        assert scribe is not None
        fits = [self._fits - self.falls * at for at in range(len(written))]
        return [0.0 if SMALL_TALK in w[0][-1]["content"] else fit for w, fit in zip(written, fits, strict=True)]

    def begun_answers(self, prompts: Sequence[list[Message]], keys: Sequence[object], *, length: int) -> list[str]:
        self.read_aloud += [prompt[-1]["content"] for prompt in prompts]
        return [f"I read that it is {self.reads(prompt[-1]['content'])}, as you say." for prompt in prompts]

    def believed(
        self,
        answers: Sequence[tuple[Sequence[Message], Sequence[str]]],
        keys: Sequence[object] | None = None,
        *,
        scribe: LocasMemory | None = None,
        begun: KeptBeginnings | None = None,
    ) -> list[list[float]]:
        return [
            [self._bare if scribe is None else self._believes(p[-1]["content"], answer) for answer in texts]
            for p, texts in answers
        ]


def chunk(*texts: str, day: date | None = None, start: int = 1) -> Chunk:
    said: tuple[Message, ...] = tuple({"role": "user", "content": text} for text in texts)
    excerpts = tuple(TurnExcerpt(start + at, "I", text, True, at + 1, day) for at, text in enumerate(texts))
    return Chunk((HEADER, *said), excerpts, start, start + len(texts) - 1)


def dialogue(*said: tuple[str, str]) -> Chunk:
    """A chunk in which named people talk, each turn headed by its name as in a journal."""
    messages = tuple[Message, ...]({"role": "user", "content": f"{name}: {text}"} for name, text in said)
    excerpts = tuple(
        TurnExcerpt(at, name, message["content"], True, at)
        for at, ((name, _), message) in enumerate(zip(said, messages, strict=True), start=1)
    )
    return Chunk((HEADER, *messages), excerpts, 1, len(said))


def scribe_on(engine: Engine) -> LocasMemory:
    """A memory without rows; the teacher of these tests asks only whether there is one."""
    return empty_memory(engine, (-1,), width=2, scale_rule="width")


def generated(
    engine: Engine, *texts: str, writes: Writes, believes: Believes, bare: float = 0.0, day: date | None = None
) -> GeneratedQuestions:
    teacher = FakeTeacher(engine, writes=writes, believes=believes, bare=bare)
    return ScribeQuestionGenerator(teacher, SETTINGS, scribe_on(engine)).generate(
        {0: chunk(*texts, day=day)}, lambda _: None
    )[0]


def about_the_dog(words: str) -> str:
    return " What's my dog called?" if words.endswith("|") else "Kolin | What's my dog called?"


def surely(asked: str, answer: str) -> float:
    return 0.9 if answer == "Kolin" else 0.0


def test_every_lesson_can_be_learnt_and_asked() -> None:
    seen = set()
    for each in lesson_turns():
        assert each.turn not in seen
        seen.add(each.turn)
        for fact in each.facts:
            assert fact.answer in each.turn
            for asked in fact.questions:
                assert asked.endswith("?")
                assert fact.answer.casefold() not in asked.casefold()


def test_held_out_lessons_are_not_taught() -> None:
    assert {each.turn for each in held_out()}.isdisjoint(each.turn for each in taught())
    assert len(held_out()) > 20
    assert all(each.facts for each in taught())


def test_a_pair_is_read_as_it_is_written() -> None:
    text = pair_of("Kolin", "What's my dog called?")
    assert answer_in(text) == "Kolin"
    assert question_in(text) == "What's my dog called?"
    assert text.startswith(opening_of("Kolin"))


@pytest.mark.parametrize("text", ["", "Kolin", "Kolin |", "Kolin | a dog.", "Kolin | ?", "| \n"])
def test_what_is_no_question_is_none(text: str) -> None:
    assert question_in(text) is None


def test_writing_and_reading_begin_alike() -> None:
    written, read = to_write(DOG)[0]["content"], to_read(DOG, "Who?")[0]["content"]
    assert written.startswith(read[: read.index("They ask")])


def test_what_is_named_asked_and_read_becomes_an_item(engine: Engine) -> None:
    found = generated(engine, DOG, writes=about_the_dog, believes=surely)
    assert [(item.question, item.answer, item.turn_seq) for item in found.items] == [
        ("What's my dog called?", "Kolin", 1)
    ]
    assert found.covered == found.carrying == {1}


@pytest.mark.parametrize(("fits", "kept"), [(1.0, 2), (0.2, 1)])
def test_of_wordings_that_suit_any_turn_one_is_kept(engine: Engine, fits: float, kept: int) -> None:
    wordings = iter([" What's my dog called?", " Who is ill?"] * 9)

    def writes(words: str) -> str:
        return next(wordings) if words == "Kolin |" else "Kolin"

    teacher = FakeTeacher(engine, writes=writes, believes=surely, fits=fits)
    teacher.falls = 0.1
    found = ScribeQuestionGenerator(teacher, SETTINGS, scribe_on(engine)).generate({0: chunk(DOG)}, lambda _: None)[0]
    assert len(found.items) == kept


AS_CHAT = ReadingForm("chat", lambda messages, asked: [*messages, {"role": "user", "content": asked}])


def confirmed(engine: Engine, text: str, *, writes: Writes, reads: Callable[[str], str]) -> set[tuple[str, str]]:
    """What is kept where the bare backbone reads so, and is asked."""
    teacher = FakeTeacher(engine, writes=writes, believes=lambda *_: 0.9)
    teacher.reads = reads
    generator = ScribeQuestionGenerator(teacher, SETTINGS, scribe_on(engine), reader=AS_CHAT)
    found = generator.generate({0: chunk(text, day=date(2026, 4, 27))}, lambda _: None)[0]
    assert not any(asked.startswith("When") for asked in teacher.read_aloud)
    return {(item.question, item.answer) for item in found.items}


def test_what_a_good_reader_answers_otherwise_is_dropped(engine: Engine) -> None:
    told = "the axolotl ate half of the cake and is fine"

    def writes(words: str) -> str:
        asked = {"fine |": " What did the axolotl eat?", "half |": " How much cake is gone?"}
        return asked.get(words, "") if words else next(named)

    named = iter(["fine |", "half |"] * 20)
    kept = confirmed(engine, told, writes=writes, reads=lambda asked: "half" if "cake" in asked else "cake")
    assert kept == {("How much cake is gone?", "half")}


def test_of_a_name_one_wording_stays_and_a_date_is_not_read(engine: Engine) -> None:
    wordings = iter([" What's my dog called?", " Who's ill?"] * 40)

    def writes(words: str) -> str:
        if not words:
            return "Kolin |"
        return " When was Kolin ill?" if "Sunday" in words else next(wordings)

    kept = confirmed(engine, DOG, writes=writes, reads=lambda _: "nobody")
    assert sum(answer == "Kolin" for _, answer in kept) == 1
    assert {answer for _, answer in kept if answer != "Kolin"} == {"26 April 2026"}


def test_of_wordings_that_are_read_those_unlike_each_other_are_kept(engine: Engine) -> None:
    """Four of them say the same; the worst read of all asks in other words."""
    alike = [
        "Where does my dog sleep?",
        "Where does my dog sleep now?",
        "Where did my dog sleep?",
        "Where my dog sleeps?",
    ]
    wordings = iter([*alike, "Which room has the basket?", "What's the puppy's place?"])

    def writes(words: str) -> str:
        return f" {next(wordings)}" if words.startswith("kitchen") else "" if words else "kitchen | Who?"

    def believes(asked: str, answer: str) -> float:
        return 0.0 if answer != "kitchen" else 0.6 if "room" in asked or "puppy" in asked else 0.8

    found = generated(engine, "The dog sleeps in our kitchen.", writes=writes, believes=believes)
    kept = {item.question for item in found.items if item.answer == "kitchen"}
    assert kept == {"Where does my dog sleep?", "Which room has the basket?", "What's the puppy's place?"}


@pytest.mark.parametrize(("named", "is_learnt"), [(1, False), (2, True)])
def test_what_is_asked_for_in_vain_most_of_the_time_is_learnt_where_it_was_named_twice_alone(
    engine: Engine, named: int, is_learnt: bool
) -> None:
    """One question of four is answered with it."""
    named_ones = iter(["basket | Where?"] * named)
    wordings = iter(["What does she chew?", "Who sleeps?", "Where is she?", "Which bed is hers?"])

    def writes(words: str) -> str:
        if not words:
            return next(named_ones, "")
        return f" {next(wordings, 'Who sleeps?')}" if words.startswith("basket") else ""

    found = generated(engine, "she sleeps in a basket", writes=writes, believes=lambda asked, _: 0.9 * ("bed" in asked))
    assert [item.question for item in found.items] == ["Which bed is hers?"] * is_learnt


def test_what_is_not_read_back_is_dropped(engine: Engine) -> None:
    found = generated(engine, DOG, writes=about_the_dog, believes=lambda asked, _: 0.9 * ("They" not in asked))
    assert found.items == []
    assert found.nothing == 1


@pytest.mark.parametrize(
    ("belief", "rival", "is_named", "kept"),
    [(0.06, 0.01, True, 1), (0.06, 0.05, True, 0), (0.01, 0.0, True, 0), (0.06, 0.01, False, 0)],
    ids=["before all else", "with a rival", "hardly", "a word that nobody named"],
)
def test_of_an_answer_read_with_little_probability_a_question_is_kept_where_no_word_has_more(
    engine: Engine, belief: float, rival: float, is_named: bool, kept: int
) -> None:
    def writes(words: str) -> str:
        return ("ill | Who?" if is_named else "") if not words else " What's my dog now?"

    def believes(asked: str, answer: str) -> float:
        return {"ill": belief, "Kolin": 0.0}.get(answer, rival) if "They ask" in asked else float(answer == "ill")

    told = "The dog, that is Kolin, is ill."
    found = generated(engine, told, writes=writes, believes=believes)
    assert sum(item.answer == "ill" for item in found.items) == kept


def test_every_name_in_a_turn_is_asked_for_however_little_the_scribe_thinks_of_it(engine: Engine) -> None:
    teacher = FakeTeacher(engine, writes=lambda words: "" if words else "Kolin |", believes=lambda *_: 0.0)
    told = "So my dog Kolin barks at Trieste from the quiet garden."
    ScribeQuestionGenerator(teacher, SETTINGS, scribe_on(engine)).generate({0: chunk(told)}, lambda _: None)
    assert {"Kolin |", "Trieste |"} <= set(teacher.opened)
    assert "garden |" not in teacher.opened


def test_of_words_that_nobody_named_the_likeliest_are_asked_for_from_where_they_are_likeliest(engine: Engine) -> None:
    """Not the longest: "pepper" is what somebody is allergic to, whatever stands beside it."""
    likely = {"pepper": 0.05, "mild": 0.01, "grilled": 0.02, "aubergines": 0.004}

    def believes(asked: str, answer: str) -> float:
        return likely.get(answer.partition(" ")[0], 0.0)

    teacher = FakeTeacher(engine, writes=lambda words: "", believes=believes)
    told = "Obviously everything delicious, otherwise nobody remembers, though we had mild pepper, grilled aubergines"
    ScribeQuestionGenerator(teacher, SETTINGS, scribe_on(engine)).generate({0: chunk(told)}, lambda _: None)
    asked = list(dict.fromkeys(words.partition(" |")[0] for words in teacher.opened if words))
    assert asked == ["pepper", "grilled aubergines"]


def test_questions_for_what_somebody_is_are_begun_as_such(engine: Engine) -> None:
    teacher = FakeTeacher(engine, writes=lambda words: "" if words else "Kolin |", believes=lambda *_: 0.0)
    told = "Teo drives Kolin, he's a firefighter."
    ScribeQuestionGenerator(teacher, SETTINGS, scribe_on(engine)).generate({0: chunk(told)}, lambda _: None)
    begun = [words.partition("|")[2] for words in teacher.opened if words.startswith("firefighter")]
    assert begun == ["", " What does", " What do", "", " What is", " What's"] * 2
    assert [words.partition("|")[2] for words in teacher.opened if words.startswith("Kolin")] == [*ASKED, *ASKED]


SISTER = "picking my sister Paloma up at the airport"


def test_what_is_told_outright_is_asked_for_without_a_scribe_where_the_name_is_read(engine: Engine) -> None:
    """Nobody named anything, and no question was written."""

    def reads(asked: str, answer: str) -> float:
        return 0.9 if answer == "Paloma" and "my sister" in asked else 0.0

    found = generated(engine, SISTER, writes=lambda _: "", believes=reads)
    assert {(item.question, item.answer) for item in found.items} == {
        ("What is my sister's name?", "Paloma"),
        ("Who is my sister?", "Paloma"),
        ("What is my sister called?", "Paloma"),
        ("Who is Paloma?", "sister"),  # a small reader says what she does
        ("Who is Paloma to me?", "sister"),
    }
    assert generated(engine, SISTER, writes=lambda _: "", believes=lambda *_: 0.0).items == []
    among = dialogue(("Ada", SISTER), ("Ben", "How sad for her."))
    teacher = FakeTeacher(engine, writes=lambda _: "", believes=reads)
    (items,) = (
        ScribeQuestionGenerator(teacher, SETTINGS, scribe_on(engine)).generate({0: among}, lambda _: None).values()
    )
    assert {"Who is Ada's sister?", "Who is Paloma to Ada?"} <= {item.question for item in items.items}


def test_what_is_told_outright_stays_among_the_wordings_and_need_not_be_about_the_turn(engine: Engine) -> None:
    """Any turn suits such a question."""
    wordings = iter(f" Who sings song {number}?" for number in range(90))

    def writes(words: str) -> str:
        return next(wordings) if words.startswith("vet |") else "" if words else "vet |"

    teacher = FakeTeacher(
        engine, writes=writes, believes=lambda asked, answer: 0.5 + 0.4 * ("sings" in asked), fits=0.1
    )
    (found,) = (
        ScribeQuestionGenerator(teacher, SETTINGS, scribe_on(engine))
        .generate({0: chunk("so I'm a vet of sorts")}, lambda _: None)
        .values()
    )
    asked = [item.question for item in found.items if item.answer == "vet"]
    assert {"What do I do for a living?", "What is my job?", "What is my profession?"} < set(asked)
    assert len(asked) == 3 + SETTINGS.wordings_per_turn  # they stand beside what a scribe wrote


def test_what_the_bare_backbone_says_is_left_out(engine: Engine) -> None:
    found = generated(engine, DOG, writes=about_the_dog, believes=surely, bare=0.9)
    assert found.items == []
    assert found.carrying == {1}


def test_an_answer_that_does_not_stand_in_the_turn_is_not_asked_for(engine: Engine) -> None:
    teacher = FakeTeacher(engine, writes=lambda words: "Rex | Who?", believes=surely)
    ScribeQuestionGenerator(teacher, SETTINGS, scribe_on(engine)).generate(
        {0: chunk("It rained all day here.")}, lambda _: None
    )
    assert not any(words.startswith("Rex") for words in teacher.opened)


def test_a_question_that_says_its_answer_is_dropped(engine: Engine) -> None:
    def tells(words: str) -> str:
        return " Who is Kolin?" if words.endswith("|") else "Kolin |"

    assert generated(engine, DOG, writes=tells, believes=surely).items == []


def test_spans_are_learnt_as_the_turn_spells_them(engine: Engine) -> None:
    def lower(words: str) -> str:
        return about_the_dog(words).replace("Kolin", "kolin")

    (item,) = generated(engine, DOG, writes=lower, believes=surely).items
    assert item.answer == "Kolin"


def test_what_was_told_is_not_drawn_as_never_told_in_other_small_words(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, pool = Teacher(engine, SETTINGS, seed=0), ("What's my job?", "Who cuts my hair?")
    monkeypatch.setattr(teacher, "by_itself", lambda asked, length: teacher.given(["I cannot say."] * len(asked)))
    found = draw_untold(teacher, pool, {0: [chunk("I'm a vet.")]}, {0: {"What is my job?"}}, most=6)
    assert [candidate.question for candidate, _ in found] == ["Who cuts my hair?"]


def test_negatives_share_no_telling_word_with_what_was_said(engine: Engine) -> None:
    teacher = FakeTeacher(engine, writes=about_the_dog, believes=surely)
    found = ScribeQuestionGenerator(teacher, SETTINGS, scribe_on(engine)).negatives({0: [chunk(DOG)]}, {0: set()})
    assert 0 < len(found) <= SETTINGS.negatives_per_piece
    assert all("dog" not in candidate.question.casefold() for candidate, _ in found)
    (item, *_) = teacher.to_items([(candidate, answer, NEGATIVE) for candidate, answer in found])
    assert item is not None
    (said,) = engine.generate([engine.backbone.encode_chat(question(item.question))], max_new_tokens=SAID_TOKENS)
    assert item.answer_ids == said.ids  # the beginning of a longer answer: no token ends it
    assert len(item.teacher.ids) == len(said.ids) == SAID_TOKENS


def test_where_several_people_talk_questions_are_about_them_by_name(engine: Engine) -> None:
    teacher = FakeTeacher(engine, writes=about_the_dog, believes=surely)
    generator = ScribeQuestionGenerator(teacher, SETTINGS, scribe_on(engine))
    both, alone = dialogue(("Ada", HERS), ("Ben", "How sad for Kolin.")), dialogue(("Ada", HERS))
    items = {owner: found.items for owner, found in generator.generate({0: both, 1: alone}, lambda _: None).items()}
    assert [(each.turn_seq, each.question) for each in items[0]] == [
        (1, "What's Ada's dog called?"),
        (1, "Ada: What's my dog called?"),  # as it stands in the prompt of a reply to her
        (2, "What's Ben's dog called?"),
        (2, "Ben: What's my dog called?"),
    ]
    assert [each.question for each in items[1]] == ["What's my dog called?"]
    assert {prompt[0]["content"] for prompt in teacher.written_to} == {
        to_write(text)[0]["content"] for text in (HERS, "How sad for Kolin.")
    }  # who wrote the lessons had no name before what was said
    untold = generator.negatives({0: [both], 1: [alone]}, {0: set(), 1: set()})
    among, by_oneself = (" ".join(each.question for each, _ in untold if each.owner == owner) for owner in (0, 1))
    assert {"Ada", "Ben"} & set(among.replace("'s", "").split())
    assert not {"my", "I", "us"} & set(among.replace("?", "").split())
    assert by_oneself
    assert "Ada" not in by_oneself
    fact = EarlierFact(tuple(items[0][:1]), HERS)
    news = [replace(items[0][0], turn_seq=seq, answer=NEW) for seq in (1, 2)]
    changed = dialogue(("Ada", f"The dog is called {NEW} now."), ("Ben", f"My dog is called {NEW} now."))
    asked = generator.asked_again(0, changed, fact, news)
    assert [each.excerpt.speaker for each in asked if each.excerpt] == ["Ada"]


def test_a_number_is_learnt_with_what_it_counts_and_a_time_of_day_as_a_whole(engine: Engine) -> None:
    """The scribe names a part of it, and thinks little of the whole."""
    turn = "I have 6,500 kroner for it, and take the drops at a quarter to seven."

    def part(words: str) -> str:
        asked = " When do I take them?" if "seven" in words else " How much?"
        return asked if words.endswith("|") else "kroner | How much?"

    wholes = {"6,500 kroner", "quarter to seven"}
    found = generated(engine, turn, writes=part, believes=lambda asked, answer: 0.05 if answer in wholes else 0.001)
    assert {item.answer for item in found.items} == wholes


def test_what_is_read_out_is_not_asked_for_as_ones_own(engine: Engine) -> None:
    wordings = iter((" What's my dog called?", " What's the dog called?") * 100)

    def either(words: str) -> str:
        return next(wordings) if words.endswith("|") else "Kolin | What's the dog called?"

    told = "The dog Kolin is ill since Sunday."
    rest = (
        "Hounds of that breed catch colds in spring, as farmers along the river know, who keep them in barns of stone."
    )
    for texts, expected in (
        ((told, rest, rest), {"What's the dog called?"}),
        ((told, "I read on."), {"What's the dog called?", "What's my dog called?"}),
    ):
        found = generated(engine, *texts, writes=either, believes=surely)
        assert {item.question for item in found.items} == expected


def test_some_wordings_of_an_old_fact_are_put_to_the_turns_that_may_tell_it_otherwise(engine: Engine) -> None:
    scribe = scribe_on(engine)
    generator = ScribeQuestionGenerator(FakeTeacher(engine, writes=about_the_dog, believes=surely), SETTINGS, scribe)
    (item,) = generator.generate({0: chunk(DOG)}, lambda _: None)[0].items
    wordings = [
        replace(item, question=asked) for asked in ("What's my dog called?", "Who barks?", "Who is my pet?", "Who?")
    ]
    fact = EarlierFact(tuple(wordings), DOG)
    later = chunk("It rained.", "We call the dog Balu now.", "A pet named Olaf!", "I ate 12 plums.", "Oslo!")
    news = [
        replace(item, turn_seq=seq, answer=said) for seq, said in ((2, "Balu"), (3, "Olaf"), (4, "12"), (5, "Oslo"))
    ]
    asked = generator.asked_again(0, later, fact, news)
    assert all(each.scribe is scribe and each.told == DOG for each in asked)
    assert [(each.excerpt.text, each.question) for each in asked if each.excerpt] == [
        ("We call the dog Balu now.", "What's my dog called?"),  # it says that something changed
        ("We call the dog Balu now.", "Who barks?"),
        ("We call the dog Balu now.", "Who is my pet?"),
        ("A pet named Olaf!", "Who is my pet?"),  # of the others the one with most words of the fact
        ("A pet named Olaf!", "What's my dog called?"),
        ("A pet named Olaf!", "Who barks?"),
    ]
    assert [each.prompt for each in asked] == [list(to_read(each.excerpt.text, each.question)) for each in asked]
    assert generator.asked_again(0, later, fact, news[2:3]) == []  # a number does not take the place of a name


def again(turn: str, old: str, asked: str, told: str, *, seq: int = 2) -> Candidate:
    """An old question as it is put to a new turn."""
    later = chunk("It rained.", turn)
    return Candidate(0, later, seq, asked, old, excerpt=later.excerpts[1], told=told)


@pytest.mark.parametrize(
    ("turn", "confidence", "much", "is_sure"),
    [
        (f"The dog is {NEW} now.", 0.9, 0.0, True),
        (f"The dog is {NEW} now.", 0.4, 1.0, False),
        (f"The dog is {NEW} now.", 0.9, -1.0, False),
        (f"The dog is {NEW}.", 0.9, 1.0, False),
        (f"The dog is {NEW}.", 0.9, 2.5, True),
    ],
    ids=str,
)
def test_a_scribe_is_sure_of_what_a_turn_says_to_be_otherwise_now(
    engine: Engine, turn: str, confidence: float, much: float, is_sure: bool
) -> None:
    teacher = FakeTeacher(engine, writes=about_the_dog, believes=surely, fits=much)
    (given,) = teacher.given([NEW])
    asked = again(turn, "Kolin", "What is my dog called?", DOG)
    found = ScribeQuestionGenerator(teacher, SETTINGS, scribe_on(engine)).are_sure(
        [(asked, replace(given, confidence=confidence))]
    )
    assert found == [is_sure]


def test_a_value_takes_the_place_of_the_one_fact_that_it_fits_best(engine: Engine) -> None:
    (given,) = Teacher(engine, SETTINGS, seed=0).given(["Utrecht"])
    said = replace(given, confidence=0.9)
    turn = "We live in Utrecht now, by the river."
    answers = [
        (again(turn, "Trieste", "Where does my aunt live?", "My aunt is in Trieste."), said),
        (again(turn, "Oslo", "Where do I live?", "I live by the river in Oslo."), said),
        (again(turn, "12", "How many rivers?", "There are 12."), said),  # of another kind
        (again(turn, "Bergen", "Where is the river?", "From Bergen to Utrecht by the river."), said),  # known then
    ]
    assert told_otherwise(answers, [0.5, 0.5, 3.0, 3.0]) == [False, True, False, False]


def test_what_somebody_is_is_asked_for_as_a_whole_whoever_names_a_part_of_it() -> None:
    said = chunk("No more teeth, I'm a kiln technician at the pottery now.")
    turn = AskedTurn(0, said, said.excerpts[0])
    turn.name("technician")
    turn.name("pottery")
    turn.settle(["teeth"])
    assert [(span.text, span.votes, span.is_worth_more) for span in turn.spans.values()] == [
        ("kiln technician", 1, True),
        ("pottery", 1, True),
        ("teeth", 0, False),
    ]


@pytest.mark.parametrize("name", ["Ada", None])
def test_another_friend_takes_nobodys_place_unless_the_turn_says_so(engine: Engine, name: str | None) -> None:
    """Grammar asks for both with the same words."""

    def said(turn: str) -> Chunk:
        return dialogue((name, turn), ("Ben", "I see.")) if name else chunk(turn)

    def reads(asked: str, answer: str) -> float:
        return 0.9 if answer in ("Magnus", "Anselm") else 0.0

    teacher = FakeTeacher(engine, writes=lambda _: "", believes=reads)
    teacher.says = "Anselm"
    generator = ScribeQuestionGenerator(teacher, SETTINGS, scribe_on(engine))
    old = generator.generate({0: said("my friend Magnus is late")}, lambda _: None)[0].items
    fact = EarlierFact(tuple(item for item in old if item.answer == "Magnus"), "my friend Magnus is late")
    for turn, is_put in (("my friend Anselm wants tea", False), ("my new friend is now my friend Anselm", True)):
        news = generator.generate({0: said(turn)}, lambda _: None)[0].items
        assert {"Anselm"} <= {item.answer for item in news}
        assert bool(generator.asked_again(0, said(turn), fact, news)) == is_put


def test_a_question_never_answered_takes_no_part_in_that(engine: Engine) -> None:
    """What the bare backbone said to it is no answer that a value could follow; it is answered or it is not."""
    (given,) = Teacher(engine, SETTINGS, seed=0).given(["Utrecht"])
    said = replace(given, confidence=0.9)
    turn = "We live in Utrecht now, by the river."
    old = again(turn, "Oslo", "Where do I live?", "I live by the river in Oslo.")
    untold = again(turn, "", "Where by the river do I live now?", "It rained by the river.")
    assert told_otherwise([(old, said), (untold, said)], [0.5, 3.0]) == [True, True]
    assert told_otherwise([(old, said), (untold, said)], [0.5, 0.5]) == [True, False]
    generator = ScribeQuestionGenerator(
        FakeTeacher(engine, writes=about_the_dog, believes=surely), SETTINGS, scribe_on(engine)
    )
    (item,) = generator.generate({0: chunk(DOG)}, lambda _: None)[0].items
    never = replace(item, kind=NEGATIVE, question="Where do I live?", answer="As an assistant I live nowhere.")
    (asked,) = generator.asked_again(0, chunk("It rained.", "I live in Bonn."), EarlierFact((never,), ""), [])
    assert (asked.written, asked.excerpt and asked.excerpt.text) == ("", "I live in Bonn.")


def test_how_well_a_text_goes_on_is_the_mean_over_its_own_tokens(engine: Engine) -> None:
    backbone, scribe = engine.backbone, scribe_on(engine)
    written = [(to_write(turn), (opening_of("Kolin"), " Who is ill?")) for turn in (DOG, SMALL_TALK)]
    begun = [[*backbone.encode_chat(prompt), *backbone.encode(words)] for prompt, (words, _) in written]
    expected = engine.score(
        begun, [backbone.encode(" Who is ill?")] * 2, memory=MemoryBatch.of([scribe], backbone, rows_per_memory=2)
    )
    found = Teacher(engine, SETTINGS, seed=0).fitting(written, scribe=scribe)
    assert found == pytest.approx([float(each.mean()) for each in expected])
    assert Teacher(engine, SETTINGS, seed=0).fitting([]) == []


def test_questions_about_one_turn_share_its_computation(engine: Engine) -> None:
    backbone, scribe = engine.backbone, scribe_on(engine)
    asked = [("Kolin", " Who is ill?"), ("Kolin", " What is my dog called?"), ("Sunday", " Since when is he ill?")]
    written = [(to_write(turn), (opening_of(answer), text)) for turn in (DOG, SMALL_TALK) for answer, text in asked]
    alone, together = Counting(backbone), Counting(backbone)
    expected = [value for one in written for value in Teacher(alone, SETTINGS, seed=0).fitting([one], scribe=scribe)]
    found = Teacher(together, SETTINGS, seed=0).fitting(written, scribe=scribe)
    assert found == pytest.approx(expected, abs=1e-4)  # other shapes sum in another order
    turns = sum(len(backbone.encode_chat(to_write(turn))) for turn in (DOG, SMALL_TALK))
    assert together.tokens <= alone.tokens - 2 * turns  # once each, not three times


def test_prompt_of_several_answers_is_run_once(engine: Engine) -> None:
    backbone, answers = engine.backbone, ["Kolin", "Sunday", "dog"]
    alone, together = Counting(backbone), Counting(backbone)
    expected = [Teacher(alone, SETTINGS, seed=0).believed([(to_write(DOG), [each])])[0][0] for each in answers]
    (found, (again, *_)) = Teacher(together, SETTINGS, seed=0).believed([(to_write(DOG), answers)] * 2)
    assert found == pytest.approx(expected)
    assert again == found[0]
    assert together.tokens * 3 == alone.tokens


def test_an_answer_may_begin_as_the_text_has_it_behind_a_blank(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader copies " st-on-em-ason" as "st-on-em-ason", where a tokenizer cuts "ston-em-ason"."""
    teacher, encode = Teacher(engine, SETTINGS, seed=0), engine.backbone.encode
    backbone, decode = engine.backbone, engine.backbone.decode
    words = [text for at in range(backbone.vocab_size) if encode(text := decode([at])) == [at] and text.strip() == text]
    (beliefs,) = teacher.believed([(to_write(DOG), words)])
    (less, spelt), (more, copied) = sorted(zip(beliefs, words, strict=True))[-2:]
    assert less > 0
    cut = {f"{copied}mason": encode(spelt), f" {copied}mason": [backbone.vocab_size]}
    monkeypatch.setattr(backbone, "encode", lambda text: cut.get(text) or encode(text))
    monkeypatch.setattr(backbone, "decode", lambda ids: f" {copied}" if ids == [backbone.vocab_size] else decode(ids))
    ((found,),) = teacher.believed([(to_write(DOG), [f"{copied}mason"])])
    assert found == pytest.approx(less + more)


def test_nothing_is_written_behind_the_mark_that_is_waited_for(engine: Engine) -> None:
    opening = Opening(to_write(DOG), "", "0")
    free, ended = Counting(engine.backbone), Counting(engine.backbone)
    options: dict[str, Any] = {"length": 48, "temperature": 1.0}
    (whole,) = Teacher(free, SETTINGS, seed=0).open([opening], until="\t", **options)  # no token's name holds that
    mark = next(letter for letter in whole[:-1] if "!" <= letter <= "~")
    (after,) = Teacher(ended, SETTINGS, seed=0).open([opening], until=mark, **options)
    assert after == "".join(whole.partition(mark)[:2])
    assert ended.tokens < free.tokens


def test_what_every_prompt_begins_with_is_run_once_for_the_bare_backbone(engine: Engine) -> None:
    backbone = engine.backbone
    answers = [([HEADER, *to_read(DOG, asked)], ["Kolin"]) for asked in ("Who is ill?", "What is my dog called?")]
    alone, together = Counting(backbone), Counting(backbone)
    expected = [belief for one in answers for (belief,) in Teacher(alone, SETTINGS, seed=0).believed([one])]
    found = [belief for (belief,) in Teacher(together, SETTINGS, seed=0).believed(answers)]
    assert found == pytest.approx(expected, rel=1e-3)
    assert together.tokens <= alone.tokens - len(backbone.encode_chat([HEADER], generation_prompt=False))


def test_what_some_wordings_of_a_fact_find_out_holds_for_all(engine: Engine) -> None:
    """The scribe reads two wordings of three; the third is retired and learnt with the new answer as they are."""
    wordings = ["What's my dog called?", "Who barks at night?", "Name of my pet?"]
    number = iter(range(1000))

    def writes(words: str) -> str:
        if not words:
            return NEW if next(number) >= ANSWERS else "Kolin"
        return f" {wordings[next(number) % 3]}" if words == "Kolin |" else " Who is he now?"

    def believes(_: str, answer: str) -> float:
        return 0.9 if answer in ("Kolin", NEW) else 0.0

    teacher = FakeTeacher(engine, writes=writes, believes=believes)
    study = SelfStudy(teacher, SETTINGS, seed=0, strategy=ScribeQuestionGenerator(teacher, SETTINGS, scribe_on(engine)))
    chunks = chunk(DOG), chunk(f"The dog is {NEW} now.", start=5)
    (made,) = study.write([StudyRequest(chunks)])
    learnt = {item.question: item.answer for item in made.items if item.kind != NEGATIVE}
    assert len(set(wordings) & set(learnt)) == 3
    assert set(learnt.values()) == {NEW}


FRIDAY = date(2024, 5, 3)
HOSPITAL = "I go into hospital three weeks from today and Kolin stays with Bo."


def about_the_stay(words: str) -> str:
    """Ask for the dating phrase well only behind all of it; name nothing but its first words."""
    return {"": "three weeks | How long?", "three weeks from today | When": " do I go into hospital?"}.get(
        words, "" if "today |" in words else " Who?"
    )


def test_a_dating_phrase_is_asked_for_as_the_turn_spells_it_and_learnt_as_the_date(engine: Engine) -> None:
    read: list[str] = []

    def believes(asked: str, answer: str) -> float:
        if "They ask" in asked:  # not where it is asked what may be named
            read.append(answer)
        return 0.9

    found = generated(engine, HOSPITAL, writes=about_the_stay, believes=believes, day=FRIDAY)
    (item,) = [item for item in found.items if item.question.startswith("When")]
    assert item.answer == "24 May 2024"
    assert item.answer_ids == (*engine.backbone.encode("24 May 2024"), engine.backbone.end_id)
    assert "three weeks from today" in read
    assert not {"three weeks", "24 May 2024"} & set(read)  # what was named is a part of the phrase


@pytest.mark.parametrize(("read", "is_kept"), [("three weeks from today", True), ("May", True), ("Bo", False)])
def test_a_date_is_read_by_any_of_its_words(engine: Engine, read: str, is_kept: bool) -> None:
    found = generated(
        engine, HOSPITAL, writes=about_the_stay, believes=lambda _, answer: 0.9 * (answer == read), day=FRIDAY
    )
    assert ("24 May 2024" in {item.answer for item in found.items}) is is_kept


def test_a_turn_without_a_day_keeps_its_words(engine: Engine) -> None:
    found = generated(engine, HOSPITAL, writes=about_the_stay, believes=lambda *_: 0.9)
    assert "three weeks" in {item.answer for item in found.items}
    assert not any("2024" in item.answer for item in found.items)


def test_questions_for_a_date_are_begun_as_such(engine: Engine) -> None:
    teacher = FakeTeacher(engine, writes=about_the_stay, believes=lambda *_: 0.9)
    ScribeQuestionGenerator(teacher, SETTINGS, scribe_on(engine)).generate(
        {0: chunk(HOSPITAL, day=FRIDAY)}, lambda _: None
    )
    begun = [words.partition("|")[2] for words in teacher.opened if words.startswith("three weeks from today")]
    assert begun == [*DAY_ASKED, *DAY_ASKED]
    assert [words.partition("|")[2] for words in teacher.opened if words.startswith("Kolin")] == [*ASKED, *ASKED]
    assert all(asks_for_day(f"{words.strip()} is it?") for words in DAY_ASKED)


def test_for_a_date_only_questions_for_a_day_are_kept(engine: Engine) -> None:
    rest = {" When": " am I off this Friday?", " On what date": " am I off?", " What day": " of the week is it?"}

    def writes(words: str) -> str:
        return rest[words.partition("|")[2]] if "today |" in words else ""

    found = generated(engine, HOSPITAL, writes=writes, believes=lambda *_: 0.9, day=FRIDAY)
    assert [(item.question, item.answer) for item in found.items] == [("On what date am I off?", "24 May 2024")]


def test_a_turn_is_asked_for_two_dates_at_most_each_once_and_the_named_first(engine: Engine) -> None:
    teacher = FakeTeacher(engine, writes=lambda words: "" if words else "Tuesday |", believes=lambda *_: 0.9)
    told = "Today, this very morning, Bo rang: he left yesterday, lands tomorrow and marries on Tuesday."
    ScribeQuestionGenerator(teacher, SETTINGS, scribe_on(engine)).generate({0: chunk(told, day=FRIDAY)}, lambda _: None)
    asked_for = {words.partition(" |")[0] for words in teacher.opened}
    assert {"Tuesday", "Today"} <= asked_for
    assert not {"this very morning", "yesterday", "tomorrow"} & asked_for


def test_a_date_told_anew_replaces_the_old_one(engine: Engine) -> None:
    """The scribe reads "tomorrow"; what it says is compared as the date that it means."""
    writes = {"today | When": " is the test?", "tomorrow | When": " will the test be?"}
    dates_teacher = FakeTeacher(engine, writes=lambda words: writes.get(words, ""), believes=lambda *_: 0.9)
    dates_teacher.says = "tomorrow"
    generator = ScribeQuestionGenerator(dates_teacher, SETTINGS, scribe_on(engine))
    study = SelfStudy(dates_teacher, SETTINGS, seed=0, strategy=generator)
    first = study.write([StudyRequest((chunk("The test is today.", day=FRIDAY),))])[0]
    (old,) = [item for item in first.items if item.kind != NEGATIVE]
    same, other = (
        study.write([StudyRequest((chunk("The test is tomorrow.", day=day, start=5),), (old,))])[0]
        for day in (date(2024, 5, 2), FRIDAY)
    )
    assert old.answer == "3 May 2024"
    assert same.retired == frozenset()
    assert other.retired == {old.item_id}
    assert {item.answer for item in other.items if item.question == old.question} == {"4 May 2024"}


def test_what_nobody_named_is_learnt_where_a_question_for_something_else_is_read_so(engine: Engine) -> None:
    made = generated(
        engine,
        "The donkey swallowed a glove at Bernadette's.",
        writes=lambda words: " What did the donkey swallow?" if words.endswith("|") else "Bernadette | Who?",
        believes=lambda _, answer: 0.9 if answer == "glove" else 0.0,
    )
    assert [(item.question, item.answer) for item in made.items] == [("What did the donkey swallow?", "glove")]
