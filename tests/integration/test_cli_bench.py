"""The command `bench`: which rows it prints where. Nothing here looks at time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from locas_agent.benchmarks import suite
from locas_agent.cli import app
from locas_agent.errors import MissingExtra

CONTRACT = {"name", "ours", "peer", "ratio", "unit", "limit", "target", "holds", "spread"}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bench", *arguments])


def test_json_goes_to_standard_output_alone_and_the_picture_to_its_file(tmp_path: Path) -> None:
    done = run("append", "--quick", "--device", "cpu", "--json", "-", "--plot", str(tmp_path / "rows.svg"))
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)
    assert set(row) >= CONTRACT
    assert row["name"] == "append"
    assert len(row["spread"]) == 2
    assert "append" in (tmp_path / "rows.svg").read_text(encoding="utf-8")


def test_table_tells_on_which_side_a_limit_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {
        "ours": 2.0,
        "peer": 1.0,
        "ratio": 2.0,
        "unit": "ms",
        "limit": 1.1,
        "target": 1.0,
        "holds": False,
        "spread": [1.9, 2.1],
    }
    monkeypatch.setattr(suite, "run", lambda *_, **__: [{"name": "flat", **facts}])
    done = run()
    assert done.exit_code == 0  # a missed limit is a result
    assert "at most 1.1" in done.stdout


def test_row_that_raises_loses_none_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_bench: object) -> list[object]:
        raise MissingExtra.of("eval", "a peer of the tables")

    append = next(measure for measure, rows in suite.FAMILIES.items() if "append" in rows)
    monkeypatch.setattr(suite, "FAMILIES", {append: ("append",), none_left: ("load",)})
    done = run("append", "load", "--quick", "--device", "cpu", "--json", "-")
    assert done.exit_code == 1
    assert [row["name"] for row in json.loads(done.stdout)] == ["append"]
    assert "eval" in done.stderr


def test_choices_reach_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: dict[str, object] = {}
    monkeypatch.setattr(suite, "run", lambda *_, **options: chosen.update(options) or [])
    assert run("--quick", "--backbone", "qwen3-0.6b", "--budget", "90", "--seed", "3").exit_code == 0
    wanted = {"is_quick": True, "real": "qwen3-0.6b", "budget_seconds": 90.0, "seed": 3}
    assert {name: chosen[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("arguments", "told"), [(("speed",), "decode-base"), (("append", "--plot", "rows.txt"), ".svg")]
)
def test_what_cannot_be_is_told_before_anything_is_measured(
    arguments: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "FAMILIES", {})
    done = run(*arguments)
    assert done.exit_code == 1
    assert told in done.stderr
