"""Study tells how far it is, so that whoever has to stop need not wait for its end.

The backbone is a random one, which asks nothing of sense.
"""

from __future__ import annotations

import datetime as dt
import threading
from contextlib import closing
from pathlib import Path

import pytest

from locas_agent import AgentMemory, Backbone, Engine, LocasConfig, StudySettings
from locas_agent.config import FormSettings
from locas_agent.results import WorkSummary
from locas_agent.study.chunking import chunk_turns
from locas_agent.study.items import StudyRequest
from locas_agent.study.self_study import SelfStudy
from locas_agent.study.teacher import Teacher
from locas_storage import SqlMemoryStore, Turn

SETTINGS = StudySettings(
    forms=FormSettings(),
    first_samples=1,
    samples_per_turn=1,
    max_rounds=3,
    negatives_per_piece=1,
    max_question_tokens=8,
    max_answer_tokens=2,
)
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def request(backbone: Backbone, texts: int) -> StudyRequest:
    turns = [
        Turn(seq, f"k{seq}", "user", f"I said {seq}.", None, None, NOW, "user", 1, NOW) for seq in range(1, texts + 1)
    ]
    return StudyRequest(
        tuple(
            chunk_turns(
                turns, lambda messages: len(backbone.encode_chat(messages, generation_prompt=False)), max_tokens=60
            )
        )
    )


def test_progress_rises_to_its_end_and_is_told_after_each_stage_of_a_piece(engine: Engine) -> None:
    requests = [request(engine.backbone, 1), request(engine.backbone, 4)]
    chunks = max(len(one.chunks) for one in requests)
    assert chunks > 1
    told: list[tuple[str, int, int]] = []
    sets = SelfStudy(Teacher(engine, SETTINGS, seed=0), SETTINGS, seed=0).write(
        requests, progress=lambda *stage: told.append(stage)
    )
    total = chunks * (SETTINGS.max_rounds + 2)
    assert {(stage, whole) for stage, _, whole in told} == {("study", total)}
    done = [number for _, number, _ in told]
    assert done == sorted(set(done))
    assert done[-1] == total
    assert len(done) >= 3 * chunks
    again = SelfStudy(Teacher(engine, SETTINGS, seed=0), SETTINGS, seed=0).write(requests)
    assert [[item.question for item in one.items] for one in sets] == [
        [item.question for item in one.items] for one in again
    ]


def test_worker_that_is_stopped_during_study_gives_its_job_back_at_the_next_stage(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    after: list[str] = []
    monkeypatch.setattr(SelfStudy, "_refresh", lambda *_: stop.set())
    monkeypatch.setattr(SelfStudy, "_negatives", lambda *_: after.append("negatives"))
    config = LocasConfig.model_validate(
        {"memory": {"width": 2}, "study": SETTINGS.model_dump(), "policy": {"automatic": False}}
    )
    with closing(SqlMemoryStore(f"sqlite:///{tmp_path / 'locas.db'}")) as store:
        agent = AgentMemory(backbone=backbone, store=store, config=config, consolidation="background")
        ada = agent.for_user("ada")
        ada.add("user", "I said it.")
        ada.consolidate(flush=True, wait=False)
        assert agent.work(stop=stop) == WorkSummary()
        assert after == []
        (job,) = store.queue.jobs()
        assert (job.state, job.attempts) == ("ready", 0)
