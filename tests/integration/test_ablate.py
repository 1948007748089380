"""`scripts.ablate`: the same study set learnt in other ways; a stopped run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from locas_agent import AgentMemory
from locas_agent.config import LocasConfig
from locas_agent.evaluation.recall.people import Source
from locas_agent.study.items import Item, fact_of
from locas_agent.training.sampling.builder import TrainingTask
from scripts import ablate

PEOPLE = Path(__file__).parents[1] / "unit" / "evaluation" / "two_people.jsonl"


def test_every_variant_changes_something_that_there_is() -> None:
    default = LocasConfig()
    names = [(one.about, one.name) for one in ablate.VARIANTS]
    assert len(set(names)) == len(names)
    for variant in ablate.VARIANTS:
        for part, changed in variant.settings.items():
            settings = getattr(default, part).model_dump()
            assert type(getattr(default, part)).model_validate(settings | changed).model_dump() != settings


def test_variants_are_tried_on_one_study_set_and_a_stopped_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    arguments = f"ablate --people {PEOPLE} --users 1 --backbone tiny --dtype float32 --answers {rows} --store"
    arguments += f" sqlite:///{tmp_path / 'ablation.db'} --only width"
    seen: list[tuple[Item, ...]] = []
    tried = ablate._tried

    def counted(
        agent: AgentMemory, source: Source, variant: ablate.Variant, user: int, task: TrainingTask
    ) -> ablate.Row:
        seen.append(task.new)
        return tried(agent, source, variant, user, task)

    monkeypatch.setattr(ablate, "_tried", counted)
    monkeypatch.setattr("sys.argv", arguments.split())
    ablate.main()
    first = capsys.readouterr().out
    assert [line.split("|")[2].strip() for line in first.splitlines()[2:]] == ["22", "44", "176"]
    assert [line.split("|")[7].strip() for line in first.splitlines()[2:]] == ["16,896", "33,792", "135,168"]
    assert len({tuple(item.item_id for item in items) for items in seen}) == 1
    kept = next(one for one in ablate.VARIANTS if one.name == "at most one a fact").keep(seen[0])
    assert 0 < len(kept) < len(seen[0])
    assert len({fact_of(item) for item in kept}) == len(kept)
    whole = rows.read_text(encoding="utf-8")
    rows.write_text("".join(whole.splitlines(keepends=True)[:-1]), encoding="utf-8")
    ablate.main()
    assert len(seen) == 4  # the last variant alone
    again = capsys.readouterr().out
    assert again.splitlines()[:-1] == first.splitlines()[:-1]
