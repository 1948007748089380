"""The promise on the bundled backbone: told, learnt, the process ended, answered by another one from the weights."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from locas_agent import AgentMemory, Backbone, Consolidation, LocasConfig, UserMemory
from locas_agent.conversation.messages import question
from locas_agent.errors import ConfigurationError, CorruptPayload, IncompatibleMemory, InvalidTurn, TurnTooLong
from locas_agent.study.chunking import Chunk
from locas_agent.study.items import QUESTION, Item
from locas_agent.training.sampling.builder import TrainingTask
from locas_agent.training.trainer import Trainer
from locas_storage import SqlMemoryStore, new_item_id
from tests import forked
from tests.conftest import MakeBackbone
from tests.learnt import LEARNT_NATS, gain_nats, share_answered

TOLD = {
    "ada": [
        ("My dog is called Kolin.", "What is my dog called?", "Kolin"),
        ("I live in Varnholm.", "Which city is my home in?", "Varnholm"),
    ],
    "bob": [
        ("My dog is called Dranik.", "What is my dog called?", "Dranik"),
        ("I collect leather maps.", "Which things do I collect?", "leather maps"),
    ],
}
FAST = {"policy": {"automatic": False}}
HASTY = {
    "study": {"max_rounds": 1, "negatives_per_piece": 2},
    "training": {"max_steps": 2, "anchor_tokens": 16},
    "admission": {"min_gain": 0.0, "max_old_loss": 1.0, "max_drift_nats": 100.0},
}
"""Settings with which a memory is made and admitted in no time, whatever it has learnt."""
CHILD = """
import json, sys
import torch
from locas_agent import AgentMemory
with AgentMemory.load(store=sys.argv[1]) as memory:
    print(json.dumps([memory.for_user(user).recall(question).answer for user, question in json.loads(sys.argv[2])]))
