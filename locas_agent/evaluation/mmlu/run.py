"""`eval mmlu`: what a memory does to tasks it has nothing to do with.

Every question is asked twice, with the memory off and on.

Knows neither where the tasks come from nor how the memories were taught. The questions are put, and the answers judged,
by lm-evaluation-harness.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from locas_agent.agent import AgentMemory
from locas_agent.errors import ConfigurationError, MissingExtra
from locas_agent.evaluation.drift import drift, neutral_rows
from locas_agent.evaluation.mmlu.likelihoods import opened
from locas_agent.evaluation.mmlu.paired import Comparison, Pair, compare
from locas_agent.evaluation.scoring import mean
from locas_agent.memory import LocasMemory
from locas_agent.types import Progress

if TYPE_CHECKING:
    from locas_agent.evaluation.mmlu.harness import MemoryLM

Tasks = dict[str, Any]
"""The harness's tasks by name."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """How one question came out.

    Right or wrong, and the negative log-likelihood of the right answer; None where the task has none.
    """

    right: bool | None
    nll: float | None
    prompt: str


def load_tasks(specs: Sequence[Mapping[str, Any] | Path]) -> Tasks:
    """Make tasks of the harness, all from this machine.

    Args:
        specs: configurations, such as `Mmlu.tasks` gives, or the harness's own YAML files, whose `dataset_kwargs` name
            local data.

    Raises:
        MissingExtra: lm-eval is not installed.
        ConfigurationError: no task, a file that is none, or data that are not on this machine.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise MissingExtra.of("mmlu", "eval mmlu") from error
    manager = TaskManager(include_defaults=False)
    with _quiet():
        try:
            loaded: Tasks = dict(
                manager.load([str(spec) if isinstance(spec, Path) else dict(spec) for spec in specs])["tasks"]
            )
        except (KeyError, ValueError, OSError) as error:
            names = ", ".join(spec.name for spec in specs if isinstance(spec, Path))
            raise ConfigurationError(f"cannot load the tasks {names}: {type(error).__name__}: {error}") from error
    for task in loaded.values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
    if not loaded:
        raise ConfigurationError("no task was named")
    return loaded


