"""Noise in questions: what it leaves out, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from locas_agent.backbone import Backbone
from locas_agent.conversation.messages import Message, question
from locas_agent.training.examples import Example
from locas_agent.training.sampling.noise import QuestionNoise

MakeBackbone = Callable[..., Backbone]

TEMPLATES = {
    "instructions of its own": "{% if messages[0].role != 'system' %}<system>You are kind and you like it.</system>"
    "{% endif %}{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}",
    "hardly any": "{% for m in messages %}{{ m.content }}\n{% endfor %}",
    "looks back": "{{ messages | length }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<answer>",
}
ASKED = "What is the name of the village where my aunt has her bakery?"
BEGINNING: list[Message] = [{"role": "user", "content": "It rains."}, {"role": "assistant", "content": "It does."}]


@pytest.fixture(params=list(TEMPLATES))
def backbone(make_backbone: MakeBackbone, request: pytest.FixtureRequest) -> Backbone:
    made = make_backbone()
    made.tokenizer.chat_template = TEMPLATES[request.param]
    return made


@pytest.mark.parametrize("beginning", [[], BEGINNING], ids=["alone", "behind a beginning"])
def test_tokens_of_the_question_are_left_out_and_none_around_it(backbone: Backbone, beginning: list[Message]) -> None:
    prompt = tuple(backbone.encode_chat([*beginning, *question(ASKED)]))
    noise, rng = QuestionNoise(backbone, 0.3), Random(0)
    around = noise.around(lambda text: [*beginning, *question(text)])
    before, _, behind = backbone.decode(prompt).partition(ASKED)
    left = []
    for _ in range(200):
        noisy = noise.of(Example(prompt, (1, 2), None), rng, around=around)
        text = backbone.decode(noisy.prompt)
        assert text.startswith(before)
        assert text.endswith(behind)
        assert noisy.target == (1, 2)
        left.append(len(prompt) - len(noisy.prompt))
    tokens = len(backbone.encode(ASKED))
    assert 0.2 * tokens < sum(left) / len(left) < 0.4 * tokens


def test_some_of_a_question_is_always_left(backbone: Backbone) -> None:
    prompt = tuple(backbone.encode_chat(question("Who?")))
    noise, rng = QuestionNoise(backbone, 0.99), Random(0)
    empty = len(prompt) - len(backbone.encode("Who?"))
    assert all(len(noise.of(Example(prompt, (1,), None), rng).prompt) > empty for _ in range(50))


def test_without_noise_nothing_changes(backbone: Backbone) -> None:
    example = Example(tuple(backbone.encode_chat(question(ASKED))), (1,), None)
    assert QuestionNoise(backbone, 0.0).of(example, Random(0)) is example


def test_what_is_no_question_is_left_alone(backbone: Backbone) -> None:
    """The first token of a turn, behind which a text is learnt."""
    example = Example(tuple(backbone.encode_chat(question(ASKED)))[:1], (1, 2, 3), None)
    assert QuestionNoise(backbone, 0.5).of(example, Random(0)).prompt == example.prompt
