"""`eval mmlu` on twelve made-up questions.

The harness model against plain transformers, memory off and on, other tasks, wrong input, the command.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("lm_eval")

from locas_agent.agent import AgentMemory
from locas_agent.backbone import Backbone
from locas_agent.cli import app
from locas_agent.config import AdmissionSettings
from locas_agent.errors import ConfigurationError, TurnTooLong
from locas_agent.evaluation.mmlu import harness
from locas_agent.evaluation.mmlu.data import DEV, LETTERS, PROMPT, TEST, Mmlu
from locas_agent.evaluation.mmlu.harness import MemoryLM
from locas_agent.evaluation.mmlu.memories import of_text, text_config
from locas_agent.evaluation.mmlu.run import load_tasks, measure_forgetting
from locas_agent.evaluation.recall.setup import RecallOptions
from locas_agent.exports.dense import merge
from locas_agent.inference import Engine
from locas_agent.memory import LocasMemory
from locas_agent.memory.serialization import to_bytes
from locas_storage import RevisionDraft, UserKey
from tests.conftest import MakeBackbone, MakeMemory
from tests.pictures import assert_shows

TALK = Path(__file__).with_name("two_people.jsonl")
SUBJECTS = ("ferry_times", "lake_fish", "hill_names")


def rows(count: int) -> list[dict[str, Any]]:
    """Questions of three subjects in turn; one holds a line separator that is no line feed."""
    return [
        {
            "subject": SUBJECTS[at % 3],
            "question": f"Which one is number {at}?\u2028Say it.",
            "choices": [f"{letter}{at}" for letter in "wxyz"],
            "answer": at % 4,
        }
        for at in range(count)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mmlu")
    for name, count in ((TEST, 12), (DEV, 6)):
        made.joinpath(name).write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(count)), encoding="utf-8"
        )
    return made


@pytest.fixture
def agent(backbone: Backbone) -> Iterator[AgentMemory]:
    with AgentMemory.load(backbone, "sqlite://") as memory:
        yield memory


def requests(*args: tuple[Any, ...]) -> list[Any]:
    return [SimpleNamespace(args=each) for each in args]


def plain(model: Any, ids: list[int]) -> torch.Tensor:
    """Log-probabilities after each token, by transformers alone, one text at a time."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)


def test_model_gives_the_likelihoods_of_plain_transformers_without_and_with_a_memory(
    make_backbone: MakeBackbone, make_memory: MakeMemory
) -> None:
    backbone = make_backbone()
    memory = make_memory(5, on=backbone)
    asked = [
        ("Which one?\nAnswer:", " A"),
        ("Which one?\nAnswer:", " B"),
        ("Say ", "it now"),
        ("", "alone"),
        ("x" * 600, " end"),
    ]
    for model, attached in ((backbone.model, None), (merge(backbone, memory), memory)):
        lm = MemoryLM(AgentMemory.load(backbone, "sqlite://").engine, attached)
        for (context, continuation), (got, greedy) in zip(asked, lm.loglikelihood(requests(*asked)), strict=True):
            before = backbone.encode(context) or [backbone.end_id]
            wanted = backbone.encode(continuation)
            if context.endswith(" "):  # the harness moves the blank to the continuation
                before, wanted = before[:-1], [before[-1], *wanted]
            ids = [*before, *wanted][-(backbone.context_tokens + 1) :]
            table = plain(model, ids[:-1])[-len(wanted) :]
            assert got == pytest.approx(float(table.gather(1, torch.tensor(wanted)[:, None]).sum()), abs=2e-4)
            assert greedy == (table.argmax(-1).tolist() == wanted)
        assert lm.cut == 1
    most_likely = backbone.decode([int(plain(backbone.model, backbone.encode("Say"))[-1].argmax())])
    assert MemoryLM(AgentMemory.load(backbone, "sqlite://").engine, None).loglikelihood(requests(("Say", most_likely)))[
        0
    ][1]