def measure_forgetting(
    agent: AgentMemory,
    tasks: Tasks,
    memories: Mapping[str, LocasMemory | None],
    *,
    limit: int | None = None,
    seed: int = 0,
    answers: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Ask everything with the memory off, then once with each memory, and compare question by question.

    Args:
        agent: its backbone answers; nothing is stored.
        tasks: from `load_tasks`.
        memories: at least one, by a name for the report; None is the bare backbone and moves nothing.
        limit: questions drawn from all tasks together; None asks all.
        seed: of the draw, of examples a task draws, and of the neutral text.
        answers: file of likelihoods, JSON lines, with which a stopped run asks what is missing; None keeps none. What a
            task generates, and whole texts that it scores, are asked again.
        progress: told of likelihoods done.

    Returns:
        The report of the contract: figures over all memories, and those of each under `memories`. With several memories
        `mcnemar_p` is the least of theirs times their number (Bonferroni), and the interval is left out, since they
        were asked the same questions.

    Raises:
        ConfigurationError: no memory, or the file is of another backbone.
        ExchangeError: the file cannot be read or written.
    """
    from locas_agent.evaluation.mmlu.harness import MemoryLM

    if not memories:
        raise ConfigurationError("no memory was given to compare with the bare backbone")
    started = time.perf_counter()
    chosen = _drawn(tasks, limit, seed)
    book = opened(agent.backbone, answers)
    bare = MemoryLM(agent.engine, None, seed=seed, book=book, progress=progress)
    off = _answers(bare, tasks, chosen, seed)
    compared, pairs, on_by_memory = [], [], []
    for name, memory in memories.items():
        model = MemoryLM(agent.engine, memory, seed=seed, book=book, progress=progress)
        on = _answers(model, tasks, chosen, seed)
        own = [_pair(off[place], on[place]) for place in off]
        compared.append({"memory": name, **_figures(compare(own)), **_drift(agent, [memory], seed)})
        pairs += own
        on_by_memory.append(on)
    report = {
        "kind": "mmlu",
        "backbone": agent.backbone.name,
        "seed": seed,
        "tasks": len(chosen),
        "questions": len(off),
        "cut_prompts": bare.cut,
    }
    report |= _figures(compare(pairs)) | _drift(agent, list(memories.values()), seed)
    if len(compared) > 1:
        least = [one["mcnemar_p"] for one in compared if one["mcnemar_p"] is not None]
        report |= {"accuracy_delta_ci95": None, "mcnemar_p": min(1.0, len(least) * min(least)) if least else None}
    report |= {"memories": compared, "by_task": _by_task(off, on_by_memory)}
    return report | {"seconds": round(time.perf_counter() - started, 1)}


def _drawn(tasks: Tasks, limit: int | None, seed: int) -> dict[str, list[int]]:
    """Choose questions: of each task that has any, their places in it."""
    places = [(name, at) for name, task in tasks.items() for at in range(len(task.eval_docs))]
    if limit is not None and limit < len(places):
        places = sorted(Random(f"forgetting:{seed}").sample(places, limit))
    chosen: dict[str, list[int]] = {}
    for name, at in places:
        chosen.setdefault(name, []).append(at)
    return chosen


def _answers(model: MemoryLM, tasks: Tasks, chosen: dict[str, list[int]], seed: int) -> dict[tuple[str, int], _Answer]:
    """Ask the chosen questions of one model; by task and place."""
    from lm_eval.evaluator import evaluate

    for name in chosen:
        tasks[name].set_fewshot_seed(seed=seed)
    loaded = {"tasks": {name: tasks[name] for name in chosen}, "groups": {}, "group_map": {}}
    with _quiet():
        result = evaluate(lm=model, task_dict=loaded, samples=chosen, bootstrap_iters=0, log_samples=True)
    answers: dict[tuple[str, int], _Answer] = {}
    for name, samples in result["samples"].items():
        for sample in samples:  # a task may read one answer in several ways; the first counts
            answers.setdefault((name, sample["doc_id"]), _answer(sample, tasks[name]))
    return answers


def _answer(sample: Mapping[str, Any], task: Any) -> _Answer:
    score = sample[sample["metrics"][0]]
    right = bool(score) if isinstance(score, bool | int | float) and score in (0, 1) else None
    responses = [response[0] for response in sample["resps"]]
    nll = None
    match task.OUTPUT_TYPE:
        case "multiple_choice":
            target = sample["target"]
            place = target if isinstance(target, int) else task.doc_to_choice(sample["doc"]).index(target)
            nll = -float(responses[place][0])
        case "loglikelihood":
            nll = -float(responses[0][0])
        case "loglikelihood_rolling":
            nll = -float(responses[0])
    return _Answer(right, nll, sample["prompt_hash"])


def _pair(off: _Answer, on: _Answer) -> Pair:
    assert off.prompt == on.prompt  # the same question, with the same examples
    right = None if off.right is None or on.right is None else (off.right, on.right)
    return Pair(right, None if off.nll is None or on.nll is None else (off.nll, on.nll))


def _figures(found: Comparison) -> dict[str, Any]:
    interval = found.accuracy_delta_ci95
    return {
        "accuracy_off": _rounded(found.accuracy_off),
        "accuracy_on": _rounded(found.accuracy_on),
        "accuracy_delta_ci95": None if interval is None else [round(end, 4) for end in interval],
        "n": found.n,
        "flips": found.flips,
        "lost": found.lost,
        "gained": found.gained,
        "flip_rate": round(found.flips / found.n, 4) if found.n else None,
        "mcnemar_p": found.mcnemar_p,
        "mean_abs_delta_nll": _rounded(found.mean_abs_delta_nll, 6),
        "mean_delta_nll": _rounded(found.mean_delta_nll, 6),
    }


def _drift(agent: AgentMemory, memories: Sequence[LocasMemory | None], seed: int) -> dict[str, float]:
    present = [memory for memory in memories if memory is not None]
    average, p99 = drift(agent.engine, present, neutral_rows(agent.engine, seed=seed)) if present else (0.0, 0.0)
    return {"drift_kl_nats": round(average, 5), "drift_kl_p99_nats": round(p99, 5)}


def _by_task(
    off: Mapping[tuple[str, int], _Answer], on: Sequence[Mapping[tuple[str, int], _Answer]]
) -> dict[str, dict[str, Any]]:
    """Accuracy of each task that has a right and wrong; on is the mean over memories."""
    table = {}
    for name in dict.fromkeys(task for task, _ in off):
        places = [place for place in off if place[0] == name and off[place].right is not None]
        if places:
            shares = [mean([float(answers[place].right or 0) for place in places]) for answers in (off, *on)]
            table[name] = {
                "n": len(places),
                "accuracy_off": round(shares[0], 4),
                "accuracy_on": round(mean(shares[1:]), 4),
            }
    return table


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(value, digits)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back the harness's notes; they are about options that are not used here, one for each task."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
