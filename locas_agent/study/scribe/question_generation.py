"""Question generation by a scribe: it writes answers with questions about each turn, and reads them back.

Of each turn: *name* answers, and take the spans of the turn that are named most; *ask* for each in several wordings;
*read* each question with the turn before it, and drop what is answered otherwise, and what suits any turn; let a
backbone that reads well *confirm* it; leave out what the bare backbone says by itself. What is learnt is the span as
the turn spells it. A phrase that dates something from the day of the turn is asked for always, by questions for a day,
and what is learnt is the date.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from locas_agent.config import StudySettings
from locas_agent.conversation.messages import question
from locas_agent.inference.batching import KeptBeginnings
from locas_agent.memory import LocasMemory
from locas_agent.study.chunking import Chunk, TurnExcerpt
from locas_agent.study.forms.reading import ReadingForm
from locas_agent.study.forms.untold import draw_untold
from locas_agent.study.items import NEGATIVE, QUESTION, EarlierFact, GeneratedQuestions, Item
from locas_agent.study.matching import contains, same_question
from locas_agent.study.scribe.asked_turn import Asked, AskedTurn
from locas_agent.study.scribe.changes import says_change
from locas_agent.study.scribe.choosing import best_read, most_unlike, put_as_learnt
from locas_agent.study.scribe.forms import MARK, answer_in, opening_of, question_in, to_read, to_write
from locas_agent.study.scribe.lessons import lesson_questions
from locas_agent.study.scribe.outright import asking_for_one_of_several
from locas_agent.study.scribe.read_otherwise import read_otherwise
from locas_agent.study.scribe.retelling import LEAST_READ, told_otherwise, turns_read
from locas_agent.study.spans import answers_in, is_figure, is_whole, telling, words_of, worth_asking
from locas_agent.study.speakers import is_of_another, put_among_others
from locas_agent.study.teacher import Candidate, Opening, ScoredAnswer, Teacher

ANSWERS, ANSWER_HEAT = 10, 0.9
"""Answers sampled about a turn, and their temperature: how many name a span says how much it is worth asking."""
SAID_ANYWAY = 0.5
"""Probability of an answer's first token from which the bare backbone would say it by itself."""
WORTH = 0.005
"""Probability of being named from which a word that was not is asked for."""
QUESTION_HEAT = 0.7
"""Temperature of questions."""
ANSWER_TOKENS, QUESTION_TOKENS = 10, 20
ASKED_AGAIN = 3
"""Wordings of an old fact that are put to a new turn: those with most words of the turn."""
ABOUT = 0.5
"""Least advantage in nats a token of a question after a turn over `SMALL_TALK`, from which it is about the turn: so as
not to answer whatever is asked."""
SMALL_TALK = "ok thanks"
"""A turn after which no question is to be expected: what is as likely there as after a turn is not about the turn."""
CONFIRMED_WITHIN = 16
"""Tokens of the bare backbone's answer in which a span has to stand, where that reads well."""
READ_BY_SCRIBE = ReadingForm("scribe", lambda messages, asked: list(to_read(messages[-1]["content"], asked)))
"""How one turn stands before a question that a scribe reads."""


