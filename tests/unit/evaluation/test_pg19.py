"""Online perplexity on the tiny random backbone: what is scored before it is learnt, sums, steps, resuming."""

from __future__ import annotations

import math
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from locas_agent.backbone import Backbone
from locas_agent.errors import ConfigurationError, ConsolidationError, ExchangeError, IncompatibleMemory
from locas_agent.evaluation.pg19 import run as pg19
from locas_agent.evaluation.pg19.data import Book, book_of, chunks_of, read_books
from locas_agent.evaluation.pg19.learners import Online, with_adapter, with_memory
from locas_agent.evaluation.pg19.options import PAPER_LORA, LocasSettings, LoraSettings, Pg19Options
from locas_agent.evaluation.pg19.plot import plot_pg19
from locas_agent.evaluation.pg19.report import COLUMNS, clock_on, figures, pg19_rows
from locas_agent.evaluation.pg19.run import run_pg19
from locas_agent.evaluation.pg19.streams import BookStream
from locas_agent.inference import Engine
from tests.conftest import MakeBackbone

TOKENS = 230
"""Of the made-up book, whose tokens are bytes; ten chunks of 24, the last one short."""
OPTIONS = Pg19Options(
    window_tokens=16,
    stride_tokens=24,
    locas=LocasSettings(width=8, rate=3e-2, scale="none"),
    temp_lora=LoraSettings(rank=4, rate=1e-2),
)
TIMES = ("seconds", "cpu_seconds", "relative_time")


def made_up(seed: int = 0, length: int = TOKENS) -> Book:
    draw = Random(seed)
    words = ["the ", "heron ", "waits ", "by ", "a ", "cold ", "lake. "]
    return book_of(f"book-{seed}", "".join(draw.choice(words) for _ in range(length))[:length])


def timeless(report: Any) -> Any:
    """A report without its times, which no two runs share."""
    if isinstance(report, dict):
        return {name: timeless(value) for name, value in report.items() if name not in TIMES}
    return [timeless(each) for each in report] if isinstance(report, list) else report


def chunks(report: dict[str, Any], arm: str) -> list[list[float]]:
    found: list[list[float]] = report["books"][0]["arms"][arm]["chunks"]
    return found


@pytest.fixture(scope="module")
def report(backbone: Backbone) -> dict[str, Any]:
    return run_pg19(backbone, [made_up()], OPTIONS)


@pytest.mark.parametrize(
    ("length", "window", "stride"), [(230, 16, 24), (48, 24, 24), (49, 30, 24), (25, 7, 24), (9, 3, 1)]
)
def test_every_token_but_the_first_is_scored_once_with_the_window_before_its_chunk(
    length: int, window: int, stride: int
) -> None:
    ids = list(range(1000, 1000 + length))
    found = chunks_of(ids, window=window, stride=stride)
    assert [token for chunk in found for token in chunk.targets] == ids[1:]
    for chunk in found:
        seen = (*chunk.input_ids, chunk.targets[-1])
        assert list(seen) == ids[seen[0] - 1000 : seen[-1] - 999]  # no gap
        start = chunk.targets[0] - 1000 if chunk.targets[0] > 1001 else 0
        assert seen[0] - 1000 == max(0, start - window)


def test_none_is_what_plain_transformers_computes(report: dict[str, Any], backbone: Backbone) -> None:
    ids = torch.tensor([backbone.encode(made_up().text)])
    total = 0.0
    for start in range(0, TOKENS, 24):
        part = ids[:, max(0, start - 16) : start + 24]
        with torch.inference_mode():
            logprobs = backbone.model(input_ids=part).logits[0].double().log_softmax(-1)
        for at in range(max(1, start) - max(0, start - 16), part.shape[1]):
            total -= float(logprobs[at - 1, part[0, at]])
    own = report["books"][0]["arms"]["none"]
    assert own["tokens"] == TOKENS - 1
    assert own["nll"] == pytest.approx(total, rel=1e-6)  # fp32 log-probabilities against float64
    assert own["perplexity"] == pytest.approx(math.exp(total / (TOKENS - 1)), rel=1e-6)


