"""`eval pg19` as anybody would run it.

Wrong usage, a kill without warning, and the real small backbone where it is at hand.

Knows the command line, what it prints and the folder of the state.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from locas_agent.cli import app
from tests import forked

DATA = os.environ.get("LOCAS_DATA")
"""Read while this file is imported: the tests' settings clear the variable."""
TIMES = ("seconds", "cpu_seconds", "relative_time")


@pytest.fixture
def books(tmp_path: Path) -> Path:
    folder = tmp_path / "books"
    folder.mkdir()
    for number, line in enumerate(
        ("The ferry left at noon and nobody waved. ", "Snow lay on the pier, and a dog slept there. ")
    ):
        (folder / f"{number}.txt").write_text(line * 40, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--books", "no such folder"],
        ["--books", "BOOKS", "--arms", "locas,locas"],
        ["--books", "BOOKS", "--rate", "0"],
        ["--books", "BOOKS", "--init", "x"],
        ["--books", "BOOKS", "--layers", "upper"],
        ["--books", "BOOKS", "--layers", "0"],
    ],
)
def test_wrong_usage_ends_with_code_two(arguments: list[str], books: Path) -> None:
    result = CliRunner().invoke(app, ["eval", "pg19", *(str(books) if each == "BOOKS" else each for each in arguments)])
    assert result.exit_code == 2


def test_short_book_ends_with_code_one_and_its_name(books: Path, backbone_folder: str) -> None:
    (books / "leaflet.txt").write_text("Too short.", encoding="utf-8")
    result = CliRunner().invoke(
        app, ["eval", "pg19", "--books", str(books), "--backbone", backbone_folder, "--window", "32", "--stride", "32"]
    )
    assert result.exit_code == 1
    assert "'leaflet' has 10 tokens" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "n"), [("1", 1), ("0,1", 2), ("auto", 1)])
def test_layers_are_a_number_or_a_list_or_a_word(layers: str, n: int, books: Path, backbone_folder: str) -> None:
    asked = ["--books", str(books), "--backbone", backbone_folder, "--window", "16", "--stride", "16", "--json", "-"]
    done = CliRunner().invoke(
        app, ["eval", "pg19", *asked, "--arms", "locas", "--max-tokens", "64", "--width", "4", "--layers", layers]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["overall"]["locas"]["parameters"] == 3 * n * 4 * 32


def test_run_killed_while_reading_ends_with_the_same_report(books: Path, backbone_folder: str, tmp_path: Path) -> None:
    def command(name: str) -> list[str]:
        return [
            "-m",
            "locas_agent.cli",
            "eval",
            "pg19",
            "--books",
            str(books),
            "--backbone",
            backbone_folder,
            "--window",
            "32",
            "--stride",
            "16",
            "--width",
            "4",
            "--lora-rank",
            "2",
            "--json",
            "-",
            "--state",
            str(tmp_path / name),
            "--plot",
            str(tmp_path / f"{name}.png"),
        ]

    pytest.importorskip("matplotlib")
    state = tmp_path / "killed"
    with forked.started(*command("killed")) as child:
        while child.poll() is None and not list(state.glob("*-temp_lora-*.safetensors")):
            time.sleep(0.01)
        child.kill()
        assert child.wait(30) == -signal.SIGKILL  # it had not ended by itself
    assert len(list(state.glob("*.safetensors"))) < 6
    report = _finished(command("killed"))
    assert report == _finished(command("straight"))
    assert len(list(state.glob("*.safetensors"))) == 6  # two books, three arms
    assert (tmp_path / "killed.png").stat().st_size > 0
    assert report["kind"] == "pg19"
    assert [book["book"] for book in report["books"]] == ["0", "1"]
    for book in report["books"]:  # a line said forty times is learnt by whoever learns
        none, temp_lora, locas = (book["arms"][arm]["perplexity"] for arm in ("none", "temp_lora", "locas"))
        assert max(temp_lora, locas) < none


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="LOCAS_DATA names no folder of shared data")
def test_small_backbone_reads_a_real_book_better_with_a_memory(tmp_path: Path) -> None:
    data = Path(str(DATA))
    target = tmp_path / "report.json"
    arguments = [
        "--books",
        str(data / "pg19" / "349.txt"),
        "--backbone",
        str(data / "models" / "books-11m"),
        "--device",
        "cpu",
    ]
    small = [
        "--window",
        "128",
        "--stride",
        "256",
        "--max-tokens",
        "2048",
        "--arms",
        "none,locas",
        "--json",
        str(target),
    ]
    assert CliRunner().invoke(app, ["eval", "pg19", *arguments, *small]).exit_code == 0
    overall = json.loads(target.read_text(encoding="utf-8"))["overall"]
    assert overall["none"]["tokens"] == 2047
    assert overall["locas"]["perplexity"] < overall["none"]["perplexity"]


def _finished(command: list[str]) -> dict[str, Any]:
    done = forked.run(*command)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(
        done.stdout, object_hook=lambda found: {name: value for name, value in found.items() if name not in TIMES}
    )
    return report