def test_examples_before_the_questions_of_a_subject_are_run_once(
    make_backbone: MakeBackbone, make_memory: MakeMemory
) -> None:
    backbone = make_backbone()
    dense, attached = merge(backbone, made := make_memory(5, on=backbone)), made
    examples = "Examples of one subject, many of them. " * 6
    asked = [(f"{examples}Question {'x' * at}:", f" {letter}") for at in range(5) for letter in "AB"]
    asked += [("Something else entirely:", " A")]
    for model, memory in ((backbone.model, None), (dense, attached)):
        engine = Counting(backbone)
        got = MemoryLM(engine, memory).loglikelihood(requests(*asked))
        texts = [backbone.encode(context) for context, _ in asked]
        for ids, (_, continuation), (found, greedy) in zip(texts, asked, got, strict=True):
            wanted = backbone.encode(continuation)
            table = plain(model, [*ids, *wanted[:-1]])[-len(wanted) :]
            assert found == pytest.approx(float(table.gather(1, torch.tensor(wanted)[:, None]).sum()), abs=2e-4)
            assert greedy == (table.argmax(-1).tolist() == wanted)
        assert engine.tokens < 2 * len(texts[0]) < sum(map(len, texts[::2])) / 2


class Counting(Engine):
    """Counts the tokens that are run."""

    tokens = 0

    def hidden(self, input_ids: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        self.tokens += input_ids.numel()
        return super().hidden(input_ids, *args, **options)


def test_whole_texts_and_answers_are_those_of_plain_transformers(
    make_backbone: MakeBackbone, make_memory: MakeMemory
) -> None:
    backbone = make_backbone()
    memory = make_memory(5, on=backbone)
    dense = merge(backbone, memory)
    lm = MemoryLM(AgentMemory.load(backbone, "sqlite://").engine, memory)
    short, long = "a short text", "long " * 200  # 1000 bytes: two windows of 512
    for text, got in zip((short, long, ""), lm.loglikelihood_rolling(requests((short,), (long,), ("",))), strict=True):
        ids, expected = [backbone.end_id, *backbone.encode(text)], 0.0
        for first in range(0, len(ids) - 1, 512):
            last = min(first + 512, len(ids) - 1)
            begin = max(0, last - 512)  # a window is as long as it can be, and counts what no window before it counted
            table = plain(dense, ids[begin:last])
            expected += sum(float(table[at - begin, ids[at + 1]]) for at in range(first, last))
        assert got == pytest.approx(expected, rel=1e-5, abs=1e-6)
    prompt = backbone.encode("Say it")
    for _ in range(6):
        prompt.append(int(plain(dense, prompt)[-1].argmax()))
    answer = backbone.decode(prompt[-6:])
    stop = answer[3]
    asked = [("Say it", {"until": ["\x00"], "max_gen_toks": 6}), ("Say it", {"until": stop, "max_gen_toks": 6})]
    assert lm.generate_until(requests(*asked)) == [answer, answer.split(stop)[0]]


def test_answer_that_fills_the_context_is_refused(backbone: Backbone) -> None:
    lm = MemoryLM(AgentMemory.load(backbone, "sqlite://").engine, None)
    with pytest.raises(TurnTooLong, match="no room for its question"):
        lm.loglikelihood(requests(("a", " b" * 400)))


def test_without_a_memory_nothing_flips_and_nothing_moves(agent: AgentMemory, folder: Path) -> None:
    report = measure_forgetting(agent, load_tasks(Mmlu(folder).tasks()), {"nobody": None})
    assert (report["questions"], report["tasks"], report["n"]) == (12, 3, 12)
    assert (report["flips"], report["mcnemar_p"], report["accuracy_off"]) == (0, 1.0, report["accuracy_on"])
    assert (report["mean_abs_delta_nll"], report["drift_kl_nats"]) == (0.0, 0.0)  # exactly: the same forwards


def test_a_memory_is_compared_question_by_question(agent: AgentMemory, folder: Path, make_memory: MakeMemory) -> None:
    memory = make_memory(3, on=agent.backbone)
    report = measure_forgetting(agent, load_tasks(Mmlu(folder).tasks()), {"strong": memory, "nobody": None})
    strong, nobody = report["memories"]
    lines = [
        "The following are multiple choice questions (with answers) about "
        f"{row['subject'].replace('_', ' ')}.\n\n{row['question'].strip()}\n"
        + "".join(f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, row["choices"], strict=True))
        + "Answer:"
        for row in rows(12)
    ]
    encoded = [agent.backbone.encode(line) for line in lines]
    letters = [agent.backbone.encode(f" {letter}") for letter in LETTERS]
    right: dict[str, list[bool]] = {}
    nll: dict[str, list[float]] = {}
    for name, model in (("off", agent.backbone.model), ("on", merge(agent.backbone, memory))):
        tables = [
            [
                sum(
                    float(plain(model, [*ids, *letter[:-1]])[len(ids) - 1 + at, token])
                    for at, token in enumerate(letter)
                )
                for letter in letters
            ]
            for ids in encoded
        ]
        right[name] = [
            max(range(4), key=lambda at, scores=scores: scores[at]) == row["answer"]
            for scores, row in zip(tables, rows(12), strict=True)
        ]
        nll[name] = [-scores[row["answer"]] for scores, row in zip(tables, rows(12), strict=True)]
    assert strong["accuracy_off"] == pytest.approx(sum(right["off"]) / 12, abs=1e-4)
    assert strong["accuracy_on"] == pytest.approx(sum(right["on"]) / 12, abs=1e-4)
    assert strong["flips"] == sum(a != b for a, b in zip(right["off"], right["on"], strict=True))
    assert strong["mean_abs_delta_nll"] == pytest.approx(
        sum(abs(a - b) for a, b in zip(nll["off"], nll["on"], strict=True)) / 12, abs=1e-4
    )
    assert strong["mean_abs_delta_nll"] > 0.1
    assert strong["drift_kl_nats"] > 0.01
    assert (nobody["flips"], report["n"], report["flips"], report["accuracy_delta_ci95"]) == (
        0,
        24,
        strong["flips"],
        None,
    )
    assert report["mcnemar_p"] == pytest.approx(min(1.0, 2 * strong["mcnemar_p"]), abs=1e-4)
    assert {name: each["n"] for name, each in report["by_task"].items()} == {
        f"mmlu_{subject}": 4 for subject in SUBJECTS
    }


