"""GRPO on a memory.

A stored fact is asked for in a format the memory was not taught, and right answers in that format are rewarded.

    pip install "locas-agent[grpo]"
    python examples/grpo_memory.py                   # bundled backbone, on CPU, a few minutes on one core

A user tells four facts and the memory learns them. Each question is then asked with an instruction behind it. The
reward can be checked by reading: 1 for exactly the asked sentence with the stored value, else 0. TRL's GRPO trainer
changes the memory's rows only; the bare backbone, which does not know the facts, is the reference policy. Ends with
code 0 if the mean reward of sampled answers has risen.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from typing import Any

from datasets import Dataset
from trl import GRPOConfig

from locas_agent import AgentMemory
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory, MemoryBatch
from locas_agent.training.grpo import MemoryPolicy, memory_trainer

FACTS = {
    "What is my dog called?": ("My dog is called Rex.", "Rex"),
    "Where do I live?": ("I live in Oslo.", "Oslo"),
    "What is my favourite colour?": ("My favourite colour is green.", "green"),
    "What is my job?": ("I work as a baker.", "baker"),
}
INSTRUCTION = "{question} Be brief."
FORMAT = "It is {value}."
SAMPLES = 16
HEAT = 1.5
"""Temperature of the answers that are rewarded: at 1.0 nine questions of ten got eight equal answers, none better."""
ANSWER_TOKENS = 12


def in_format(completions: list[list[dict[str, str]]], value: list[str], **_: object) -> list[float]:
    """1 for the asked sentence and nothing else, else 0."""
    return [
        float(answer[0]["content"].strip() == FORMAT.format(value=wanted))
        for answer, wanted in zip(completions, value, strict=True)
    ]


def learn(backbone: str) -> tuple[Engine, LocasMemory]:
    """Tell the facts and consolidate them, as any user's."""
    with AgentMemory.load(backbone, "sqlite://") as agent:
        user = agent.for_user("ada")
        for told, _ in FACTS.values():
            user.add("user", told)
        if not user.consolidate(flush=True).admitted:
            sys.exit("The admission gate refused the memory: this backbone did not learn what it was told.")
        memory = agent.memory_of(user.key, agent.store.revision(user.key))
        assert memory is not None
        return agent.engine, memory


def questions(template: str) -> list[dict[str, Any]]:
    """The rows of the data set: a conversation that ends in the question, and the value that is right."""
    return [
        {"prompt": [{"role": "user", "content": template.format(question=question)}], "value": value}
        for question, (_, value) in FACTS.items()
    ]


def mean_reward(engine: Engine, memory: LocasMemory | None, rows: list[dict[str, Any]]) -> float:
    """Reward of sampled answers, at temperature 1."""
    total = 0.0
    for row in rows:
        prompt = engine.backbone.encode_chat(row["prompt"])
        batch = None if memory is None else MemoryBatch.of([memory], engine.backbone, rows_per_memory=SAMPLES)
        made = engine.generate([prompt] * SAMPLES, memory=batch, max_new_tokens=ANSWER_TOKENS, temperature=1.0, seed=1)
        answers = [[{"role": "assistant", "content": engine.backbone.decode(each.ids)}] for each in made]
        total += sum(in_format(answers, [row["value"]] * SAMPLES))
    return total / (SAMPLES * len(rows))


def reward_answers(
    engine: Engine, memory: LocasMemory, rows: list[dict[str, Any]], *, steps: int, rate: float, beta: float
) -> LocasMemory:
    """Run GRPO and return the memory it ends with; the one it starts with stays as it is."""
    policy = MemoryPolicy(engine.backbone, memory)
    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            folder,
            max_steps=steps,
            per_device_train_batch_size=8 * len(rows),
            num_generations=8,
            max_completion_length=ANSWER_TOKENS,
            learning_rate=rate,
            lr_scheduler_type="constant",
            beta=beta,
            temperature=HEAT,
            seed=0,
            chat_template_kwargs={"enable_thinking": False},
            activation_checkpointing=False,
            save_strategy="no",
            bf16=False,
            logging_steps=10,
            report_to="none",
            use_cpu=engine.backbone.device.type == "cpu",
            disable_tqdm=not sys.stderr.isatty(),
        )
        memory_trainer(policy, in_format, settings, Dataset.from_list(rows)).train()
    return policy.memory()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--backbone", default="tiny", help="'tiny' (bundled), a folder, or a hub id")
    parser.add_argument(
        "--steps", type=int, default=40, help="optimiser steps, eight sampled answers to each question in each"
    )
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--beta", type=float, default=0.002, help="weight of the divergence from the bare backbone")
    arguments = parser.parse_args()
    engine, memory = learn(arguments.backbone)
    rows = questions(INSTRUCTION)
    rewarded = reward_answers(engine, memory, rows, steps=arguments.steps, rate=arguments.rate, beta=arguments.beta)
    found = {}
    for name, asked in (("without the instruction", questions("{question}")), ("with it", rows)):
        found = {
            at: mean_reward(engine, each, asked)
            for at, each in (("bare backbone", None), ("memory", memory), ("after GRPO", rewarded))
        }
        print(f"mean reward {name}: " + ", ".join(f"{at} {value:.2f}" for at, value in found.items()))
    sys.exit(0 if found["after GRPO"] > found["memory"] else "The reward did not rise.")


if __name__ == "__main__":
    main()
