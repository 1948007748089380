"""The demo: one process is told and learns, and ends; another answers from the weights.

Knows only `recall`'s two halves, how to start a process, and whom each kind of backbone can understand.

python -m locas_agent.evaluation.recall.demo STORE OPTIONS BACKBONE      what the first process runs
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from locas_agent.agent import AgentMemory
from locas_agent.backbone.sources import TINY
from locas_agent.errors import ConsolidationError
from locas_agent.evaluation.recall.people import LeftOut
from locas_agent.evaluation.recall.run import ask
from locas_agent.evaluation.recall.setup import RecallOptions, evaluation_config, teach
from locas_agent.types import Progress

MADE_UP = RecallOptions(users=4, sessions=3, facts=4, seed=7, lora_users=1)
"""People of the generator: the bundled backbone understands no others."""
TALK = RecallOptions(
    files=(Path(__file__).parents[1] / "talk" / "two_people.jsonl",), lora_users=0, without=(LeftOut.FULL_CONTEXT,)
)
"""Two hand-written people, on whom two choices were made (`docs/decisions.md`, earlier facts and long rows of neutral
text), for a backbone that knows English. Without the LoRA peer, which takes many times as long as all the rest, and
without the arm that reads all sessions for each question."""


def demo_options(backbone: str) -> RecallOptions:
    """Return whom the demo is about on a backbone, few enough for a first try on two cores."""
    return MADE_UP if backbone == TINY else TALK


def run_demo(
    store: Path, *, options: RecallOptions, backbone: str = TINY, progress: Progress | None = None
) -> dict[str, Any]:
    """Teach in a process of its own, wait until it has ended, then answer here from what lies in the database.

    Args:
        store: SQLite file; it must not exist yet, so that nothing but this demo is in it.
        options: whom to ask, such as `demo_options` of the backbone.
        backbone: name, path or hub id.
        progress: told of the stages of the second half; the first process shows its own.

    Raises:
        ConsolidationError: the first process failed.
    """
    url = f"sqlite:///{store}"
    command = [sys.executable, "-m", "locas_agent.evaluation.recall.demo", url, options.model_dump_json(), backbone]
    finished = subprocess.run(command, check=False)  # its own program, no shell
    if finished.returncode:
        raise ConsolidationError(
            f"the process that was to learn ended with code {finished.returncode}; its own message stands above"
        )
    with AgentMemory.load(backbone, store=url, config=evaluation_config(None)) as agent:
        return ask(agent, options.source(), options, kind="demo", progress=progress) | {"store": str(store)}


def _first_process(url: str, options: str, backbone: str) -> None:
    def show(stage: str, done: int, total: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{stage} {done}/{total} ")

    with AgentMemory.load(backbone, store=url, config=evaluation_config(None)) as agent:
        chosen = RecallOptions.model_validate_json(options)
        teach(agent, chosen.source(), chosen, progress=show)


if __name__ == "__main__":
    _first_process(*sys.argv[1:4])