class ScribeQuestionGenerator:
    """Asks about the chunks of many users side by side, with a scribe that writes and reads."""

    def __init__(
        self, teacher: Teacher, settings: StudySettings, scribe: LocasMemory, *, reader: ReadingForm | None = None
    ) -> None:
        """Take the parts.

        Args:
            teacher: the backbone.
            settings: of study.
            scribe: writes and reads.
            reader: the form in which the bare backbone reads one turn, where it reads well; None does not ask it.
        """
        self._teacher = teacher
        self._settings = settings
        self._scribe = scribe
        self._reader = reader

    def generate(self, chunks: Mapping[int, Chunk], done: Callable[[int], None]) -> dict[int, GeneratedQuestions]:
        """See `StudyStrategy.generate`."""
        found = {owner: GeneratedQuestions() for owner in chunks}
        turns = [AskedTurn(owner, chunk, excerpt) for owner, chunk in chunks.items() for excerpt in worth_asking(chunk)]
        begun = KeptBeginnings()  # a turn stands before what is written about it and before what is read
        self._name(turns, begun)
        self._ask(turns, found, begun)
        done(1)
        self._finish(turns, found, begun)
        return found

    def are_sure(self, answers: Sequence[tuple[Candidate, ScoredAnswer]]) -> list[bool]:
        """See `StudyStrategy.are_sure`: each new value takes the place of the fact that it fits best, if of any."""
        likely = [at for at, (_, answer) in enumerate(answers) if answer.confidence >= LEAST_READ]
        chosen = [answers[at] for at in likely]
        read = [(asked.read[-1]["content"], answer.text, asked.question) for asked, answer in chosen]
        found = dict(zip(likely, told_otherwise(chosen, self._about(read, KeptBeginnings())), strict=True))
        return [found.get(at, False) for at in range(len(answers))]

    def retold(self, answer: ScoredAnswer, source: Item) -> ScoredAnswer:
        """See `StudyStrategy.retold`: the span that the new item has."""
        return ScoredAnswer(source.answer_ids[:-1], source.answer, answer.confidence, source.teacher)

    def asked_again(self, owner: int, chunk: Chunk, fact: EarlierFact, news: Sequence[Item]) -> list[Candidate]:
        """See `StudyStrategy.asked_again`: some wordings, to the turns that may tell it otherwise, each alone."""
        return [
            Candidate(
                owner,
                chunk,
                item.turn_seq,
                item.question,
                "" if item.kind == NEGATIVE else item.answer,  # what the bare backbone said was no answer
                form=READ_BY_SCRIBE,
                context=(chunk.messages[excerpt.at],),
                scribe=self._scribe,
                excerpt=excerpt,
                told=fact.told,
            )
            for excerpt in turns_read(chunk, fact, news)
            for item in _nearest(_replaceable(fact, chunk, excerpt, news), excerpt)
            if not is_of_another(item.question, chunk, excerpt)
        ]

    def negatives(
        self, chunks: Mapping[int, Sequence[Chunk]], known: Mapping[int, set[str]]
    ) -> list[tuple[Candidate, ScoredAnswer]]:
        """See `StudyStrategy.negatives`: what other people might ask, where no chunk has a telling word of it."""
        return draw_untold(self._teacher, lesson_questions(), chunks, known, most=self._settings.negatives_per_piece)

    def _about(self, asked: Sequence[tuple[str, str, str]], begun: KeptBeginnings) -> list[float]:
        """Return how much more likely questions are after a turn than after small talk, in nats a token.

        Args:
            asked: a turn, an answer that stands in it, and a question for that answer, each.
            begun: what the scribe has run already.
        """
        behind = [(opening_of(answer), f" {text}") for _, answer, text in asked]
        own = [to_write(turn) for turn, _, _ in asked]
        told, anyway = (
            self._teacher.fitting(list(zip(prompts, behind, strict=True)), scribe=self._scribe, begun=begun)
            for prompts in (own, [to_write(SMALL_TALK)] * len(asked))
        )
        return [after - before for after, before in zip(told, anyway, strict=True)]

    def _name(self, turns: Sequence[AskedTurn], begun: KeptBeginnings) -> None:
        """Sample answers that every turn holds."""
        naming = [(turn, number) for turn in turns for number in range(ANSWERS)]
        openings = [
            Opening(to_write(turn.excerpt.said), "", f"{turn.excerpt.turn_seq} answer {number}")
            for turn, number in naming
        ]
        written = self._teacher.open(
            openings, length=ANSWER_TOKENS, until=MARK, temperature=ANSWER_HEAT, scribe=self._scribe, begun=begun
        )
        for (turn, _), text in zip(naming, written, strict=True):
            turn.name(answer_in(text))
        cues = [answers_in(turn.excerpt.said) for turn in turns]
        worth = self._teacher.believed(
            [(to_write(turn.excerpt.said), texts) for turn, texts in zip(turns, cues, strict=True)],
            scribe=self._scribe,
            begun=begun,
        )
        for turn, texts, beliefs in zip(turns, cues, worth, strict=True):
            names = {word.key for word in words_of(turn.excerpt.said) if word.is_name}
            ranked = sorted(
                (
                    (telling(cue) <= names or is_figure(cue), belief, cue)
                    for cue, belief in zip(texts, beliefs, strict=True)
                ),
                key=lambda each: each[:2],
                reverse=True,
            )
            turn.settle([cue for is_named, belief, cue in ranked if is_named or belief >= WORTH])

    def _ask(self, turns: Sequence[AskedTurn], found: Mapping[int, GeneratedQuestions], begun: KeptBeginnings) -> None:
        """Sample questions for every span that is worth it, and put those that need no scribe beside them."""
        wanting = [
            (turn, span, number)
            for turn in turns
            for span in turn.spans.values()
            for number in range(turn.samples_of(span))
        ]
        openings = [
            Opening(to_write(turn.excerpt.said), span.opening(number), f"{turn.excerpt.turn_seq} {span.text} {number}")
            for turn, span, number in wanting
        ]
        written = self._teacher.open(
            openings, length=QUESTION_TOKENS, until="?", temperature=QUESTION_HEAT, scribe=self._scribe, begun=begun
        )
        for (turn, span, _), text in zip(wanting, written, strict=True):
            found[turn.owner].sampled += 1
            asked = question_in(text)
            if asked is not None and span.is_asked_by(asked) and turn.takes(asked):
                span.questions[asked] = span.questions.get(asked, 0) + 1
        for turn in turns:
            for span in turn.spans.values():
                span.questions |= {text: 0 for text in span.ready if span.is_asked_by(text) and turn.takes(text)}

    def _finish(
        self, turns: Sequence[AskedTurn], found: Mapping[int, GeneratedQuestions], begun: KeptBeginnings
    ) -> None:
        """Read back, leave out what the bare backbone says, and make items of the rest."""
        asked = [
            (turn, span, text)
            for turn in turns
            for span in turn.spans.values()
            for text in sorted(span.questions, key=lambda each: -span.questions[each])
        ]
        read = self._teacher.believed(
            [(to_read(turn.excerpt.said, text), (*span.readings, *turn.rivals(span))) for turn, span, text in asked],
            [id(turn) for turn, _, _ in asked],
            scribe=self._scribe,
            begun=begun,
        )
        otherwise, read_so = read_otherwise(asked, read)
        right = self._confirmed(self._pertinent(best_read([*asked, *otherwise], [*read, *read_so]), begun))
        kept = put_as_learnt(most_unlike(right, most=self._settings.wordings_per_turn))
        said = self._teacher.believed([(question(text), (span.answer,)) for _, span, text in kept])
        new = [each for each, (belief,) in zip(kept, said, strict=True) if belief < SAID_ANYWAY]
        marked = self._teacher.given([span.answer for _, span, _ in new])
        items = self._teacher.to_items(
            [
                (Candidate(turn.owner, turn.chunk, turn.excerpt.turn_seq, text, ""), answer, QUESTION)
                for (turn, _, text), answer in zip(new, marked, strict=True)
            ]
        )
        for (turn, _, _), item in zip(new, items, strict=True):
            found[turn.owner].take(turn.excerpt.turn_seq, item)
        told = {id(turn) for turn, _, _ in kept}
        for turn in turns:
            found[turn.owner].tell(turn.excerpt.turn_seq, something=id(turn) in told)

    def _pertinent(self, kept: Sequence[Asked], begun: KeptBeginnings) -> list[Asked]:
        """Leave out wordings that suit any turn as well ("Where am I?"), but of each span the most pertinent.

        Those that needed no scribe stay: "What is my job?" suits any turn, and is what somebody asks.
        """
        about = self._about([(turn.excerpt.said, span.text, text) for turn, span, text in kept], begun)
        most: dict[int, float] = {}
        for (_, span, _), much in zip(kept, about, strict=True):
            most[id(span)] = max(much, most.get(id(span), much))
        return [
            (turn, span, text)
            for (turn, span, text), much in zip(kept, about, strict=True)
            if text in span.ready or much >= min(ABOUT, most[id(span)])
        ]

    def _confirmed(self, kept: Sequence[Asked]) -> Sequence[Asked]:
        """Leave out wordings that a backbone which reads well answers from the turn with something else.

        A scribe believes much: "What did the axolotl eat?" "Fine." Of a name, a figure, and of what somebody is, one
        wording stays all the same; a date is learnt in other words than it is said in, and is not asked about.
        """
        if self._reader is None:
            return kept
        asked = [each for each in kept if each[1].date is None]
        read = [
            ((turn.chunk.messages[0], turn.chunk.messages[turn.excerpt.at]), turn.put(text)) for turn, _, text in asked
        ]
        said = self._teacher.begun_answers(
            [self._reader.prompt(messages, text) for messages, text in read],
            [id(turn) for turn, _, _ in asked],
            length=CONFIRMED_WITHIN,
        )
        stays = {
            (id(span), text) for (_, span, text), answer in zip(asked, said, strict=True) if contains(answer, span.text)
        }
        confirmed = {of_span for of_span, _ in stays}
        for _, span, text in kept:
            is_needed = (span.is_calling or is_whole(span.text)) and id(span) not in confirmed
            if span.date is not None or is_needed:
                stays.add((id(span), text))
                confirmed.add(id(span))
        return [each for each in kept if (id(each[1]), each[2]) in stays]


def _replaceable(fact: EarlierFact, chunk: Chunk, excerpt: TurnExcerpt, news: Sequence[Item]) -> list[Item]:
    """Return the wordings of a fact that a turn may answer otherwise.

    "Who is my friend?" is answered by another friend too, who takes nobody's place unless the turn says so.
    """
    words = fact.words
    if any(says_change(excerpt.text, new.answer, words) for new in news if new.turn_seq == excerpt.turn_seq):
        return list(fact.items)
    several = asking_for_one_of_several(fact.told)
    by_name = [put_among_others(asked, chunk, excerpt.speaker) for asked in several]
    several += by_name + [f"{excerpt.speaker}: {asked}" for asked in several]
    return [item for item in fact.items if not any(same_question(item.question, asked) for asked in several)]


def _nearest(items: Sequence[Item], excerpt: TurnExcerpt) -> list[Item]:
    """Return the wordings of a fact that share most telling words with a turn."""
    said = {word.key for word in words_of(excerpt.text)}
    return sorted(items, key=lambda item: -len(telling(item.question) & said))[:ASKED_AGAIN]
