"""Questions that are read with another word than the one they were written for."""

from __future__ import annotations

from datetime import date

from locas_agent.study.chunking import Chunk, TurnExcerpt
from locas_agent.study.scribe.asked_turn import Asked, AskedTurn
from locas_agent.study.scribe.choosing import best_read
from locas_agent.study.scribe.read_otherwise import MOST_FOUND, read_otherwise

DONKEY = "The donkey Bernadette swallowed a good glove, sixteen stone of a lad laughed tomorrow."


def asked_about(text: str, *spans: str) -> AskedTurn:
    excerpt = TurnExcerpt(1, "I", text, True, 1, date(2026, 3, 16))
    header, said = {"role": "system", "content": "Conversation."}, {"role": "user", "content": text}
    turn = AskedTurn(0, Chunk((header, said), (excerpt,), 1, 1), excerpt)
    for span in spans:
        turn.name(span)
    turn.settle([])
    return turn


def read_with(turn: AskedTurn, asked: dict[str, str], **words: float) -> tuple[list[Asked], list[list[float]]]:
    """Each question with the span it was written for, and how probable the words are in its reading, else 0.01."""
    spans = {span.text: span for span in turn.spans.values()}
    each = [(turn, spans[span], text) for text, span in asked.items()]
    return each, [[words.get(word, 0.01) for word in (*span.readings, *turn.rivals(span))] for _, span, _ in each]


def found(turn: AskedTurn, asked: dict[str, str], **words: float) -> list[tuple[str, str, float]]:
    otherwise, read = read_otherwise(*read_with(turn, asked, **words))
    return [(span.text, text, beliefs[0]) for (_, span, text), beliefs in zip(otherwise, read, strict=True)]


def test_what_a_reader_answers_takes_the_place_of_what_was_asked_for() -> None:
    turn = asked_about(DONKEY, "sixteen stone")
    swallowed = {"What did my donkey swallow?": "sixteen stone"}
    assert found(turn, swallowed, glove=0.9) == [("glove", "What did my donkey swallow?", 0.9)]
    otherwise, read = read_otherwise(*read_with(turn, swallowed, glove=0.9))
    assert [span.text for _, span, _ in best_read(otherwise, read)] == ["glove"]


def test_a_question_that_was_written_for_two_answers_is_learnt_once() -> None:
    turn = asked_about(DONKEY, "sixteen stone", "Bernadette")
    each, read = read_with(turn, {"sixteen stone": "sixteen stone", "Bernadette": "Bernadette"}, glove=0.9)
    asked = [(of_turn, span, "What did my donkey swallow?") for of_turn, span, _ in each]
    assert len(read_otherwise(asked, read)[0]) == 1


def test_a_question_goes_to_what_is_asked_for_already() -> None:
    turn = asked_about(DONKEY, "sixteen stone", "glove")
    swallowed = {"What did my donkey swallow?": "sixteen stone"}
    ((_, span, _),), _ = read_otherwise(*read_with(turn, swallowed, glove=0.9))
    assert span in turn.spans.values()


def test_an_answer_is_as_many_words_as_the_turn_has_together() -> None:
    turn = asked_about(DONKEY, "sixteen stone")
    assert found(turn, {"Which one?": "sixteen stone"}, good=0.9) == [("good glove", "Which one?", 0.9)]


def test_what_is_read_hardly_or_not_much_better_is_left() -> None:
    turn = asked_about(DONKEY, "sixteen stone")
    swallowed = {"What did my donkey swallow?": "sixteen stone"}
    assert found(turn, swallowed, glove=0.4) == []
    assert len(found(turn, swallowed | {"What did it eat?": "sixteen stone"}, glove=0.4)) == 2
    assert found(turn, swallowed, glove=0.8, **{"sixteen stone": 0.5}) == []


def test_a_question_that_says_the_answer_and_a_part_of_a_date_are_left() -> None:
    turn = asked_about(DONKEY, "sixteen stone")
    assert found(turn, {"Who ate my glove?": "sixteen stone"}, glove=0.9) == []
    assert found(turn, {"When was it?": "sixteen stone"}, tomorrow=0.9) == []


def test_a_turn_is_not_asked_for_all_its_words() -> None:
    turn = asked_about("My cart has a hammer, a pump, a rope, a wheel.", "cart")
    asked = {f"Which {number}?": "cart" for number in range(4)}
    each, _ = read_with(turn, asked)
    words = ("hammer", "pump", "rope", "wheel")
    read = [
        [0.9 - 0.1 * at if word == wanted else 0.01 for word in (*span.readings, *turn.rivals(span))]
        for (at, wanted), (_, span, _) in zip(enumerate(words), each, strict=True)
    ]
    otherwise, _ = read_otherwise(each, read)
    assert [span.text for _, span, _ in otherwise] == ["hammer", "pump"]
    assert MOST_FOUND == 2