@pytest.mark.parametrize("arm", ["none", "temp_lora", "locas"])
def test_later_text_never_changes_what_earlier_text_cost(arm: str, report: dict[str, Any], backbone: Backbone) -> None:
    book = made_up()
    changed = book_of("changed", book.text[:120] + book.text[120:].upper())  # the sixth chunk begins at token 120
    other = run_pg19(backbone, [changed], OPTIONS.model_copy(update={"arms": (arm,)}))
    assert chunks(other, arm)[:5] == chunks(report, arm)[:5]
    assert chunks(other, arm)[5] != chunks(report, arm)[5]


@pytest.mark.parametrize("arm", ["temp_lora", "locas"])
def test_first_chunk_costs_what_it_costs_the_bare_backbone_and_later_ones_less(
    arm: str, report: dict[str, Any]
) -> None:
    bare, own = chunks(report, "none"), chunks(report, arm)
    assert own[0][1] == pytest.approx(bare[0][1], rel=1e-6)  # scored before it is learnt
    assert own[1][1] != pytest.approx(bare[1][1], rel=1e-4)
    assert sum(nll for _, nll in own[5:]) < 0.9 * sum(nll for _, nll in bare[5:])


@pytest.mark.parametrize("settings", [(OPTIONS.temp_lora, 1), (OPTIONS.temp_lora, 3), (PAPER_LORA, 2)])
def test_both_arms_take_the_steps_they_are_given(settings: tuple[LoraSettings, int], backbone: Backbone) -> None:
    lora, steps = settings
    locas = OPTIONS.locas.model_copy(update={"steps": steps})
    first, second, *_ = chunks_of(backbone.encode(made_up().text), window=16, stride=24)
    readers = (
        with_memory(Engine(backbone), first.input_ids, locas, seed=0),
        with_adapter(backbone, lora.model_copy(update={"steps": steps}), seed=0),
    )
    for reader in readers:
        reader.read(first, 0)
        reader.read(second, 1)
        taken = {name: int(value) for name, value in reader.state().items() if name.startswith("step.")}
        assert taken
        assert set(taken.values()) == {2 * steps}


def test_sums_come_first_and_the_exponential_once() -> None:
    stream = BookStream(tokens=[1, 3], nll=[4.0, 0.4], parameters=7, seconds=2.0, cpu_seconds=1.0)
    own = figures({"none": stream}, clock_on("cpu"))["none"]
    assert own["perplexity"] == math.exp(4.4 / 4)
    assert own["perplexity"] < (math.exp(4.0) + 3 * math.exp(0.4 / 3)) / 4  # the mean of exponentials reads higher
    assert own["relative_time"] == 1.0


def test_all_books_are_summed_before_the_exponential(backbone: Backbone) -> None:
    report = run_pg19(backbone, [made_up(), made_up(1, 60)], OPTIONS.model_copy(update={"arms": ("none", "locas")}))
    for arm, own in report["overall"].items():
        parts = [book["arms"][arm] for book in report["books"]]
        assert own["tokens"] == 229 + 59
        assert own["perplexity"] == pytest.approx(math.exp(sum(each["nll"] for each in parts) / (229 + 59)))
    assert report["overall"]["none"]["books_better"] == 0
    assert report["overall"]["locas"]["books_better"] in (0, 1, 2)


def test_marks_tell_the_perplexity_so_far_and_since_the_mark_before(backbone: Backbone) -> None:
    stream = BookStream(tokens=[30_000, 30_000, 40_000, 10_000], nll=[30_000.0, 60_000.0, 20_000.0, 10_000.0])
    marks = figures({"locas": stream}, clock_on("cpu"))["locas"]["marks"]
    assert [mark["tokens"] for mark in marks] == [50_000, 100_000]
    assert [mark["cumulative"] for mark in marks] == pytest.approx([math.exp(90 / 60), math.exp(110 / 100)])
    assert [mark["bucket"] for mark in marks] == pytest.approx([math.exp(90 / 60), math.exp(20 / 40)])


