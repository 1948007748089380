"""The measurement: every form of reading and of writing, tried on made-up talk that ships with the package.

Reading is measured near, with the turn that tells the answer, and wide, with all turns of the session; right is an
answer that holds the value. Writing is measured as study uses it: openings about each turn, read back in the best near
form, kept where the answer points at a span of the turn.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

from locas_agent.conversation.messages import Message, session_header
from locas_agent.errors import UnsupportedBackbone
from locas_agent.inference import Engine
from locas_agent.inference.generation import Generation
from locas_agent.study.forms.calibration import Calibration, Chosen, ReadingScore, WritingScore
from locas_agent.study.forms.reading import READING_FORMS, ReadingForm
from locas_agent.study.forms.writing import WRITING_FORMS, WritingForm, openings_for, question_of
from locas_agent.study.matching import contains
from locas_agent.study.spans import cues_of, pointed_at

ANSWER_TOKENS = 16
QUESTION_TOKENS = 16
LEAST_READ = 0.15
"""Share of right answers from a single turn under which a backbone is said to read nothing."""
BELIEVED = 0.9
"""Share of the right answers that the least believed confidence lets through."""
CUES = 3
WRITERS = 2
"""Forms of writing that study uses, the best: another way of asking brings other questions."""
EVERY_TURN, EVERY_OPENING = 2, 3
"""Writing is tried on some of the turns behind some of the openings: enough to tell the forms apart."""


@dataclass(frozen=True, eq=False)
class _Fact:
    """One question of the made-up talk: where its answer is told, and what the answer holds."""

    session: tuple[Message, ...]
    at: int
    question: str
    value: str

    def messages(self, *, is_wide: bool) -> tuple[Message, ...]:
        return self.session if is_wide else (self.session[0], self.session[self.at])


@cache
def _facts() -> tuple[_Fact, ...]:
    text = files("locas_agent.study.forms").joinpath("talk.jsonl").read_text(encoding="utf-8")
    found = []
    for line in text.splitlines():
        row: dict[str, Any] = json.loads(line)
        session = (
            session_header(datetime.fromisoformat(row["at"])),
            *({"role": r, "content": t} for r, t in row["turns"]),
        )
        found += [_Fact(session, at, question, value) for at, question, value in row["facts"]]
    return tuple(found)


def calibrate(engine: Engine) -> Calibration:
    """Measure what a backbone reads and writes, and choose the forms that study uses.

    Greedy throughout: the same backbone on the same machine gives the same result.

    Raises:
        UnsupportedBackbone: no form brings it to answer from what it has read.
    """
    started = time.perf_counter()
    facts = _facts()
    answers = {
        (form.name, is_wide): _read(engine, form, facts, is_wide=is_wide)
        for form in READING_FORMS.values()
        for is_wide in (False, True)
    }
    reading = tuple(
        ReadingScore(form=name, near=_share(answers[name, False]), wide=_share(answers[name, True]))
        for name in READING_FORMS
    )
    near = max(reading, key=lambda score: (score.near, score.wide))
    wide = max(reading, key=lambda score: (score.wide, score.near))
    if near.near < LEAST_READ:
        raise UnsupportedBackbone(
            f"{engine.backbone.name!r} does not answer questions about a turn that stands before it: "
            + ", ".join(f"{score.form} {score.near:.2f}" for score in reading)
            + f" of the answers were right, at least {LEAST_READ} is needed; take a backbone trained on text or chat"
        )
    writing = sorted(
        (_write(engine, form, READING_FORMS[near.form]) for form in WRITING_FORMS.values()),
        key=lambda score: -(score.covered + score.kept),
    )
    chosen = Chosen(
        near=near.form,
        wide=wide.form,
        writing=tuple(score.form for score in writing[:WRITERS]),
        min_confidence=_believed(answers[near.form, False]),
    )
    return Calibration(
        fingerprint=engine.backbone.fingerprint,
        dtype=str(engine.backbone.dtype).removeprefix("torch."),
        reading=reading,
        writing=tuple(writing),
        chosen=chosen,
        seconds=round(time.perf_counter() - started, 1),
    )


@dataclass(frozen=True, slots=True)
class _Read:
    is_right: bool
    confidence: float


def _read(engine: Engine, form: ReadingForm, facts: Sequence[_Fact], *, is_wide: bool) -> list[_Read]:
    backbone = engine.backbone
    prompts = [backbone.encode_chat(form.prompt(fact.messages(is_wide=is_wide), fact.question)) for fact in facts]
    groups: dict[object, int] = {}
    keys = [groups.setdefault((id(fact.session), is_wide or fact.at), len(groups)) for fact in facts]
    made = _answered(engine, prompts, keys, ANSWER_TOKENS)
    return [
        _Read(one is not None and contains(backbone.decode(one.ids), fact.value), _least(one))
        for fact, one in zip(facts, made, strict=True)
    ]


def _answered(
    engine: Engine, prompts: Sequence[list[int]], groups: Sequence[int], length: int
) -> list[Generation | None]:
    """Answer the prompts that fit into the context; None for the others."""
    fitting = [at for at, tokens in enumerate(prompts) if len(tokens) + length <= engine.backbone.context_tokens]
    made = engine.generate(
        [prompts[at] for at in fitting], max_new_tokens=length, groups=[groups[at] for at in fitting]
    )
    found: list[Generation | None] = [None] * len(prompts)
    for at, one in zip(fitting, made, strict=True):
        found[at] = one
    return found


def _write(engine: Engine, form: WritingForm, reading: ReadingForm) -> WritingScore:
    """Write about each telling turn behind each opening, read the questions back, and count what points at a span."""
    backbone, facts = engine.backbone, list(_facts())
    telling = {(id(fact.session), fact.at): fact for fact in facts}
    turns = {key: telling[key] for key in list(telling)[::EVERY_TURN]}
    facts = [fact for fact in facts if (id(fact.session), fact.at) in turns]
    asked: list[tuple[_Fact, str]] = []
    prompts, groups = [], []
    for number, fact in enumerate(turns.values()):
        told = fact.session[fact.at]["content"]
        base = backbone.encode_chat(form.build(told))
        for opening in openings_for(cues_of(told, most=CUES))[::EVERY_OPENING]:
            asked.append((fact, opening.words))
            prompts.append([*base, *backbone.encode(opening.words)])
            groups.append(number)
    made = _answered(engine, prompts, groups, QUESTION_TOKENS)
    questions = [
        None if one is None else question_of(words + backbone.decode(one.ids))
        for (_, words), one in zip(asked, made, strict=True)
    ]
    pairs = list(
        dict.fromkeys((fact, text) for (fact, _), text in zip(asked, questions, strict=True) if text is not None)
    )
    order = list(turns.values())
    answers = _answered(
        engine,
        [backbone.encode_chat(reading.prompt(fact.messages(is_wide=False), text)) for fact, text in pairs],
        [order.index(fact) for fact, _ in pairs],
        ANSWER_TOKENS,
    )
    spans = [
        (fact, _span(backbone.decode(one.ids), text, fact) if one is not None and one.stopped else None)
        for (fact, text), one in zip(pairs, answers, strict=True)
    ]
    covered = [
        any(
            span is not None and other.session is fact.session and other.at == fact.at and contains(span, fact.value)
            for other, span in spans
        )
        for fact in facts
    ]
    kept = sum(span is not None for _, span in spans)
    return WritingScore(form=form.name, kept=round(kept / len(prompts), 3), covered=round(_mean(covered), 3))


def _span(answer: str, asked: str, fact: _Fact) -> str | None:
    return pointed_at(answer, asked, fact.session[fact.at]["content"])


def _believed(answers: Sequence[_Read]) -> float:
    """Return the confidence that all but a few of the right answers have."""
    right = sorted((answer.confidence for answer in answers if answer.is_right), reverse=True)
    return round(right[int(BELIEVED * (len(right) - 1))], 3) if right else 0.0


def _share(answers: Sequence[_Read]) -> float:
    return round(_mean([answer.is_right for answer in answers]), 3)


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0


def _least(made: Generation | None) -> float:
    """Return the probability of the least likely token of an answer."""
    return math.exp(min(made.logprobs)) if made is not None and made.logprobs else 0.0