def test_stopped_run_computes_only_what_is_missing(
    agent: AgentMemory, folder: Path, make_memory: MakeMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, scores = list[int](), MemoryLM._scores

    def counted(lm: MemoryLM, inputs: Any, counts: Any, **rest: Any) -> list[torch.Tensor]:
        computed.append(len(inputs))
        return scores(lm, inputs, counts, **rest)

    def stop(_: str, done: int, total: int) -> None:
        if done < total and sum(computed) > 12:  # all questions of the bare backbone, a part with the memory
            raise KeyboardInterrupt

    monkeypatch.setattr(MemoryLM, "_scores", counted)
    monkeypatch.setattr(harness, "MOST_TOGETHER", 2)
    tasks, memories = load_tasks(Mmlu(folder).tasks(shots=2)), {"strong": make_memory(3, on=agent.backbone)}
    path = tmp_path / "likelihoods.jsonl"
    with pytest.raises(KeyboardInterrupt):
        measure_forgetting(agent, tasks, memories, answers=path, progress=stop)
    assert 12 < sum(computed) < 24
    part = measure_forgetting(agent, tasks, memories, answers=path, limit=6)
    report = measure_forgetting(agent, tasks, memories, answers=path)
    assert (sum(computed), part["questions"]) == (24, 6)
    expected = measure_forgetting(agent, tasks, memories)
    assert report["mean_abs_delta_nll"] == pytest.approx(expected["mean_abs_delta_nll"], abs=1e-5)
    assert report["by_task"] == expected["by_task"]
    other = {"weak": make_memory(1, on=agent.backbone)}
    assert measure_forgetting(agent, tasks, other, answers=path)["mean_abs_delta_nll"] > 0
    assert sum(computed) == 24 + 24 + 12  # the straight run, and the other memory: the bare backbone is in the file
    assert "Which one" not in path.read_text(encoding="utf-8")


def test_limit_draws_the_same_questions_for_the_same_seed(agent: AgentMemory, folder: Path) -> None:
    tasks = load_tasks(Mmlu(folder).tasks(shots=1))
    reports = [measure_forgetting(agent, tasks, {"nobody": None}, limit=5, seed=seed) for seed in (1, 1, 2)]
    first, again, other = ({name: each["n"] for name, each in report["by_task"].items()} for report in reports)
    assert first == again
    assert sum(first.values()) == sum(other.values()) == 5


def test_prompt_is_that_of_the_harness_task_with_the_subjects_first_examples(folder: Path) -> None:
    import lm_eval

    template = Path(lm_eval.__file__).parent / "tasks" / "mmlu" / "default" / "_default_template_yaml"
    assert json.dumps(PROMPT) in template.read_text(encoding="utf-8")
    task = load_tasks(Mmlu(folder).tasks(shots=2))["mmlu_lake_fish"]
    task.set_fewshot_seed(seed=0)
    text = task.fewshot_context(task.eval_docs[1], num_fewshot=2)
    assert text.startswith(
        "The following are multiple choice questions (with answers) about lake fish.\n\nWhich one is number 1?"
    )
    assert [text.count(f"Answer: {letter}\n") for letter in LETTERS] == [1, 1, 0, 0]  # rows 1 and 4 of the examples
    assert text.endswith("D. z4\nAnswer:")


def test_any_other_task_of_the_harness_is_asked_from_local_files(
    agent: AgentMemory, make_memory: MakeMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps({"text": f"text number {at}"}) + "\n" for at in range(4)), encoding="utf-8")
    task = tmp_path / "texts.yaml"
    task.write_text(
        f"task: texts\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {data}\ntest_split: "
        "test\noutput_type: loglikelihood_rolling\n"
        "doc_to_text: ''\ndoc_to_target: '{{text}}'\nmetric_list:\n  - metric: bits_per_byte\n",
        encoding="utf-8",
    )
    report = measure_forgetting(agent, load_tasks([task]), {"strong": make_memory(3, on=agent.backbone)})
    assert (report["questions"], report["n"], report["accuracy_off"], report["mcnemar_p"]) == (4, 0, None, None)
    assert report["mean_abs_delta_nll"] > 0.1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "line 1: expected a JSON object"),
        ("no json", "line 1"),
        (json.dumps({**rows(1)[0], "answer": 4}), "answer 0..3"),
        (json.dumps({**rows(1)[0], "choices": ["a"]}), "four choices"),
        ("", "holds no question"),
    ],
)
def test_other_rows_are_refused_and_never_quoted(line: str, message: str, tmp_path: Path) -> None:
    tmp_path.joinpath(TEST).write_text(line, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=message) as caught:
        Mmlu(tmp_path)
    assert "Which one" not in str(caught.value)


