"""MMLU's questions as they lie in a folder, and as tasks of lm-evaluation-harness.

The folder holds `mmlu_test.jsonl` and, for prompts with examples, `mmlu_dev.jsonl`; a row is `{subject, question,
choices: [4 texts], answer: 0..3}`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from locas_agent.errors import ConfigurationError

TEST, DEV = "mmlu_test.jsonl", "mmlu_dev.jsonl"
LETTERS = ["A", "B", "C", "D"]
PROMPT = "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"
"""Template of the harness's own task `mmlu`, so that figures can be laid beside others'."""


class MmluRow(BaseModel):
    """One question."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: Annotated[str, Field(min_length=1)]
    question: str
    choices: Annotated[list[str], Field(min_length=4, max_length=4)]
    answer: Annotated[int, Field(ge=0, le=3)]


class Mmlu:
    """The questions of a folder, by subject."""

    def __init__(self, folder: Path) -> None:
        """Read them.

        Args:
            folder: holds `mmlu_test.jsonl`, and `mmlu_dev.jsonl` where examples are wanted.

        Raises:
            ConfigurationError: no such file, or a line of another form.
        """
        self.test = _read(folder / TEST)
        self.dev = _read(folder / DEV) if (folder / DEV).exists() else {}
        self.digest = hashlib.sha256((folder / TEST).read_bytes()).hexdigest()

    def tasks(self, *, shots: int = 0) -> list[dict[str, Any]]:
        """Return one task of the harness for each subject.

        Args:
            shots: examples before each question, the subject's first ones of `mmlu_dev.jsonl`.

        Raises:
            ConfigurationError: a subject has fewer examples.
        """
        poor = [subject for subject in self.test if len(self.dev.get(subject, ())) < shots]
        if poor:
            raise ConfigurationError(
                f"{shots} examples for each question are asked, {DEV} has fewer for {', '.join(poor[:3])}; take fewer "
                "shots"
            )
        return [self._task(subject, shots) for subject in self.test]

    def _task(self, subject: str, shots: int) -> dict[str, Any]:
        examples = {"fewshot_split": "dev", "fewshot_config": {"sampler": "first_n"}} if shots else {}
        return {
            "task": f"mmlu_{subject}",
            "custom_dataset": self._splits(subject),
            "test_split": "test",
            "description": "The following are multiple choice questions (with answers) about "
            f"{subject.replace('_', ' ')}.\n\n",
            "output_type": "multiple_choice",
            "doc_to_text": PROMPT,
            "doc_to_choice": LETTERS,
            "doc_to_target": "answer",
            "num_fewshot": shots,
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
            **examples,
        }

    def _splits(self, subject: str) -> Callable[..., dict[str, Any]]:
        def splits(**_metadata: Any) -> dict[str, Any]:
            from datasets import Dataset

            made = {"test": self.test[subject], "dev": self.dev.get(subject, [])}
            return {name: Dataset.from_list([row.model_dump() for row in rows]) for name, rows in made.items() if rows}

        return splits


def _read(path: Path) -> dict[str, list[MmluRow]]:
    """Read rows by subject, subjects and rows in the order of the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path.name}: cannot be read ({type(error).__name__}); name the folder that holds {TEST}"
        ) from error
    rows: dict[str, list[MmluRow]] = {}
    for number, line in enumerate(
        text.split("\n"), start=1
    ):  # not splitlines: questions hold line separators of other kinds
        if line:
            row = _row(line, f"{path.name}, line {number}")
            rows.setdefault(row.subject, []).append(row)
    if not rows:
        raise ConfigurationError(f"{path.name} holds no question")
    return rows


def _row(line: str, where: str) -> MmluRow:
    try:
        return MmluRow.model_validate_json(line)
    except ValidationError as error:
        raise ConfigurationError(
            f"{where}: expected a JSON object with subject, question, four choices and answer 0..3"
        ) from error
