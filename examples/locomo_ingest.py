"""Feed a LoCoMo conversation through AgentMemory turn by turn, with small windows.

Kill the process half-way, and go on.

    python examples/locomo_ingest.py locomo10.json                       # bundled backbone, CPU, minutes
    python examples/locomo_ingest.py locomo10.json --backbone PATH --objective ntp --json -

The ingestion runs in a process of its own. It is killed (SIGKILL) while it works and started again with the same turns
and the same keys. Then the journal is read: every turn must be there once, in order, and every turn must be learnt or
part of an overflow that was refused with a reason. Ends with code 1 if not.

Latency is that of `stream` with 16 new tokens on copies of the database, so that the questions leave no trace: its
first token, 15 further ones, and the end, each as a median. Early and late copies are asked in turn after all has been
told, so that a machine that slows down slows both. What waits to be learnt grows and shrinks with each consolidation,
and the prompt with it; so the latency "at turn 50" is the median over turns 40, 45, 50, 55 and 60, and so at turn 550.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from locas_agent import AgentMemory, LocasConfig, LocasError, UserMemory
from locas_agent.evaluation.locomo.data import Spoken, read_dialogues
from locas_storage import MemoryStore, UserKey, open_store

QUESTION = "What did we talk about?"
NEW_TOKENS = 16
MARKS = (50, 550)
AROUND = (-10, -5, 0, 5, 10)
REPEATS = 3
RATIO_LIMIT = 1.2


@dataclass(frozen=True)
class Latency:
    """One streamed reply, in seconds."""

    turn: int
    first: float
    gaps: list[float]
    end: float
    prompt_tokens: int


def read(path: Path, wanted: str | None) -> tuple[str, list[Spoken]]:
    """Return one conversation: the one asked for, else the first that reaches beyond turn 560, else the longest."""
    try:
        dialogues, _ = read_dialogues(path)
    except LocasError as error:
        raise SystemExit(str(error)) from error
    found = {dialogue.name: [turn for session in dialogue.sessions for turn in session.turns] for dialogue in dialogues}
    if wanted is not None and wanted not in found:
        raise SystemExit(f"no conversation {wanted!r} in {path}: there are {', '.join(found)}")
    long_enough = [name for name, turns in found.items() if len(turns) >= MARKS[1] + AROUND[-1]]
    name = wanted or (long_enough[0] if long_enough else max(found, key=lambda each: len(found[each])))
    return name, found[name]


def settings(window_tokens: int, objective: str) -> LocasConfig:
    """Return a configuration for a long conversation on two cores.

    About 40 turns to a consolidation, short study and training.
    """
    return LocasConfig.model_validate(
        {
            "window": {"window_tokens": window_tokens, "max_new_tokens": NEW_TOKENS},
            # A session's end is no reason before there is enough to learn.
            "policy": {"overflow_turns": 40, "overflow_tokens": 2048, "min_overflow_tokens": 1024},
            "study": {"samples_per_turn": 3, "max_rounds": 2, "negatives_per_piece": 4, "max_question_tokens": 40},
            "training": {"objective": objective, "max_steps": 32},
        }
    )


# The process that ingests: prints one JSON line per event -------------------------------------------------------------


def tell(event: str, **facts: Any) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


def ingest(turns: list[Spoken], name: str, backbone: str, store: Path, config: LocasConfig) -> None:
    """Add every turn; what an earlier process has journalled already is found again by its key."""
    with AgentMemory.load(backbone, f"sqlite:///{store}", config, device="cpu") as memory:
        user = memory.for_user(name)
        journalled = len(user.turns())
        tell("ready", journalled=journalled)
        moments = {at for mark in marks(len(turns)) for at in mark}
        for number, turn in enumerate(turns, 1):
            started = time.perf_counter()
            added = user.add(
                "user", turn.text, name=turn.speaker, at=turn.at, session=turn.session, idempotency_key=turn.key
            )
            seconds = time.perf_counter() - started
            if number <= journalled:
                continue
            tell("turn", number=added.seq, seconds=seconds)
            if user.consolidation_due().is_due:
                learn(user, flush=False)
            if number in moments:
                back_up(store, copy_at(store, number))
        learn(user, flush=True)
        for latency in measure(
            memory, name, {at: copy_at(store, at) for pair in zip(*marks(len(turns)), strict=False) for at in pair}
        ):
            tell("latency", **asdict(latency))


def learn(user: UserMemory, *, flush: bool) -> None:
    started = time.perf_counter()
    result = user.consolidate(flush=flush)
    after = result.metrics.after
    tell(
        "consolidation",
        status=result.status,
        reason=result.reason,
        detail=result.detail,
        turns=result.turns,
        drift_nats=after.drift_nats if after is not None else 0.0 if result.admitted else None,
        seconds=time.perf_counter() - started,
    )


def copy_at(store: Path, turn: int) -> Path:
    return store.with_name(f"{store.name}.at{turn}")


def back_up(store: Path, copy: Path) -> None:
    with closing(sqlite3.connect(store)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def measure(memory: AgentMemory, name: str, copies: dict[int, Path]) -> Iterator[Latency]:
    """Stream a few replies on each copy of the database, early and late ones in turn.

    A machine that slows down slows both. The first warms up.
    """
    # The policy is asked as ever and never says yes: a consolidation would be timed as a reply.
    never = memory.config.policy.model_copy(
        update=dict.fromkeys(("overflow_turns", "overflow_tokens", "min_overflow_tokens"), sys.maxsize)
    )
    config = memory.config.model_copy(update={"policy": never})
    with ExitStack() as stack:
        users = {}
        for turn, copy in copies.items():
            if copy.exists():  # the process was not killed at this very moment
                stack.callback(remove, copy)
                other = AgentMemory(backbone=memory.backbone, store=open_store(f"sqlite:///{copy}"), config=config)
                users[turn] = stack.enter_context(other).for_user(name)
        for repeat in range(REPEATS + 1):
            for turn, user in users.items():
                latency = reply_latency(user, turn)
                if repeat and latency is not None:
                    yield latency


def reply_latency(user: UserMemory, turn: int) -> Latency | None:
    times = [time.perf_counter()]
    stream = user.stream(QUESTION, max_new_tokens=NEW_TOKENS)
    times += [time.perf_counter() for _ in stream]
    end = time.perf_counter()
    if stream.reply is None:
        return None
    first = times[1] if len(times) > 1 else end
    gaps = [later - earlier for earlier, later in pairwise(times[1:])]
    return Latency(
        turn, first - times[0], gaps, end - times[-1] if len(times) > 1 else 0.0, stream.reply.prompt_tokens.total
    )


def remove(copy: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        copy.with_name(copy.name + ending).unlink(missing_ok=True)


def marks(count: int) -> list[list[int]]:
    """Return the turns around each mark; in a short conversation the marks move into it."""
    early, late = min(MARKS[0], max(1, count // 3)), min(MARKS[1], max(1, count - AROUND[-1]))
    return [[at for offset in AROUND if 0 < (at := mark + offset) <= count] for mark in (early, late)]


# The process that watches ---------------------------------------------------------------------------------------------


def watch(command: list[str], kill_at: int | None, *, loud: bool) -> list[dict[str, Any]]:
    """Run the ingestion and collect its events; kill it without warning once it has told of a turn."""
    events = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            event = json.loads(line)
            events.append(event)
            if loud and event["event"] == "consolidation":
                print(f"  {event['turns']} turns: {event['status']} {event['detail']}".rstrip(), file=sys.stderr)
            if kill_at is not None and event["event"] == "turn" and event["number"] == kill_at:
                os.kill(child.pid, signal.SIGKILL)
    if child.returncode != (0 if kill_at is None else -signal.SIGKILL):
        raise SystemExit(f"the ingestion ended with code {child.returncode}; its message stands above")
    return events


def journal_is_exact(store: MemoryStore, key: UserKey, turns: list[Spoken]) -> bool:
    """Tell whether the journal holds these turns once each, in order and unchanged, and nothing else."""
    kept = [
        (turn.seq, turn.idempotency_key, turn.session, turn.name, turn.content, turn.at) for turn in store.turns(key)
    ]
    return kept == [
        (seq, each.key, each.session, each.speaker, each.text, each.at) for seq, each in enumerate(turns, 1)
    ]


def unaccounted(store: MemoryStore, key: UserKey) -> int:
    """Return how many turns are neither learnt nor part of an overflow that was refused with a reason."""
    state = store.state(key)
    if state is None:
        return 0
    refused = [
        int(entry.facts["to_seq"]) for entry in store.audit(key) if entry.action == "refuse" and entry.facts["reason"]
    ]
    return max(0, state.turns - max(state.consolidated_seq, *refused, 0))


def latency_report(events: list[dict[str, Any]], count: int) -> dict[str, Any]:
    """Return the latency at both marks and their ratio."""
    measured = [event for event in events if event["event"] == "latency"]
    gaps = [gap for event in measured for gap in event["gaps"]]
    report: dict[str, Any] = {}
    for name, moments in zip(("early", "late"), marks(count), strict=True):
        here = [event for event in measured if event["turn"] in moments]
        if not here:
            raise SystemExit("no latency was measured: the process was killed at each moment; choose another --kill-at")
        own = [gap for event in here for gap in event["gaps"]] or gaps or [0.0]
        first, end = median(event["first"] for event in here), median(event["end"] for event in here)
        report[name] = {
            "turn": moments[len(moments) // 2],
            "seconds": first + (NEW_TOKENS - 1) * median(own) + end,
            "first_token_seconds": first,
            "prompt_tokens": median(event["prompt_tokens"] for event in here),
            "replies": len(here),
        }
    report["ratio"] = report["late"]["seconds"] / report["early"]["seconds"]
    return report


def report_of(events: list[dict[str, Any]], turns: list[Spoken]) -> dict[str, Any]:
    """Add up the events of both processes."""
    added = [event["seconds"] for event in events if event["event"] == "turn"]
    consolidations = [event for event in events if event["event"] == "consolidation" and event["status"] != "nothing"]
    return {
        "turns": len(turns),
        "sessions": len({turn.session for turn in turns}),
        "turns_per_second": len(added) / sum(added),
        "admitted": sum(each["status"] == "admitted" for each in consolidations),
        "refused": sum(each["status"] == "refused" for each in consolidations),
        "reasons": dict(Counter(each["reason"] for each in consolidations)),
        "drift_nats": [each["drift_nats"] for each in consolidations if each["status"] == "admitted"],
        "consolidation_seconds": sum(each["seconds"] for each in consolidations),
        "latency": latency_report(events, len(turns)),
    }


def show(report: dict[str, Any]) -> None:
    latency, kill = report["latency"], report["kill"]
    drift = ", ".join(f"{value:.4f}" for value in report["drift_nats"]) or "none admitted"
    reasons = ", ".join(f"{reason}: {count}" for reason, count in report["reasons"].items())
    print(
        f"{report['conversation']} on {report['backbone']}, {report['objective']}: {report['turns']} turns in "
        f"{report['sessions']} sessions"
    )
    print(f"journal             {report['turns_per_second']:.0f} turns per second")
    print(
        f"consolidations      {report['admitted']} admitted, {report['refused']} refused ({reasons}), "
        f"{report['consolidation_seconds']:.0f} s"
    )
    print(f"drift of admitted   {drift} nats per token")
    for name in ("early", "late"):
        at = latency[name]
        print(
            f"reply at turn {at['turn']:<5} {1000 * at['seconds']:.0f} ms for {NEW_TOKENS} tokens, prompt of "
            f"{at['prompt_tokens']:.0f} tokens"
        )
    print(
        f"ratio               {latency['ratio']:.2f} ({'under' if latency['ratio'] < RATIO_LIMIT else 'NOT under'} "
        f"{RATIO_LIMIT})"
    )
    print(
        f"killed at turn {kill['at']:<4} {kill['acknowledged']} turns acknowledged, {kill['journalled']} in the "
        "journal after the kill"
    )
    print(f"journal at the end  {'every turn once, in order' if report['journal_exact'] else 'WRONG'}")
    print(f"overflow            {report['unaccounted_turns']} turns neither learnt nor refused with a reason")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="LoCoMo file: a JSON list of conversations")
    parser.add_argument("--backbone", default="tiny", help="'tiny' (bundled), a folder, or a hub id")
    parser.add_argument("--conversation", help="sample_id; the first one long enough unless given")
    parser.add_argument(
        "--window-tokens", type=int, default=128, help="newest turns kept in the prompt verbatim, in tokens"
    )
    parser.add_argument(
        "--objective", choices=("self_study", "mix", "ntp"), default="self_study", help="what is learnt from"
    )
    parser.add_argument("--kill-at", type=int, help="turn at which the ingestion is killed; half of them unless given")
    parser.add_argument("--max-turns", type=int, help="stop after so many turns, for a first look")
    parser.add_argument("--store", type=Path, help="SQLite file, new; a temporary one unless given")
    parser.add_argument("--json", metavar="PATH", help="write the figures there; - is standard output")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    name, turns = read(arguments.path, arguments.conversation)
    turns = turns[: arguments.max_turns]
    if arguments.worker:
        try:
            ingest(
                turns, name, arguments.backbone, arguments.store, settings(arguments.window_tokens, arguments.objective)
            )
        except LocasError as error:
            sys.exit(f"{type(error).__name__}: {error}")
        return
    kill_at = len(turns) // 2 if arguments.kill_at is None else arguments.kill_at
    if not 0 < kill_at <= len(turns):
        parser.error(f"--kill-at: the conversation has {len(turns)} turns, got {kill_at}")
    with tempfile.TemporaryDirectory() as folder:
        store = (arguments.store or Path(folder) / "locomo.db").absolute()
        if store.exists():
            parser.error(f"--store: {store} is there already; name a new file")
        report = run(arguments, name, turns, store, kill_at)
    if arguments.json != "-":
        show(report)
    if arguments.json is not None:
        text = json.dumps(report, indent=2) + "\n"
        sys.stdout.write(text) if arguments.json == "-" else Path(arguments.json).write_text(text, encoding="utf-8")
    sys.exit(0 if report["journal_exact"] and report["kill"]["lost"] == 0 and report["unaccounted_turns"] == 0 else 1)


def run(arguments: argparse.Namespace, name: str, turns: list[Spoken], store: Path, kill_at: int) -> dict[str, Any]:
    """Ingest, kill, look, ingest again, look again."""
    started = time.perf_counter()
    command = [
        sys.executable,
        __file__,
        str(arguments.path),
        "--worker",
        "--conversation",
        name,
        "--store",
        str(store),
        "--backbone",
        arguments.backbone,
        "--window-tokens",
        str(arguments.window_tokens),
        "--objective",
        arguments.objective,
        "--max-turns",
        str(len(turns)),
    ]
    key = UserKey("default", name)
    loud = sys.stderr.isatty()
    first = watch(command, kill_at, loud=loud)
    with closing(open_store(f"sqlite:///{store}")) as opened:
        survived = opened.turns(key)
    acknowledged = sum(event["event"] == "turn" for event in first)
    second = watch(command, None, loud=loud)
    with closing(open_store(f"sqlite:///{store}")) as opened:
        exact, left = journal_is_exact(opened, key, turns), unaccounted(opened, key)
    kill = {
        "at": kill_at,
        "acknowledged": acknowledged,
        "journalled": len(survived),
        "lost": max(0, acknowledged - len(survived)),
    }
    about = {
        "kind": "locomo_ingest",
        "conversation": name,
        "backbone": arguments.backbone,
        "objective": arguments.objective,
    }
    figures = report_of([*first, *second], turns)
    return (
        about
        | figures
        | {"kill": kill, "journal_exact": exact, "unaccounted_turns": left, "seconds": time.perf_counter() - started}
    )


if __name__ == "__main__":
    main()
