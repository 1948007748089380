"""What a step of training looks at.

Nothing held out, nothing of other tasks, questions behind windows as a conversation runs.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest
import torch

from locas_agent.config import LocasConfig, TrainingSettings
from locas_agent.conversation.messages import exchange, question
from locas_agent.errors import ConfigurationError
from locas_agent.inference import Engine
from locas_agent.inference.generation import NOTHING, TopK
from locas_agent.study.chunking import Chunk, TurnExcerpt
from locas_agent.study.forms.reading import ReadingForm
from locas_agent.study.items import NEGATIVE, PROBE, QUESTION, Item
from locas_agent.training.neutral import NeutralText, bare_examples
from locas_agent.training.sampling.beginnings import INSTRUCTIONS, LONG_EVERY, LONG_TIMES, beginnings
from locas_agent.training.sampling.builder import ASKED_IN_CONVERSATION, REHEARSED, ExampleBuilder, TrainingTask
from locas_agent.training.sampling.groups import FOUND_TOKENS, IS_FOUND, OF_THE_FOUND, GroupBuilder
from locas_agent.training.sampling.noise import QuestionNoise
from locas_agent.training.sampling.question_rows import conversation_example
from locas_agent.training.sampling.sampler import ExampleSampler, ItemCycles
from locas_agent.training.schedule import DEEP_FOUND, DEEP_GROUPS, schedule_of, wsd_factor
from tests.conftest import MakeBackbone

TURNS = tuple(
    {"role": role, "content": text}
    for role, text in (("user", "My dog is Rex."), ("assistant", "Noted."), ("user", "I live in Oslo."))
)
CHUNK = Chunk(({"role": "system", "content": "1 May"}, *TURNS), (), 1, 3)


CONFIG = LocasConfig.model_validate({"training": {"window_tokens": 80}})


def item(engine: Engine, place: int, asked: str, answer: str, kind: str = QUESTION) -> Item:
    ids = (*engine.backbone.encode(answer), engine.backbone.end_id)
    teacher = TopK(
        torch.tensor([[token, 0] for token in ids], dtype=torch.int32), torch.tensor([[-0.1, -3.0]] * len(ids))
    )
    return Item(f"{place:032x}", kind, 1, 3, 1, asked, answer, ids, teacher)


@pytest.fixture(scope="module")
def task(engine: Engine) -> TrainingTask:
    new = (
        item(engine, 1, "Which dog?", "Rex"),
        item(engine, 2, "Which probe?", "No", PROBE),
        item(engine, 3, "Which car?", "?", NEGATIVE),
    )
    return TrainingTask(new, (item(engine, 4, "Which town?", "Rome"),), (CHUNK,), None)


@pytest.fixture(scope="module")
def neutral(engine: Engine) -> NeutralText:
    rows = bare_examples(engine, [engine.backbone.encode("Rain falls on hills.")], top_k=4)
    return NeutralText(tuple(rows), (), ((question("Hello.")[0],),))


@pytest.fixture(scope="module")
def builder(engine: Engine, neutral: NeutralText) -> ExampleBuilder:
    return ExampleBuilder(engine, CONFIG, neutral)


def sampler_of(
    builder: ExampleBuilder, task: TrainingTask, layers: tuple[int, ...] = (-1,), config: LocasConfig = CONFIG
) -> ExampleSampler:
    """Return the sampler of a builder that was made with these settings."""
    return builder.sampler(task, schedule_of(config.training, layers, task.new, task.earlier))


def test_a_sampler_follows_from_its_task_alone(builder: ExampleBuilder, task: TrainingTask) -> None:
    first, second = (sampler_of(builder, task) for _ in range(2))
    for _ in range(20):
        one, other = first.next_batch(), second.next_batch()
        assert [(e.prompt, e.target) for e in one.examples] == [(e.prompt, e.target) for e in other.examples]


def test_every_item_but_probes_is_trained_on_new_old_and_never_answered(
    builder: ExampleBuilder, task: TrainingTask, engine: Engine
) -> None:
    sampler = sampler_of(builder, task)
    answers = {each.target for _ in range(30) for each in sampler.next_batch().standalone}
    assert answers == {each.answer_ids for each in (*task.new, *task.earlier) if each.kind != PROBE}
    texts = [
        engine.backbone.decode(each.prompt + each.target) for _ in range(30) for each in sampler.next_batch().examples
    ]
    assert not any("probe" in text for text in texts)


def test_the_beginning_of_an_answer_is_asked_behind_a_window_too(engine: Engine) -> None:
    whole, backbone = item(engine, 1, "Which dog?", "Rex"), engine.backbone
    said = tuple(backbone.encode("It is"))
    wide = TopK(torch.zeros(len(said), 3, dtype=torch.int32), torch.full((len(said), 3), -2.0))
    begun = replace(item(engine, 2, "Which car?", "It is", NEGATIVE), answer_ids=said, teacher=wide)
    row = conversation_example(backbone, backbone.encode_chat(TURNS[:1], generation_prompt=False), [begun, whole])
    assert [row.target[place] for place in row.places] == [*said, *whole.answer_ids]
    assert row.target[len(said)] == backbone.end_id  # not scored, and yet it stands before what is asked next
    assert row.places[len(said)] > len(said)
    assert row.teacher is not None
    assert row.teacher.ids.shape == (row.n_scored, 3)
    assert row.teacher.logprobs[len(said) :, 2].eq(NOTHING).all()  # a narrower head has nothing there
    assert torch.equal(row.teacher.logprobs[len(said) :, :2], whole.teacher.logprobs)


def test_questions_are_put_behind_windows_and_only_their_answers_scored(
    builder: ExampleBuilder, task: TrainingTask, engine: Engine
) -> None:
    sampler = sampler_of(builder, task)
    known = {each.answer_ids: each.question for each in (*task.new, *task.earlier)}
    seen = set()
    for _ in range(40):
        (row,) = sampler.next_batch().in_conversation
        scored = [row.target[place] for place in row.places]
        assert row.teacher is not None
        assert row.teacher.ids.shape[0] == len(scored) == row.n_scored
        answers = []
        while scored:
            answer = next(ids for ids in known if tuple(scored[: len(ids)]) == ids)
            answers.append(answer)
            scored = scored[len(answer) :]
        assert len(answers) == ASKED_IN_CONVERSATION
        text = engine.backbone.decode(row.prompt)
        assert known[answers[0]] in text
        seen.add("dog is Rex" in text or "live in Oslo" in text)
    assert seen == {True, False}  # the user's own turns, and other people's


def test_beside_several_layers_groups_stand_behind_turns_that_a_search_finds(
    engine: Engine, builder: ExampleBuilder, task: TrainingTask
) -> None:
    told = tuple(
        TurnExcerpt(seq, "I", turn["content"], True, seq)
        for seq, turn in enumerate(TURNS, start=1)
        if turn["role"] == "user"
    )
    towns = [replace(item(engine, 5 + at, f"Which town, {at}?", "Oslo"), turn_seq=3) for at in range(3)]
    asked = replace(
        task,
        new=(*task.new, *towns),
        chunks=(replace(CHUNK, excerpts=told),),
        reading=ReadingForm("made up", lambda turns, text: question(f"{[t['content'] for t in turns]} {text}")),
    )
    config = LocasConfig.model_validate({"training": {"window_tokens": 80, "question_noise": 0.0}})
    sampler = sampler_of(builder, asked, layers=(-2, -1), config=config)
    steps = [sampler.next_batch().standalone for _ in range(4 * DEEP_GROUPS)]
    groups = [[engine.backbone.decode(row.prompt) for row in rows] for rows in steps]
    found = {tuple(rows) for rows in groups if "['1 May'" in rows[0]}
    assert DEEP_FOUND / 2 <= len(found) <= DEEP_FOUND  # some may have drawn the same
    assert all(len({text.partition("]")[0] for text in rows}) == 1 for rows in found)  # one beginning, run once
    hits = [rows for rows in found if "live in Oslo" in rows[0] and "Which town," in rows[0]]
    assert any(sum("Which town," in text for text in rows) >= OF_THE_FOUND for rows in hits)
    assert all(any("Which dog?" in text or "Which town?" in text for text in rows) for rows in found)
    assert any("Which town?" in rows[0] for rows in found)  # an earlier fact, of which the telling turn is not at hand
    assert any("Which car?" in text for rows in found for text in rows)  # what is never answered is not, there too
    beside_last = {engine.backbone.decode(row.prompt) for row in sampler_of(builder, asked).examples}
    assert not any("['1 May'" in text for text in beside_last)
    without = config.model_copy(update={"training": config.training.model_copy(update={"found_facts": 0})})
    sampler = sampler_of(builder, asked, layers=(-2, -1), config=without)
    assert not any("['1 May'" in engine.backbone.decode(row.prompt) for row in sampler.examples)


def test_a_search_misses_now_and_then_and_what_is_too_long_is_not_found(
    engine: Engine, builder: ExampleBuilder, task: TrainingTask
) -> None:
    texts = ("My dog is Rex.", "The dog sleeps.", "My dog eats.", "Rain falls. " * FOUND_TOKENS)
    turns = [{"role": "user", "content": text} for text in texts]
    chunk = Chunk(
        ({"role": "system", "content": "1 May"}, *turns),
        tuple(TurnExcerpt(seq, "I", text, True, seq) for seq, text in enumerate(texts, start=1)),
        1,
        4,
    )
    reading = ReadingForm("made up", lambda turns, text: question(f"{[t['content'] for t in turns]} {text}"))
    backbone, asked = engine.backbone, replace(task, chunks=(chunk,), reading=reading)
    items = ItemCycles(schedule_of(CONFIG.training, (-2, -1), task.new, ()), task.earlier, [], [], Random(0))
    groups = GroupBuilder(backbone, QuestionNoise(backbone, 0.0), items, count=2, rng=Random(0))
    wanted = task.new[0]
    told = [groups.behind_found(reading, asked.chunks, [wanted], wanted) for _ in range(100)]
    texts_of = [backbone.decode(rows[0].prompt) for rows in told if rows]
    hit = [text for text in texts_of if "dog is Rex" in text]
    assert 100 * IS_FOUND - 15 < len(hit) < 100  # most of the time
    assert all(text.index("1 May") < text.index("dog") for text in texts_of)
    assert not any("Rain" in text for text in texts_of)
    assert all("dog sleeps" in text and "dog eats" in text for text in texts_of)
    long = replace(chunk, messages=(chunk.messages[0], turns[3]), excerpts=(replace(chunk.excerpts[3], at=1),))
    assert groups.behind_found(reading, (long,), [wanted], wanted) == []
    assert groups.behind_found(reading, (), [wanted], wanted) == []


OWN_INSTRUCTIONS = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<system>Be kind.</system>{% endif %}"
    "<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
"""A template that opens a conversation with instructions of its own, as those of SmolLM2 and Qwen2.5 do."""


@pytest.fixture
def instructed(make_backbone: MakeBackbone) -> Engine:
    backbone = make_backbone()
    backbone.tokenizer.chat_template = OWN_INSTRUCTIONS
    return Engine(backbone)


def test_instructions_of_a_template_stand_once_in_a_conversation(instructed: Engine) -> None:
    backbone = instructed.backbone
    items = [item(instructed, at, f"Which {at}?", "Rex") for at in (1, 2)]
    window = backbone.encode_chat(TURNS[:2], generation_prompt=False)
    row = conversation_example(backbone, window, items)
    asked = [*TURNS[:2], *exchange("Which 1?", "Rex"), *question("Which 2?")]
    begun = backbone.decode([*row.prompt, *row.target])
    assert begun.count("Be kind.") == 1
    answered = [row.target[place] for place in row.places][: len(items[0].answer_ids)]
    assert list(row.prompt) == backbone.encode_chat(asked[:3])
    assert tuple(answered) == items[0].answer_ids
    assert begun.count("<user>Which 2?</user><assistant>") == 1


def test_at_depth_the_items_of_every_second_step_stand_behind_one_beginning(
    instructed: Engine, task: TrainingTask
) -> None:
    backbone = instructed.backbone
    backbone.model.config.max_position_embeddings = 4096
    talk = tuple({"role": role, "content": text} for role, text in (("user", "It rains."), ("assistant", "It does.")))
    neutral = NeutralText((), (), (({"role": "system", "content": "2 May"}, *talk),))
    config = LocasConfig.model_validate({"training": {"window_tokens": 200, "question_noise": 0.0}})
    new = tuple(item(instructed, at, f"Which {at}?", "Rex") for at in range(20))
    asked = replace(task, new=(*new, *task.new))
    sampler = sampler_of(ExampleBuilder(instructed, config, neutral), asked, (-2, -1), config=config)
    alone = {tuple(backbone.encode_chat(question(each.question))) for each in (*asked.new, *asked.earlier)}
    steps = [[row.prompt for row in sampler.next_batch().standalone] for _ in range(4 * DEEP_GROUPS)]
    seen = set()
    for number, prompts in enumerate(steps):
        assert len(prompts) == len(steps[0])
        assert alone.issuperset(prompts) == (number % 2 == 0)
        if number % 2:
            texts = [backbone.decode(prompt) for prompt in prompts]
            (before,) = {text.rpartition("<user>Which")[0] for text in texts}
            assert len(backbone.encode(before)) <= LONG_TIMES * 200
            assert before.count("<system>") == 1
            assert not before.endswith("</user>")
            seen.add(before)
    assert seen & {f"<system>{text}</system>" for text in INSTRUCTIONS}
    assert any("It rains." in text and "2 May" in text for text in seen)
    assert any("It rains." in text and "Be kind." in text for text in seen)
    assert any("dog is Rex" in text for text in seen)  # the user's own turns
    long = [text for text in seen if len(backbone.encode(text)) > 200]
    assert 0 < len(long) <= DEEP_GROUPS / LONG_EVERY
    assert any("You can call these tools" in text and "It rains." in text for text in long)
    assert any("It rains." in text and "dog is Rex" in text for text in long)
    drawn = {prompt for prompts in steps for prompt in prompts} - alone
    assert drawn <= {row.prompt for row in sampler.examples}
    assert len(drawn) <= DEEP_GROUPS * len(steps[0])  # each group is drawn again and again


def test_a_long_beginning_fits_half_of_a_short_context(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone()
    backbone.model.config.max_position_embeddings = 256
    talk = [{"role": role, "content": "Rain."} for role in ("system", *("user", "assistant") * 20)]
    found = beginnings(backbone, [CHUNK], [talk], most_tokens=80, count=24, rng=Random(0))
    lengths = [len(backbone.encode_chat(run, generation_prompt=False)) for run in found]
    assert len(found) == 24
    assert 80 < max(lengths) <= 128
    assert all(run[-1]["role"] != "user" for run in found)
    assert beginnings(backbone, [], [], most_tokens=80, count=4, rng=Random(0))  # instructions alone
    assert beginnings(backbone, [CHUNK], [talk], most_tokens=2, count=4, rng=Random(0)) == []


def test_beside_the_last_layer_and_without_windows_there_are_no_beginnings(
    builder: ExampleBuilder, task: TrainingTask, engine: Engine
) -> None:
    config = LocasConfig.model_validate({"training": {"window_tokens": 0, "question_noise": 0.0, "found_facts": 0}})
    without = ExampleBuilder(engine, config, NeutralText((), (), ()))
    alone = {tuple(engine.backbone.encode_chat(question(each.question))) for each in (*task.new, *task.earlier)}
    for sampler in (sampler_of(without, task, (-2, -1), config), sampler_of(without, task, config=config)):
        assert {row.prompt for row in sampler.examples} <= alone
    negatives = replace(task, new=tuple(each for each in task.new if each.kind == NEGATIVE))
    assert sampler_of(builder, negatives, (-2, -1)).examples  # what is rehearsed stands behind beginnings too
    only_text = LocasConfig.model_validate({"training": {"ntp_weight": 1.0}})
    texts = ExampleBuilder(engine, only_text, NeutralText((), (), ()))
    assert sampler_of(texts, replace(negatives, earlier=()), (-2, -1), only_text).next_batch().standalone


def test_without_windows_nothing_stands_before_a_question(engine: Engine, task: TrainingTask) -> None:
    config = LocasConfig.model_validate({"training": {"window_tokens": 0}})
    sampler = sampler_of(ExampleBuilder(engine, config, NeutralText((), (), ())), task, config=config)
    assert sampler.next_batch().in_conversation == sampler.next_batch().anchors == []


def test_nothing_to_learn_is_refused(builder: ExampleBuilder) -> None:
    with pytest.raises(ConfigurationError, match="study the overflow"):
        sampler_of(builder, TrainingTask((), (), (CHUNK,), None))


def test_the_rate_warms_up_stays_and_falls() -> None:
    rates = [wsd_factor(step, 60, 40) for step in range(100)]
    assert rates[0] == 0.25
    assert set(rates[3:60]) == {1.0}
    assert rates[-1] == 0.02
    assert all(later < earlier for earlier, later in pairwise(rates[59:99]))


def test_a_long_past_is_rehearsed_in_part(builder: ExampleBuilder, task: TrainingTask, engine: Engine) -> None:
    past = tuple(item(engine, 100 + number, f"Which {number}?", str(number % 9)) for number in range(3 * REHEARSED))
    sampler = sampler_of(builder, replace(task, earlier=past))
    assert len(sampler.examples) < 2 * REHEARSED


def test_of_a_long_past_every_fact_is_rehearsed(builder: ExampleBuilder, task: TrainingTask, engine: Engine) -> None:
    # one fact with many wordings, and more facts with one each than drawing by item would find
    many = tuple(item(engine, 100 + number, f"Which {number}?", "Rex") for number in range(4 * REHEARSED))
    few = tuple(
        replace(item(engine, 9000 + number, f"What {number}?", str(number)), turn_seq=number) for number in range(100)
    )
    sampler = sampler_of(builder, replace(task, earlier=(*many, *few)))
    rehearsed = {example.target for example in sampler.examples}
    assert {each.answer_ids for each in few} <= rehearsed
    crowd = replace(task, earlier=tuple(replace(few[0], turn_seq=number) for number in range(2 * REHEARSED)))
    assert len(sampler_of(builder, crowd).examples) >= 2 * REHEARSED


def test_at_depth_the_past_takes_more_of_a_step_the_more_facts_it_holds(task: TrainingTask, engine: Engine) -> None:
    def share(facts: int, layers: tuple[int, ...]) -> float:
        past = [replace(item(engine, number, "What?", "Rex"), turn_seq=number) for number in range(facts)]
        return schedule_of(TrainingSettings(), layers, task.new, past).rehearsal_share

    assert share(0, (-2, -1)) == share(0, (-1,)) == share(40, (-1,)) == 0.3
    assert 0.3 < share(1, (-2, -1)) <= share(40, (-2, -1)) < 0.7
    given = TrainingSettings(rehearsal_share=0.1, learning_rate=0.5, max_steps=7)
    asked = schedule_of(given, (-2, -1), task.new, ())
    assert (asked.rehearsal_share, asked.learning_rate, asked.steps) == (0.1, 0.5, 7)


@pytest.mark.parametrize("objective", ["ntp", "sd", "mix"])
def test_at_depth_whole_texts_are_learnt_more_slowly_than_questions(objective: Any, task: TrainingTask) -> None:
    def rate(settings: TrainingSettings, layers: tuple[int, ...]) -> float:
        return schedule_of(settings, layers, task.new, ()).learning_rate

    questions, text = TrainingSettings(), TrainingSettings(objective=objective)
    assert rate(text, (-2, -1)) < rate(questions, (-2, -1)) / 10
    assert rate(text, (-1,)) == rate(questions, (-1,))
    assert rate(TrainingSettings(objective=objective, learning_rate=0.5), (-2, -1)) == 0.5


def test_steps_at_depth_follow_from_items_and_facts(task: TrainingTask, engine: Engine) -> None:
    def steps(facts: int, wordings: int) -> int:
        items = [replace(item(engine, at, "Q?", "A"), turn_seq=turn) for turn in range(facts) for at in range(wordings)]
        return schedule_of(TrainingSettings(), (-3, -2), items, ()).steps

    assert steps(8, 3) < steps(16, 3) < steps(16, 4) == steps(16, 40)
    assert schedule_of(TrainingSettings(), (-1,), task.new, ()).steps == 192


def test_at_depth_windows_come_every_few_steps(builder: ExampleBuilder, task: TrainingTask) -> None:
    always, seldom = (sampler_of(builder, task, layers) for layers in ((-1,), (-2, -1)))
    assert all(always.next_batch().in_conversation for _ in range(8))
    assert 1 <= sum(bool(seldom.next_batch().in_conversation) for _ in range(8)) <= 4


def test_at_depth_neutral_text_comes_every_sixth_step_and_weighs_more(
    engine: Engine, task: TrainingTask, neutral: NeutralText
) -> None:
    def weights(layers: tuple[int, ...], **training: object) -> list[float | None]:
        config = LocasConfig.model_validate({"training": {"window_tokens": 0, **training}})
        sampler = sampler_of(ExampleBuilder(engine, config, neutral), task, layers, config=config)
        drawn = [sampler.next_batch().weighted(config.training)[-1] for _ in range(12)]
        return [weight if rows else None for rows, weight in drawn]

    assert weights((-1,)) == [16.0] * 12
    assert weights((-2, -1)) == [None, None, None, 96.0, None, None] * 2
    assert weights((-2, -1), local_anchor_weight=0.0) == [None, 96.0] * 6  # nothing else holds it
    assert weights((-2, -1), anchor_weight=3.0, local_anchor_weight=0.0) == [None, 3.0] * 6
    assert weights((-2, -1), anchor_weight=0.0) == [None] * 12
