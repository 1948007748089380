"""An arm of `eval recall` that a peer answers.

Taught once for each consolidation, asked its own person's questions only.
"""

from __future__ import annotations

from typing import Any

import pytest

from locas_agent import AgentMemory, LocasConfig
from locas_agent.backbone import Backbone
from locas_agent.config import TrainingSettings
from locas_agent.consolidation.learner import Learner
from locas_agent.errors import ConfigurationError
from locas_agent.evaluation.baselines.peer import AdapterPeer, AdapterState, AdapterTrained
from locas_agent.evaluation.recall.peers import PEERS, peer_arm
from locas_agent.evaluation.recall.people import Asked
from locas_agent.evaluation.recall.setup import RecallOptions, handles_of
from locas_agent.evaluation.scoring import Arm
from locas_agent.inference import Engine
from locas_agent.training.sampling.builder import TrainingTask
from locas_storage import InMemoryStore
from tests.unit.agent.fake_learner import quick_agent
from tests.unit.evaluation.peer_tasks import neutral_text


def test_other_people_or_settings_are_other_users_of_a_store(backbone: Backbone) -> None:
    few, many = RecallOptions(users=2, facts=2), RecallOptions(users=2, facts=3)
    with quick_agent(backbone, InMemoryStore()) as agent:
        learnt_otherwise = AgentMemory(
            backbone=backbone, store=agent.store, config=LocasConfig(training=TrainingSettings(objective="ntp"))
        )
        tenants = [
            handles_of(each, options.source(), options)[0].key.tenant
            for each, options in ((agent, few), (agent, few), (agent, many), (learnt_otherwise, few))
        ]
    assert tenants[0] == tenants[1]
    assert len(set(tenants)) == 3


def test_more_facts_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="ask for fewer"):
        RecallOptions(users=2, facts=16).source()


def test_prefix_is_asked_for_and_left_out_otherwise() -> None:
    assert RecallOptions().prefix_users == 0


@pytest.mark.parametrize("name", PEERS)
def test_peer_is_taught_what_each_revision_added(
    name: str, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[tuple[int, int, bool]] = []
    train = AdapterPeer.train

    def watched(
        self: AdapterPeer, task: TrainingTask, previous: AdapterState | None = None, **options: Any
    ) -> AdapterTrained:
        taught.append((len(task.new), len(task.earlier), previous is not None))
        return train(self, task, previous, **options)

    monkeypatch.setattr(AdapterPeer, "train", watched)
    with quick_agent(backbone, InMemoryStore()) as agent:
        monkeypatch.setattr(Learner, "neutral", neutral_text(Engine(backbone)))
        monkeypatch.setattr(
            agent,
            "config",
            agent.config.model_copy(update={"training": TrainingSettings(max_steps=2, items_per_step=2)}),
        )
        handles = [agent.for_user(user) for user in ("ada", "ben")]
        for handle in handles:
            for texts in (("one", "two"), ("three",)):
                for text in texts:
                    handle.add("user", text)
                assert handle.consolidate(flush=True).admitted
        facts = RecallOptions(users=2, sessions=1, facts=2).source().tellers[0].facts
        asked = [
            Asked(user, "Where?", place, fact, (), is_own=True)
            for user in (0, 1, 2)
            for place, fact in enumerate(facts)
        ]
        arm = Arm()
        costs = peer_arm(name, agent, handles, asked, arm)
        assert taught == [(2, 0, False), (1, 2, True)] * 2
        report = arm.report()
        assert report is not None
        assert report["n"] == 2 * len(facts)  # the third person has no peer
        assert set(costs) == {f"{name}_seconds_per_user", f"{name}_params_per_user"}
        assert costs[f"{name}_params_per_user"] == PEERS[name](agent).parameter_count
        assert peer_arm(name, agent, [], asked, Arm()) == {
            f"{name}_seconds_per_user": None,
            f"{name}_params_per_user": None,
        }
