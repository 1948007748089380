"""What stands before a question where a memory is in use: instructions, greetings, other people's talk, own turns.

A memory that is taught questions alone answers them alone: behind one greeting a memory of SmolLM2 knew a tenth of what
it knew without. Origin: `docs/decisions.md`, beginnings.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from random import Random

from locas_agent.backbone import Backbone
from locas_agent.conversation.messages import Message, exchange
from locas_agent.study.chunking import Chunk

INSTRUCTIONS = (
    "You are a helpful assistant.",
    "You are a personal assistant. Answer briefly.",
    "You are a friendly companion who remembers what people tell.",
    "You help with questions of every kind. Be precise and polite.",
    "You are the assistant of a small company. Keep answers short.",
    "Answer the user's questions. If tools are given, use them only when they are needed.",
    "Today is 4 May 2026. You are an AI assistant.",
    "You are an expert assistant. Think before you answer, and say only what helps.",
)
"""What programs tell their assistants, in our words."""
GREETINGS = (
    ("Hi there.", "Hello! What can I do for you?"),
    ("Good evening.", "Good evening! How was your day?"),
    ("Hello, are you there?", "Yes, I am here. How may I help?"),
    ("Hey!", "Hey! Nice to hear from you."),
    ("I have a short question.", "Of course, go ahead."),
    ("How are you?", "I am well, thank you. And you?"),
    ("What is seven times eight?", "Seven times eight is 56."),
    ("Thank you for the help yesterday.", "You are welcome! I am glad that it helped."),
)
"""How somebody begins to talk to an assistant, and what it says."""
TOOLS = (
    "find_route(start, end, time): the fastest way by train, bus or car, with its price",
    "weather(place, day): what the sky will do, in one line",
    "calendar_add(title, day, time): puts an entry into the calendar of the user",
    "calendar_list(day): the entries of a day",
    "send_message(to, text): writes to somebody in the name of the user; ask before it is sent",
    "search_web(query): the first five pages, each with two lines",
    "read_page(address): the text of one page, cut after two thousand words",
    "order(article, count): buys something in the shop; ask before it is bought",
    "play(title): plays music or a film in the living room",
    "lights(room, level): makes a room lighter or darker, from 0 to 10",
    "translate(text, language): the text in another language",
    "calculate(expression): the value of an expression, exactly",
    "note_save(title, text): keeps a note",
    "note_find(words): the notes that hold these words",
    "timer(minutes, name): rings after so many minutes",
    "recipe(ingredients): three dishes that can be made of them",
)
"""What such programs can do, as they write it into their instructions."""
OTHERS, OWN = 8, 10
"""Runs of other people's talk, each with its date and without, and runs of the user's own turns."""
WITH_DATE = 0.7
"""Share of the user's own runs that are headed by the date of their session, as a window is."""
LONG_EVERY, LONG_TIMES = 2, 4
"""Beginnings from one that is long to the next, and how many times as long it may be. Origin: `docs/decisions.md`, long
beginnings."""
LONG_KINDS = ("instructions", "instructions and tools", "no instructions", "instructions and tools")
"""How one long beginning after the other starts; talk follows."""
RUNS, OWN_TALK = 8, 0.4
"""Runs of talk that are tried in a long beginning, one behind the other, and which share is the user's own turns."""


def beginnings(
    backbone: Backbone,
    chunks: Sequence[Chunk],
    windows: Sequence[Sequence[Message]],
    *,
    most_tokens: int,
    count: int,
    rng: Random,
) -> list[list[Message]]:
    """Return what is put before questions: short ones of each kind in turn, and every second as long as in long use.

    Args:
        backbone: whose tokens are counted.
        chunks: the user's own turns.
        windows: other people's talk, each run headed by a date.
        most_tokens: longest of the short ones.
        count: how many, some of them more than once; none where nothing is short enough.
        rng: draws the runs and their order.
    """
    short = _short(backbone, chunks, windows, most_tokens, rng)
    if not short:
        return []
    found = [short[number % len(short)] for number in range(count)]
    longest = min(LONG_TIMES * most_tokens, backbone.context_tokens // 2)
    for number, place in enumerate(range(0, count, LONG_EVERY)):
        kind = LONG_KINDS[number % len(LONG_KINDS)]
        most = rng.randint(longest // 2, longest)
        found[place] = _long(backbone, chunks, windows, kind, most, rng) or found[place]
    return found


def _short(
    backbone: Backbone, chunks: Sequence[Chunk], windows: Sequence[Sequence[Message]], most_tokens: int, rng: Random
) -> list[list[Message]]:
    """Return different ones of each kind in turn."""
    instructions = [[{"role": "system", "content": text}] for text in INSTRUCTIONS]
    greetings = [exchange(greeted, answered) for greeted, answered in GREETINGS]
    others = list[list[Message]]()
    for window in rng.sample(list(windows), min(OTHERS, len(windows))):
        others += [list(window), list(window[1 : 1 + 2 * rng.choice((1, 2))])]
    own = list[list[Message]]()
    for _ in range(OWN if chunks else 0):
        header, *turns = rng.choice(chunks).messages
        run = turns[rng.randrange(len(turns)) :] if turns else []
        own.append([header, *run] if rng.random() < WITH_DATE else run)
    kinds = [
        [run for run in (fitting(backbone, run, most_tokens) for run in kind) if run]
        for kind in (instructions, greetings, others, own)
    ]
    for kind in kinds:
        rng.shuffle(kind)
    return [run for one_of_each in zip_longest(*kinds) for run in one_of_each if run is not None]


def _long(
    backbone: Backbone,
    chunks: Sequence[Chunk],
    windows: Sequence[Sequence[Message]],
    kind: str,
    most_tokens: int,
    rng: Random,
) -> list[Message]:
    """Return one with runs of talk, other people's and the user's own, one after the other until it is full."""
    text = rng.choice(INSTRUCTIONS)
    if kind == "instructions and tools":
        text += f" You can call these tools. {'; '.join(rng.sample(TOOLS, rng.randint(4, 12)))}."
    begun: list[Message] = [] if kind == "no instructions" else [{"role": "system", "content": text}]
    talks = [chunk.messages for chunk in chunks if len(chunk.messages) > 1]
    for _ in range(RUNS if talks or windows else 0):
        is_own = bool(talks) and (rng.random() < OWN_TALK or not windows)
        _, *turns = rng.choice(talks if is_own else windows)
        more = fitting(backbone, [*begun, *turns[rng.randrange(len(turns)) if is_own else 0 :]], most_tokens)
        begun = max(begun, more, key=len)
    return fitting(backbone, begun, most_tokens)


def fitting(backbone: Backbone, run: Sequence[Message], most_tokens: int) -> list[Message]:
    """Return as much of a run, from its start, as the limit takes and ends where somebody else may speak.

    That is behind an answer or an instruction; nothing where even that is too long.
    """
    for end in range(len(run), 0, -1):
        is_over = run[end - 1]["role"] != "user"
        if is_over and len(backbone.encode_chat(run[:end], generation_prompt=False)) <= most_tokens:
            return list(run[:end])
    return []