def test_missing_data_and_missing_examples_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="name the folder"):
        Mmlu(tmp_path)
    with pytest.raises(ConfigurationError, match="fewer for ferry_times"):
        Mmlu(folder).tasks(shots=3)
    with pytest.raises(ConfigurationError, match=r"cannot load the tasks none\.yaml"):
        load_tasks([tmp_path / "none.yaml"])


def test_memory_of_a_text_is_learnt_and_one_that_is_refused_is_told(backbone: Backbone, tmp_path: Path) -> None:
    page = tmp_path / "page.txt"
    page.write_text("The ferry left the island a little after seven. " * 12, encoding="utf-8")
    quick = text_config().training.model_copy(update={"max_steps": 2, "anchor_weight": 0.0})

    def taught(max_drift_nats: float) -> LocasMemory:
        admission = AdmissionSettings(max_drift_nats=max_drift_nats)
        with AgentMemory.load(
            backbone, "sqlite://", text_config().model_copy(update={"training": quick, "admission": admission})
        ) as agent:
            (memory,) = of_text(agent, page).values()
            return memory

    assert taught(100.0).down_rows.any()
    with pytest.raises(ConfigurationError, match=r"no memory was admitted \(drift\)"):
        taught(1e-9)
    page.write_text(" \n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"page\.txt holds no text"):
        taught(100.0)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--people", "2"],
        ["PATH", "--people", "2", "--user", "ada"],
        ["PATH", "--talk", str(TALK), "--people", "2"],
        ["PATH", "--people", "2", "--user", ""],
        ["PATH", "--talk", "nowhere.jsonl"],
        ["PATH", "--limit", "0"],
    ],
)
def test_wrong_usage_ends_with_code_two(arguments: list[str], folder: Path) -> None:
    result = CliRunner().invoke(app, ["eval", "mmlu", *(str(folder) if each == "PATH" else each for each in arguments)])
    assert result.exit_code == 2


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command sets is put back as it was."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "1")


