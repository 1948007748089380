"""Put LoCoMo's questions to a LangChain chat model.

The memory of one user has learnt the conversation; two other users have not learnt it.

    python examples/locomo_qa.py                                   # made-up conversations that the bundled backbone can
    speak python examples/locomo_qa.py locomo10.json --sessions 3 --questions 20 --backbone PATH

Each conversation is a user. Its sessions are told and learnt one after another; then `ChatLocas` gets each question as
the only message, and the user id decides whose memory answers: the conversation's own, another one's, or nobody's. The
scorer is that of `locas-agent eval locomo`, which has more arms, intervals, both treatments of category 5, and can be
stopped and resumed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from langchain_locas import ChatLocas
from locas_agent import AgentMemory, LocasError
from locas_agent.evaluation.locomo.data import CATEGORIES, AskedQuestion, Dialogue, dialogues_of, read_dialogues
from locas_agent.evaluation.locomo.people import MadeUpOptions, made_up
from locas_agent.evaluation.locomo.run import LocomoOptions, selected
from locas_agent.evaluation.locomo.scoring import exact, official

TENANT = "locomo"
NOBODY = "nobody"


def learn(memory: AgentMemory, dialogue: Dialogue) -> None:
    """Tell a conversation and consolidate after each session."""
    user = memory.for_user(dialogue.name, tenant=TENANT)
    for session in dialogue.sessions:
        for turn in session.turns:
            user.add(
                turn.role, turn.text, name=turn.speaker, session=turn.session, at=turn.at, idempotency_key=turn.key
            )
        user.consolidate(flush=True)


def ask(chat: ChatLocas, user_id: str, questions: Sequence[AskedQuestion]) -> list[str]:
    """Ask as one user; nothing but the question is in the prompt."""
    return [chat.invoke(asked.text, user_id=user_id).text.strip() for asked in questions]


def score(asked: AskedQuestion, answer: str) -> float:
    """Return the official F1; a free answer in category 5 counts when it says that it does not know."""
    return (
        float(exact(asked.category, answer, None))
        if asked.gold is None
        else official(asked.category, answer, asked.gold)
    )


def show(scores: dict[str, list[tuple[int, float]]]) -> None:
    """Print the mean of each kind of question for each asker."""
    print(f"{'':<22}" + "".join(f"{name:>14}" for name in scores))
    for category, kind in CATEGORIES.items():
        columns = [[value for number, value in found if number == category] for found in scores.values()]
        if columns[0]:
            label = f"{category} {kind} (n={len(columns[0])})"
            print(f"{label:<22}" + "".join(f"{sum(values) / len(values):>14.3f}" for values in columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", type=Path, help="LoCoMo file; made-up conversations unless given")
    parser.add_argument("--backbone", default="tiny", help="'tiny' (bundled), a folder, or a hub id")
    parser.add_argument("--sessions", type=int, help="only the first sessions of each conversation")
    parser.add_argument("--questions", type=int, help="at most so many questions to each conversation")
    arguments = parser.parse_args()
    try:
        known = (
            read_dialogues(arguments.path)[0]
            if arguments.path
            else dialogues_of(made_up(MadeUpOptions(people=2, sessions=2)))
        )
        dialogues = selected(known, LocomoOptions(first=2, sessions=arguments.sessions, questions=arguments.questions))
        with AgentMemory.load(arguments.backbone, store="sqlite://") as memory:
            chat = ChatLocas(memory=memory, tenant=TENANT)
            for dialogue in dialogues:
                learn(memory, dialogue)
            scores: dict[str, list[tuple[int, float]]] = {}
            for at, dialogue in enumerate(dialogues):
                other = dialogues[at - 1].name if len(dialogues) > 1 else NOBODY
                for name, user_id in (("its memory", dialogue.name), ("another's", other), ("nobody's", NOBODY)):
                    answers = ask(chat, user_id, dialogue.questions)
                    found = [
                        (asked.category, score(asked, answer))
                        for asked, answer in zip(dialogue.questions, answers, strict=True)
                    ]
                    scores.setdefault(name, []).extend(found)
    except LocasError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    show(scores)
    if arguments.path and arguments.backbone == "tiny":
        print("The bundled backbone scores near the floor on real talk.")


if __name__ == "__main__":
    main()
