"""Write `locas_agent/training/neutral.jsonl`, the neutral text that ships.

Anchors on even lines, text for measuring drift on odd lines.

    python scripts/make_neutral.py

The dialogues come from the generator's training split with a seed of their own, so they concern nobody an evaluation
tells of; the prose is from books in the public domain (the same extract the bundled backbone saw).
"""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path
from random import Random

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT)]

from locas_agent.conversation.messages import question, session_header
from locas_agent.evaluation.synthetic.people import Fact, small_reply, small_talk, tell
from locas_agent.evaluation.synthetic.relations import FIXED_FACTS, RELATIONS
from locas_agent.evaluation.synthetic.values import TRAIN, make_value
from tiny_backbone.documents import PROSE, _date


def line(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def talk(rng: Random, exchanges: int) -> list[dict[str, str]]:
    return [line(each.role, each.text) for _ in range(exchanges) for each in (small_talk(rng), small_reply(rng))]


def told_and_asked(rng: Random) -> list[dict[str, str]]:
    """Somebody else tells a fact and asks for it while it stands in the context."""
    messages = [session_header(_date(rng))] if rng.random() < 0.5 else []
    relation = rng.choice(RELATIONS)
    fact = Fact(relation, make_value(relation.kind, TRAIN, rng), 0)
    messages += [line(each.role, each.text) for each in tell(rng, fact)]
    for text in rng.sample(relation.study + relation.asked, 2):
        messages += [*question(text), line("assistant", f"It is {fact.value}.")]
    return messages


def conversation(rng: Random) -> list[dict[str, str]]:
    """Somebody else talks, and tells a thing or two."""
    messages = []
    for relation in rng.sample(RELATIONS, 3):
        messages += talk(rng, rng.randint(0, 3))
        messages += [
            line(each.role, each.text) for each in tell(rng, Fact(relation, make_value(relation.kind, TRAIN, rng), 0))
        ]
    return messages


def open_book(rng: Random) -> list[dict[str, str]]:
    messages = []
    for text, value in rng.sample(FIXED_FACTS, 3):
        messages += [*question(text), line("assistant", f"It is {value}.")]
    return messages


def main() -> None:
    rng = Random("neutral")
    prose = lzma.decompress(PROSE.read_bytes()).decode()
    rows: list[dict[str, object]] = []
    for _ in range(2 * 32):
        rows.append({"kind": "told", "messages": told_and_asked(rng)})
    for _ in range(2 * 8):
        rows.append({"kind": "general", "messages": open_book(rng)})
        rows.append({"kind": "talk", "messages": [session_header(_date(rng)), *talk(rng, 3)]})
        start = rng.randrange(len(prose) - 500)
        rows.append({"kind": "prose", "text": prose[start : start + 400]})
        rows.append({"kind": "window", "messages": [session_header(_date(rng)), *conversation(rng)]})
    rng.shuffle(rows)
    with (ROOT / "locas_agent" / "training" / "neutral.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