@pytest.mark.usefixtures("environment")
def test_command_teaches_the_people_of_files_or_made_up_ones(
    folder: Path, backbone_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = list[RecallOptions]()

    def teach(agent: AgentMemory, options: RecallOptions, **_: Any) -> dict[str, None]:  # as in test_cli_recall
        taught.append(options)
        return {"nobody": None}

    monkeypatch.setattr("locas_agent.evaluation.mmlu.memories.of_people", teach)
    for source in (["--talk", str(TALK)], ["--people", "3"]):
        asked = CliRunner().invoke(
            app, ["eval", "mmlu", str(folder), *source, "--limit", "3", "--backbone", backbone_folder]
        )
        assert asked.exit_code == 0, asked.stderr
    talk, made_up = (options.source() for options in taught)
    assert (talk.name, len(talk.tellers), len(made_up.tellers)) == ("two_people.jsonl", 2, 3)


@pytest.mark.usefixtures("environment")
def test_command_asks_with_a_stored_memory_and_refuses_a_user_without_one(
    folder: Path, backbone_folder: str, make_memory: MakeMemory, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path / 'locas.db'}"
    with AgentMemory.load(backbone_folder, store) as agent:
        for user in ("ada", "ben"):
            agent.for_user(user).add("user", "My dog is called Rex.")
        payload = to_bytes(make_memory(3, on=agent.backbone))
        agent.store.commit(
            UserKey("default", "ada"), RevisionDraft(0, agent.backbone.fingerprint, "config", "0", 0, 1, 1, payload)
        )
    command = ["eval", "mmlu", str(folder), "--backbone", backbone_folder, "--store", store]
    asked = CliRunner().invoke(
        app,
        [
            *command,
            "--user",
            "ada",
            "--limit",
            "7",
            "--shots",
            "1",
            "--json",
            str(tmp_path / "report.json"),
            "--plot",
            str(tmp_path / "figures.svg"),
        ],
    )
    assert asked.exit_code == 0, asked.stderr
    assert "7 questions of 3 tasks" in asked.stdout
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (report["kind"], report["questions"], report["shots"], len(report["memories"])) == ("mmlu", 7, 1, 1)
    assert {"accuracy_off", "accuracy_on", "flips", "mcnemar_p", "drift_kl_nats", "mmlu_sha256"} <= set(report)
    assert report["mean_abs_delta_nll"] > 0.1
    assert_shows(tmp_path / "figures.svg", "memory on", f"{report['lost']} lost", "accuracy, 7 questions")
    refused = CliRunner().invoke(app, [*command, "--user", "ben"])
    assert refused.exit_code == 1
    assert "no memory yet" in refused.stderr