"""


@pytest.fixture(scope="session")
def tiny() -> Backbone:
    return Backbone.load("tiny", device="cpu")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'locas.db'}"


@pytest.fixture
def agent(tiny: Backbone, url: str) -> Iterator[AgentMemory]:
    with AgentMemory.load(tiny, store=url, config=LocasConfig.model_validate(FAST)) as memory:
        yield memory


@dataclass(frozen=True)
class Learnt:
    """A database in which Ada and Bob have been learnt side by side.

    To be copied: most tests begin there, and a consolidation takes long.

    Attributes:
        path: its file.
        results: of the two consolidations.
        weights: digests of the backbone's, before and after.
    """

    path: Path
    results: list[Consolidation]
    weights: tuple[str, str]


@pytest.fixture(scope="module")
def learnt(tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    path = tmp_path_factory.mktemp("learnt") / "locas.db"
    before = weights(tiny)
    with AgentMemory.load(tiny, store=f"sqlite:///{path}", config=LocasConfig.model_validate(FAST)) as memory:
        for user in TOLD:
            tell(memory, user)
        results = memory.consolidate_many(list(TOLD), flush=True)
    return Learnt(path, results, (before, weights(tiny)))


@pytest.fixture
def taught(learnt: Learnt, tmp_path: Path, agent: AgentMemory) -> AgentMemory:
    """An agent on a database of its own in which both are learnt."""
    shutil.copyfile(learnt.path, tmp_path / "locas.db")  # the agent opens it at its first verb
    return agent


@pytest.fixture
def ada(taught: AgentMemory) -> UserMemory:
    """Ada of that database."""
    return taught.for_user("ada")


def tell(memory: AgentMemory, user: str) -> None:
    for text, _, _ in TOLD[user]:
        memory.for_user(user).add("user", text)
        memory.for_user(user).add("assistant", "Good to know.")


def weights(backbone: Backbone) -> str:
    digest = hashlib.sha256()
    for _, tensor in sorted(backbone.model.state_dict().items()):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def test_new_process_answers_from_the_weights_and_each_user_only_his_own(
    learnt: Learnt, taught: AgentMemory, url: str
) -> None:
    assert [result.status for result in learnt.results] == ["admitted", "admitted"], learnt.results
    before, after = learnt.weights
    assert after == before
    for user in TOLD:
        for _, asked_for, value in TOLD[user]:
            assert gain_nats(taught.for_user(user), asked_for, value) > LEARNT_NATS

    asked = [(user, question) for user in TOLD for _, question, _ in TOLD[user]]
    asked += [("bob", TOLD["ada"][1][1]), ("ada", TOLD["bob"][1][1]), ("carol", TOLD["ada"][0][1])]
    here = [taught.for_user(user).recall(question).answer for user, question in asked]
    taught.close()
    child = forked.run("-c", CHILD, url, json.dumps(asked), timeout=120)
    assert child.returncode == 0, child.stderr
    answers = json.loads(child.stdout)
    assert answers == here  # the same weights and the same arithmetic
    expected = [value for user in TOLD for _, _, value in TOLD[user]]
    # Half: a training may lose a fact to rounding, and without memories none would be answered.
    assert sum(value in answer for answer, value in zip(answers, expected, strict=False)) >= len(expected) / 2
    for answer in answers[len(expected) :]:
        assert not any(value in answer for value in expected)


def test_reply_uses_memory_and_says_so(agent: AgentMemory, ada: UserMemory) -> None:
    assert agent.for_user("carol").reply("Hello, it is me again.").why_no_memory == "nothing has been consolidated yet"
    reply = ada.reply("What is my dog called?")
    assert (reply.revision, reply.used_memory, reply.why_no_memory) == (1, True, None)
    assert reply.prompt_tokens.total > 0


def test_recall_cites_the_turn_it_comes_from_and_prefers_the_memory(agent: AgentMemory, ada: UserMemory) -> None:
    items = [item for item in agent.store.study_items(ada.key) if TOLD["ada"][0][2] in item.answer]
    recalls = [ada.recall(item.question) for item in items]
    cited = [recall for recall in recalls if recall.answer == items[0].answer]
    assert len(cited) >= len(items) / 2  # of what was studied; where rounding costs an answer, another is cited or none
    for recall in cited:
        assert recall.logprob > recall.logprob_without + LEARNT_NATS
        assert [turn.content for turn in recall.citations] == [TOLD["ada"][0][0]]


def test_rollback_goes_back_and_forth(ada: UserMemory) -> None:
    learnt = ada.recall("What is my dog called?").answer
    assert not ada.rollback(0).has_payload
    assert ada.recall("What is my dog called?").answer != learnt
    ada.rollback(1)
    assert ada.recall("What is my dog called?").answer == learnt
    assert [revision.restores for revision in ada.revisions()] == [None, 0, 1]


def test_newer_value_replaces_the_older_one(agent: AgentMemory, ada: UserMemory) -> None:
    """By which wordings it is asked for afterwards is measured over many people, by `eval recall`: `updated_facts`."""
    items = agent.store.study_items
    old, new = TOLD["ada"][1][2], "Pelburg"
    former = [item for item in items(ada.key) if old in item.answer]
    told = ada.add("user", f"The city where I live is now {new}.", session="later")
    result = ada.consolidate(flush=True)
    assert result.admitted, result.detail
    assert (result.metrics.retired_items or 0) > 0 < len(former)
    # Half of about five: the teacher has to be sure of the new value in each wording, and rounding may leave it unsure
    # of one.
    assert sum(old in item.answer for item in items(ada.key)) <= len(former) / 2
    assert {item.turn_seq for item in items(ada.key) if new in item.answer} == {told.seq}
    # Half of the questions studied, of about six: rounding may cost some, and a memory that was not trained on them
    # answers none.
    assert share_answered(agent, ada, new) >= 0.5
    assert share_answered(agent, ada, TOLD["ada"][0][2]) >= 0.5  # what did not change is still known


def test_row_of_a_batch_answers_as_alone(taught: AgentMemory) -> None:
    agent = taught
    prompt = agent.backbone.encode_chat([{"role": "user", "content": "What is my dog called?"}])
    handles = [agent.for_user(user) for user in TOLD]
    memories = [agent.memory_of(handle.key, handle.revisions()[-1]) for handle in handles]
    rows = [*memories, None]
    together = agent.engine.generate([prompt] * 3, memory=agent.batch_of(rows), max_new_tokens=12)
    for generation, memory in zip(together, rows, strict=True):
        (alone,) = agent.engine.score([prompt], [generation.ids], memory=agent.batch_of([memory]))
        assert generation.logprobs == pytest.approx(
            alone.tolist(), abs=1e-3
        )  # products of another shape sum in another order
    for row, (_, _, value) in enumerate((TOLD["ada"][0], TOLD["bob"][0])):  # rows that traded places would show
        told = [agent.backbone.encode(f"It is {value}.")]
        mine, *others = (
            float(agent.engine.score([prompt], told, memory=agent.batch_of([each]))[0].sum())
            for each in (rows[row], rows[1 - row], None)
        )
        assert mine > max(others) + LEARNT_NATS


def test_diverging_learning_rate_is_refused_and_the_former_revision_stands(
    tiny: Backbone, agent: AgentMemory, ada: UserMemory, url: str
) -> None:
    good = ada.recall("What is my dog called?").answer
    ada.add("user", "My parents live in Pelburg.", session="later")
    wild = LocasConfig.model_validate(FAST | {"training": {"learning_rate": 1e30, "max_steps": 8}})
    with AgentMemory.load(tiny, store=url, config=wild) as other:
        result = other.for_user("ada").consolidate(flush=True)
    assert result.status == "refused"
    assert result.reason in ("diverged", "drift", "forgets", "no gain")
    assert agent.store.audit(ada.key)[-1].action == "refuse"
    assert ada.recall("What is my dog called?").answer == good
    assert len(ada.turns()) == 5


def test_crash_before_the_commit_changes_nothing(tiny: Backbone, url: str) -> None:
    def crash(step: str) -> None:
        if step.startswith("commit"):
            raise KeyboardInterrupt(step)

    store = SqlMemoryStore(url, fault_point=crash)
    with AgentMemory(backbone=tiny, store=store, config=LocasConfig.model_validate(FAST | HASTY)) as memory:
        tell(memory, "ada")
        with pytest.raises(KeyboardInterrupt):
            memory.for_user("ada").consolidate(flush=True)
    with AgentMemory.load(tiny, store=url) as memory:
        ada = memory.for_user("ada")
        assert ada.revisions() == []
        assert memory.store.study_items(ada.key) == []
        assert len(ada.turns()) == 4


def test_flipped_byte_is_found_before_use(ada: UserMemory, tmp_path: Path, tiny: Backbone, url: str) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "locas.db") as database:
        for row, data in database.execute("SELECT rowid, data FROM lm_blob").fetchall():
            broken = data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]
            database.execute("UPDATE lm_blob SET data = ? WHERE rowid = ?", (broken, row))
    database.close()
    with AgentMemory.load(tiny, store=url) as memory, pytest.raises(CorruptPayload):
        memory.for_user("ada").recall("What is my dog called?")


def test_memory_of_another_backbone_is_refused(ada: UserMemory, make_backbone: MakeBackbone, url: str) -> None:
    with AgentMemory.load(make_backbone(seed=1), store=url) as other, pytest.raises(IncompatibleMemory):
        other.for_user("ada").recall("What is my dog called?")


@pytest.mark.parametrize("text", ["nul \x00 byte", "lone \ud800 surrogate"])
def test_text_a_database_cannot_hold_is_refused_and_nothing_lost(agent: AgentMemory, text: str) -> None:
    tell(agent, "ada")
    with pytest.raises(InvalidTurn) as caught:
        agent.for_user("ada").add("user", text)
    assert "byte" not in str(caught.value)
    assert len(agent.for_user("ada").turns()) == 4


def test_bad_input_has_a_clear_error(agent: AgentMemory, tiny: Backbone) -> None:
    with pytest.raises(InvalidTurn):
        agent.for_user("")
    with pytest.raises(InvalidTurn):
        agent.for_user("ada").add("wizard", "Hello.")
    with pytest.raises(TurnTooLong, match="room for"):
        agent.for_user("ada").add("user", "word " * 2000)
    with pytest.raises(ConfigurationError, match="wider"):
        AgentMemory.load(tiny, store="sqlite://", config=LocasConfig.model_validate({"memory": {"width": 100_000}}))
    with pytest.raises(ConfigurationError):
        agent.for_user("ada").consolidate(wait=False)
    assert agent.users() == []


def test_same_key_is_one_pair_of_turns(agent: AgentMemory) -> None:
    ada = agent.for_user("ada")
    ada.reply("Good morning!", idempotency_key="k1")
    ada.reply("Good morning!", idempotency_key="k1")
    assert [turn.role for turn in ada.turns()] == ["user", "assistant"]


def test_streamed_answer_is_the_replied_one(agent: AgentMemory) -> None:
    tell(agent, "ada")
    stream = agent.for_user("ada").stream("What is my dog called?")
    text = "".join(stream)
    assert stream.reply is not None
    assert text.strip() == stream.reply.text == agent.for_user("ada").turns()[-1].content


def test_batched_training_gives_each_user_what_training_alone_gives(agent: AgentMemory) -> None:
    """Rows of a batch are independent: the loss is a sum over users, the gradient is clipped per user."""
    tasks = []
    for user, facts in TOLD.items():
        tell(agent, user)
        (chunk,) = agent.runner.task(agent.for_user(user).key, None, agent.for_user(user).turns()).chunks
        tasks.append(
            TrainingTask(tuple(item_of(agent, chunk, asked, value) for _, asked, value in facts), (), (chunk,), None)
        )
    trainer = Trainer(
        agent.engine,
        LocasConfig.model_validate({"training": {"max_steps": 3}}),
        agent.learner.neutral,
        agent.learner.last_layer,
    )
    together = trainer.train(tasks)[0].memory.slab
    alone = trainer.train(tasks[:1])[0].memory.slab
    assert not torch.equal(alone[:, 2], torch.zeros_like(alone[:, 2]))
    torch.testing.assert_close(
        together, alone, atol=2e-3, rtol=1e-2
    )  # Adam divides by tiny second moments in its first steps


def item_of(agent: AgentMemory, chunk: Chunk, asked: str, value: str) -> Item:
    """An item as study would write it, whatever the backbone makes of the chunk."""
    answer_ids = (*agent.backbone.encode(f"It is {value}."), agent.backbone.end_id)
    prompt = agent.backbone.encode_chat([*chunk.messages, *question(asked)])
    (teacher,) = agent.engine.distributions([prompt], [answer_ids], top_k=16)
    return Item(
        new_item_id(),
        QUESTION,
        chunk.from_seq,
        chunk.to_seq,
        chunk.to_seq,
        asked,
        f"It is {value}.",
        answer_ids,
        teacher,
    )