class _Killed(Exception):
    pass


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_stopped_run_goes_on_and_gives_the_same_report(
    dropout: float, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pg19, "CHECKPOINT_CHUNKS", 3)
    options = OPTIONS.model_copy(update={"temp_lora": OPTIONS.temp_lora.model_copy(update={"dropout": dropout})})
    straight = timeless(run_pg19(backbone, [made_up()], options))
    read: list[tuple[str, int]] = []
    stops = iter([("book-0: none", 4), ("book-0: temp_lora", 5), ("book-0: locas", 8)])

    def run() -> dict[str, Any]:
        stop = next(stops, None)

        def progress(stage: str, done: int, _total: int) -> None:
            read.append((stage, done))
            if (stage, done) == stop:
                raise _Killed

        return run_pg19(backbone, [made_up()], options, state=tmp_path / "state", progress=progress)

    for _ in range(3):
        with pytest.raises(_Killed):
            run()
    assert timeless(run()) == straight
    # each arm went on after the last chunk that had been kept: 3, 3 and 6
    again = {stage: sorted({done for done in range(1, 11) if read.count((stage, done)) > 1}) for stage, _ in read}
    assert again == {"book-0: none": [4], "book-0: temp_lora": [4, 5], "book-0: locas": [7, 8]}
    count = len(read)
    assert timeless(run()) == straight
    assert len(read) == count  # nothing is read twice
    assert all(made_up().text.encode()[:20] not in file.read_bytes() for file in (tmp_path / "state").iterdir())


def test_state_of_an_arm_does_not_depend_on_the_settings_of_another(backbone: Backbone, tmp_path: Path) -> None:
    run_pg19(backbone, [made_up()], OPTIONS, state=tmp_path)
    before = set(tmp_path.iterdir())
    wider = OPTIONS.model_copy(update={"locas": OPTIONS.locas.model_copy(update={"width": 4})})
    run_pg19(backbone, [made_up()], wider, state=tmp_path)
    (added,) = set(tmp_path.iterdir()) - before
    assert "-locas-" in added.name


def test_damaged_state_is_told_by_name(backbone: Backbone, tmp_path: Path) -> None:
    run_pg19(backbone, [made_up()], OPTIONS.model_copy(update={"arms": ("none",)}), state=tmp_path)
    (file,) = tmp_path.iterdir()
    os.truncate(file, 20)
    with pytest.raises(ExchangeError, match=r"-none-.*remove it"):
        run_pg19(backbone, [made_up()], OPTIONS, state=tmp_path)


def test_one_flipped_bit_of_a_state_is_noticed_before_any_book_is_read(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pg19, "CHECKPOINT_CHUNKS", 3)
    read: list[tuple[str, int]] = []

    def progress(stage: str, done: int, _total: int) -> None:
        read.append((stage, done))
        if (stage, done) == ("book-0: locas", 4):
            raise _Killed

    with pytest.raises(_Killed):
        run_pg19(backbone, [made_up()], OPTIONS, state=tmp_path, progress=progress)
    (file,) = tmp_path.glob("*-locas-*.safetensors")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1  # in a tensor: the header stands in front
    file.write_bytes(content)
    read.clear()
    with pytest.raises(ExchangeError, match=r"-locas-.*remove it"):
        run_pg19(backbone, [made_up(), made_up(1)], OPTIONS, state=tmp_path, progress=progress)
    assert read == []


def test_state_of_other_parameters_is_refused(backbone: Backbone) -> None:
    reader = with_memory(Engine(backbone), [1, 2, 3], OPTIONS.locas, seed=0)
    with pytest.raises(IncompatibleMemory, match="1 tensors, 4 were expected"):
        reader.restore({"parameter.other": torch.zeros(1)})


def test_paper_adapter_starts_at_rate_zero_and_drops_only_while_it_learns(backbone: Backbone) -> None:
    first, second, *_ = chunks_of(backbone.encode(made_up().text), window=16, stride=24)
    reader = with_adapter(backbone, PAPER_LORA.model_copy(update={"dropout": 0.5}), seed=0)
    reader.read(first, 0)
    assert not moved(reader)  # a warm-up of two chunks begins at rate 0
    reader.read(second, 1)
    assert moved(reader)
    assert reader.read(second, 2) != reader.read(second, 3)  # it learns in between
    twin = with_adapter(backbone, PAPER_LORA.model_copy(update={"rate": 1e-30}), seed=0)
    assert twin.read(first, 5) == twin.read(first, 6)  # scoring draws nothing


