"""What memories of many users cost on paper, beside keeping their text in the prompt: the tables of `docs/capacity.md`.

    python -m scripts.capacity                          # the tables
    python -m scripts.capacity --json -                 # the figures
    python -m scripts.capacity --page docs/capacity.md  # the tables into the page

Nothing is measured here. Each assumption is an option with its origin; one part is simulated from a seed, how often a
server finds a memory in its cache.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import OrderedDict
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "storage"), str(ROOT / "integrations"), str(ROOT)]

from locas_agent.cli.output import deliver

BEGINS, ENDS = "<!-- tables: python -m scripts.capacity --page docs/capacity.md -->\n", "<!-- end of tables -->\n"
GB = 1e9


@dataclass(frozen=True)
class Shape:
    """A backbone's sizes, from its published configuration."""

    name: str
    layers: int
    hidden: int
    ffn: int
    query_heads: int
    key_heads: int
    words: int = 151_936
    head_size: int = 128

    @property
    def body(self) -> int:
        """Numbers in products, without the head."""
        attention = 2 * self.hidden * self.head_size * (self.query_heads + self.key_heads)
        return self.layers * (attention + 3 * self.hidden * self.ffn)

    @property
    def products(self) -> int:
        """Numbers in products, the head included."""
        return self.body + self.hidden * self.words

    @property
    def past_bytes(self) -> int:
        """Keys and values of one token in bf16."""
        return 2 * self.layers * self.key_heads * self.head_size * 2

    def memory_numbers(self, width: int) -> int:
        """Numbers of a memory beside the topmost third of the layers."""
        return 3 * width * self.hidden * (self.layers // 3)

    def prefill_flops(self, tokens: float) -> float:
        """FLOPs of reading a prompt: products, and attention of each token to those before it."""
        attention = 2 * self.layers * self.query_heads * self.head_size * tokens**2
        return 2 * self.body * tokens + attention + 2 * self.hidden * self.words


SHAPES = (
    Shape("Qwen3-0.6B", 28, 1024, 3072, 16, 8),
    Shape("Qwen3-4B", 36, 2560, 9728, 32, 8),
    Shape("Qwen3-8B", 36, 4096, 12288, 32, 8),
)


@dataclass(frozen=True)
class Assumptions:
    """What is taken for granted; each with its origin in `ORIGINS`."""

    users: int = 1_000_000
    turns_per_day: float = 4.0
    tokens_per_turn: int = 40
    days: int = 365
    width: int = 88
    bytes_per_number: float = 2.0
    kept_payloads: int = 3
    bytes_per_turn: float = 1_100.0
    items_per_turn: float = 5.0
    bytes_per_item: float = 1_500.0
    turns_per_consolidation: float = 40.0
    learning_in_forwards: float = 46.0
    window_tokens: int = 1_024
    longest_prompt: int = 32_768
    gpu_flops: float = 989e12
    share_reading: float = 0.4
    share_learning: float = 0.1
    dollars_per_gpu_hour: float = 2.5
    dollars_per_gb_month: float = 0.1
    zipf: float = 1.0
    requests: int = 300_000
    seed: int = 2026


ORIGINS = {
    "users": "the question asked",
    "turns_per_day": "a guess, user and assistant together, over all users, idle ones counted",
    "tokens_per_turn": "a guess: 25 words and their frame",
    "days": "a guess: how long a journal has grown",
    "width": "the most a memory grows to, docs/decisions.md, placement",
    "bytes_per_number": "memory.stored_as bfloat16; float32, the default, is 4, int8 about 1",
    "kept_payloads": "the default of store.keep_payloads",
    "bytes_per_turn": "measured by scripts.load_sizes: journal 591 and words 483 of 25 words, with indexes; rounded up",
    "items_per_turn": "a guess near docs/results.md: hundreds of items for three sessions of a person",
    "bytes_per_item": "a guess: texts, and 16 words with probabilities for each token of an answer",
    "turns_per_consolidation": "policy.overflow_turns; sessions that end earlier write more often",
    "learning_in_forwards": "docs/results.md: study and training of a turn beside one forward over it, on a processor",
    "window_tokens": "a guess at a setting; the default of 256 is made for the miniature",
    "longest_prompt": "what of the text is put into a prompt at most",
    "gpu_flops": "public: dense bf16 of one H100",
    "share_reading": "a guess: share of these FLOPs reached while a prompt is read",
    "share_learning": "a guess: the same while questions are written and small batches trained; no GPU has run it",
    "dollars_per_gpu_hour": "a public price of renting, change it",
    "dollars_per_gb_month": "a public price of a replicated disk, change it",
    "zipf": "a guess: exponent of how requests fall on users",
    "requests": "of the simulation, after as many that are not counted",
    "seed": "of the simulation",
}


def stored(shape: Shape, given: Assumptions) -> dict[str, float]:
    """Return the bytes of one user after so many days."""
    turns = given.turns_per_day * given.days
    return {
        "journal": turns * given.bytes_per_turn,
        "items": turns / 2 * given.items_per_turn * given.bytes_per_item,  # of the user's own turns
        "revisions": given.kept_payloads * payload(shape, given),
    }


def payload(shape: Shape, given: Assumptions) -> float:
    """Return the bytes of one saved memory."""
    return shape.memory_numbers(given.width) * given.bytes_per_number


def daily(shape: Shape, given: Assumptions) -> dict[str, float]:
    """Return FLOPs of one user and day, and dollars: with a memory, with the text in the prompt, its past kept or not.

    Answers are as long either way and left out of both.
    """
    replies = given.turns_per_day / 2
    tokens = given.turns_per_day * given.tokens_per_turn
    text = min(given.longest_prompt, tokens * given.days)
    learning = given.learning_in_forwards * 2 * shape.products * tokens
    window = replies * shape.prefill_flops(given.window_tokens)
    prompt = replies * shape.prefill_flops(text)
    disk = given.dollars_per_gb_month / 30 / GB
    kept = stored(shape, given)
    written = given.turns_per_day / given.turns_per_consolidation * payload(shape, given)
    hour = given.dollars_per_gpu_hour / 3600 / given.gpu_flops
    memory_dollars = (learning / given.share_learning + window / given.share_reading) * hour + sum(kept.values()) * disk
    return {
        "learning_flops": learning,
        "memory_reading_flops": window,
        "text_reading_flops": prompt,
        "payload_bytes_written": written,
        "gpu_hours_learning_all": given.users * learning / given.share_learning / given.gpu_flops / 3600,
        "memory_dollars": memory_dollars,
        "text_dollars": prompt / given.share_reading * hour + kept["journal"] * disk,
        "text_kept_past_dollars": text * shape.past_bytes * disk + kept["journal"] * disk,
        "past_bytes": text * shape.past_bytes,
    }


def break_even(shape: Shape, given: Assumptions) -> float:
    """Return from how many tokens of text in each prompt on a memory costs less; infinite if never."""

    def text_dollars(tokens: float) -> float:
        hour = given.dollars_per_gpu_hour / 3600 / given.gpu_flops / given.share_reading
        return given.turns_per_day / 2 * shape.prefill_flops(tokens) * hour

    aim = daily(shape, given)["memory_dollars"] - stored(shape, given)["journal"] * given.dollars_per_gb_month / 30 / GB
    low, high = 0.0, 1e7
    if text_dollars(high) < aim:
        return float("inf")
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if text_dollars(middle) < aim else (low, middle)
    return high


def hit_rate(users: int, room: int, given: Assumptions) -> float:
    """Return how often a cache of so many memories, the least recently used dropped, has the one that is asked for."""
    rng = random.Random(given.seed)
    total, weights = 0.0, []
    for rank in range(1, users + 1):
        total += rank**-given.zipf
        weights.append(total)
    cache: OrderedDict[int, None] = OrderedDict((user, None) for user in reversed(range(min(room, users))))
    hits = 0
    for number, user in enumerate(rng.choices(range(users), cum_weights=weights, k=2 * given.requests)):
        if user in cache:
            cache.move_to_end(user)
            hits += number >= given.requests
        elif room:
            cache[user] = None
            if len(cache) > room:
                cache.popitem(last=False)
    return hits / given.requests


def caches(given: Assumptions, gib: tuple[int, ...] = (1, 16, 64, 256)) -> dict[str, dict[str, float]]:
    """Return the hit rate of caches of so many GiB, each memory in them as it is stored and as a forward takes it."""
    found: dict[str, dict[str, float]] = {}
    for shape in SHAPES:
        each = payload(shape, given) + 2 * shape.memory_numbers(given.width)
        found[shape.name] = {f"{size}": hit_rate(given.users, int(size * 2**30 / each), given) for size in gib}
    return found


def paper_tables(given: Assumptions) -> str:
    """Return the tables that are computed."""
    lines = ["| assumption | value | origin |", "|---|---|---|"]
    lines += [f"| `{name}` | {value:,} | {ORIGINS[name]} |" for name, value in asdict(given).items()]
    lines += [
        "",
        "| of one user | " + " | ".join(shape.name for shape in SHAPES) + " |",
        "|---|" + "---|" * len(SHAPES),
    ]
    kept, cost = [stored(shape, given) for shape in SHAPES], [daily(shape, given) for shape in SHAPES]
    rows: list[tuple[str, list[str]]] = [
        ("numbers in products of the backbone", [f"{shape.products / 1e6:,.0f} M" for shape in SHAPES]),
        ("numbers of the memory", [f"{shape.memory_numbers(given.width) / 1e6:.2f} M" for shape in SHAPES]),
        *((f"bytes kept: {part}", [f"{one[part] / 1e6:,.1f} MB" for one in kept]) for part in kept[0]),
        ("bytes kept, all users", [f"{sum(one.values()) * given.users / 1e12:,.1f} TB" for one in kept]),
        (
            "payloads written a day, all users",
            [f"{one['payload_bytes_written'] * given.users / 1e12:,.2f} TB" for one in cost],
        ),
        ("learning a day", [f"{one['learning_flops'] / 1e12:,.1f} TFLOP" for one in cost]),
        ("GPU hours of learning a day, all users", [f"{one['gpu_hours_learning_all']:,.0f}" for one in cost]),
        ("reading a day: memory and window", [f"{one['memory_reading_flops'] / 1e12:,.1f} TFLOP" for one in cost]),
        ("reading a day: text in the prompt", [f"{one['text_reading_flops'] / 1e12:,.1f} TFLOP" for one in cost]),
        ("keys and values of that text", [f"{one['past_bytes'] / 1e9:,.2f} GB" for one in cost]),
        ("dollars a day: memory", [f"{one['memory_dollars']:.5f}" for one in cost]),
        ("dollars a day: text, read each time", [f"{one['text_dollars']:.5f}" for one in cost]),
        ("dollars a day: text, its keys and values on disk", [f"{one['text_kept_past_dollars']:.5f}" for one in cost]),
        (
            "a memory costs less from so many tokens of text on",
            [f"{break_even(shape, given):,.0f}" for shape in SHAPES],
        ),
    ]
    return "\n".join(lines + [f"| {name} | {' | '.join(values)} |" for name, values in rows])


def cache_table(found: dict[str, dict[str, float]]) -> str:
    """Return the table that is simulated."""
    sizes = list(next(iter(found.values())))
    lines = ["| memory cache, GiB over all servers | " + " | ".join(sizes) + " |", "|---|" + "---|" * len(sizes)]
    return "\n".join(
        lines
        + [f"| {name} | " + " | ".join(f"{rate:.3f}" for rate in one.values()) + " |" for name, one in found.items()]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="What memories of many users cost on paper.")
    for one in fields(Assumptions):
        kind = type(one.default)
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=kind, default=one.default, help=ORIGINS[one.name])
    parser.add_argument("--json", metavar="PATH", help="write the figures there; - is standard output")
    parser.add_argument("--page", type=Path, help="put the tables between the marks of this page")
    chosen = vars(parser.parse_args())
    output, page = chosen.pop("json"), chosen.pop("page")
    given = Assumptions(**chosen)
    rates = caches(given)
    tables = f"{paper_tables(given)}\n\n{cache_table(rates)}\n"
    if page is not None:
        text = page.read_text(encoding="utf-8")
        page.write_text(f"{text.split(BEGINS)[0]}{BEGINS}\n{tables}\n{ENDS}{text.split(ENDS)[1]}", encoding="utf-8")
    elif output is None:
        sys.stdout.write(tables)
    figures: dict[str, Any] = {"assumptions": asdict(given), "hit_rate": rates}
    for shape in SHAPES:
        figures[shape.name] = {"stored_bytes": stored(shape, given), "daily": daily(shape, given)}
    deliver(output, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