def test_adapters_stand_beside_ffns_attention_or_both(backbone: Backbone) -> None:
    first, *_ = chunks_of(backbone.encode(made_up().text), window=16, stride=24)

    def beside(where: str) -> set[str]:
        options = OPTIONS.temp_lora.model_dump() | {"beside": where}
        reader = with_adapter(backbone, LoraSettings.model_validate(options), seed=0)
        reader.read(first, 0)
        return {name for name in reader.state() if name.startswith("parameter.") and ".lora_B." in name}

    ffn, attention = beside("ffn"), beside("attention")
    assert len(ffn) == 3 * backbone.n_layers
    assert all(".mlp." in name for name in ffn)
    assert len(attention) == 4 * backbone.n_layers
    assert all(".self_attn." in name for name in attention)
    assert beside("all") == ffn | attention


def moved(reader: Online) -> bool:
    """Whether an adapter has left the zeros it starts from."""
    return any(
        bool(tensor.any())
        for name, tensor in reader.state().items()
        if name.startswith("parameter.") and ".lora_B." in name
    )


def test_backbone_is_untouched(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone(seed=5)
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    run_pg19(backbone, [made_up(length=80)], OPTIONS)
    after = backbone.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(parameter.grad is None for parameter in backbone.model.parameters())


def test_parameters_are_those_of_the_formulas(report: dict[str, Any]) -> None:
    pairs = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 48), (32, 48), (48, 32)]
    counted = {arm: own["parameters"] for arm, own in report["overall"].items()}
    assert counted == {
        "none": 0,
        "temp_lora": 2 * sum(4 * (size + out) for size, out in pairs),
        "locas": 3 * 2 * 8 * 32,
    }


@pytest.mark.parametrize(("layers", "n"), [("all", 2), (1, 1), ("0.5-1", 1), ((0,), 1), ((0, 1), 2)])
def test_memory_stands_beside_the_layers_that_are_asked_for(layers: Any, n: int, backbone: Backbone) -> None:
    locas = LocasSettings(width=8, rate=3e-2, layers=layers)
    report = run_pg19(backbone, [made_up()], OPTIONS.model_copy(update={"arms": ("none", "locas"), "locas": locas}))
    assert report["overall"]["locas"]["parameters"] == 3 * n * 8 * 32
    assert report["overall"]["locas"]["perplexity"] < report["overall"]["none"]["perplexity"]


def test_short_book_wide_window_and_unknown_arms_are_refused(backbone: Backbone) -> None:
    with pytest.raises(ConfigurationError, match=r"book-3.*16 tokens.*window of 16"):
        run_pg19(backbone, [made_up(), made_up(3, 16)], OPTIONS)
    with pytest.raises(ConfigurationError, match="exceed the 512"):
        run_pg19(backbone, [made_up()], Pg19Options(window_tokens=500, stride_tokens=24))
    for arms in ((), ("locas", "locas"), ("other",)):
        with pytest.raises(ValueError, match="arms"):
            Pg19Options.model_validate({"arms": arms})


def test_loss_that_is_not_finite_ends_the_run(backbone: Backbone) -> None:
    wild = OPTIONS.model_copy(update={"arms": ("temp_lora",), "temp_lora": LoraSettings(rank=4, rate=1e20)})
    with pytest.raises(ConsolidationError, match=r"temp_lora.*chunk.*book-0.*smaller rate"):
        run_pg19(backbone, [made_up()], wild)


def test_books_are_read_in_order_and_named_once(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(name, encoding="utf-8")
    assert [book.name for book in read_books([tmp_path])] == ["a", "b"]
    with pytest.raises(ConfigurationError, match="'a'"):
        read_books([tmp_path, tmp_path / "a.txt"])
    with pytest.raises(ConfigurationError, match="no book"):
        read_books([])
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigurationError, match=r"c\.txt is no UTF-8"):
        read_books([tmp_path])


def test_table_and_picture_show_every_arm_of_every_book(report: dict[str, Any], tmp_path: Path) -> None:
    rows = pg19_rows(report)
    assert [row[:2] for row in rows] == [
        [name, arm] for name in ("book-0", "all") for arm in ("none", "temp_lora", "locas")
    ]
    assert all(len(row) == len(COLUMNS) for row in rows)
    pytest.importorskip("matplotlib")
    assert plot_pg19(report, tmp_path / "books.svg").read_text(encoding="utf-8").count("temp_lora") == 1
