"""Owns `Talk`: threads that are one user after another of a server, hold conversations, and hear what is said.

A request that fails is sent again until it is answered, as clients do. Conversations are of three kinds: one without a
name begins with the same words each time, one with a name is held by the client as well, and one of responses is held
by the server. A stream is left in the middle now and then.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from tests.reliability.served.client import PATIENCE_SECONDS, REFUSED, Heard, post
from tests.reliability.served.people import ASK, TELL, WHO, Exchange, Left, Person

KINDS = ("unnamed", "named", "responses")
EVERY_LEFT = 12
"""Of so many streams of conversations with a name one is left in the middle."""
MEMORY_TOKENS = 16
"""Longest answer of a made-up memory, which says nothing that ends."""


@dataclass
class Talk:
    """People who talk with one server.

    Args:
        port: of the server; may change while they talk.
        key: of a tenant.
        model: what it is called.
        people: who there is.
        at_once: threads.
        kinds: of conversations.
        filler: put before what people tell, so that turns take room.

    Attributes:
        outcomes: of all tries; see `Heard`.
        seconds: of whole answers.
        first_seconds: until the first piece of those that were streamed.
        foreign: answers with a number, or of a memory, of somebody else.
        attributed: answers of memories that were the user's own.
        asked_memories: how many were asked for.
        own_numbers: answers that told the user's own number.
        left: streams that were left.
        errors: what ended a thread.
    """

    port: int
    key: str
    model: str
    people: Sequence[Person]
    at_once: int
    kinds: Sequence[str] = KINDS
    filler: str = ""
    outcomes: Counter[int | str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    first_seconds: list[float] = field(default_factory=list)
    foreign: int = 0
    attributed: int = 0
    asked_memories: int = 0
    own_numbers: int = 0
    left: int = 0
    errors: list[BaseException] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _running: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end()
        if kind is None:
            assert self.errors == []

    def begin(self) -> None:
        self._numbers = {person.number for person in self.people}
        self._running = [threading.Thread(target=self._run, args=(seed,)) for seed in range(self.at_once)]
        for thread in self._running:
            thread.start()

    def end(self) -> None:
        """Let every conversation come to its end."""
        self._over.set()
        for thread in self._running:
            thread.join()

    @property
    def answers(self) -> int:
        """Whole answers so far."""
        return self.outcomes[200]

    def _run(self, seed: int) -> None:
        rng = random.Random(seed)
        try:
            while not self._over.is_set():
                person = rng.choice(self.people)
                if person.busy.acquire(blocking=False):
                    try:
                        self._converse(person, rng)
                    finally:
                        person.busy.release()
                else:
                    time.sleep(0.01)
        except BaseException as error:  # noqa: BLE001  a thread must not die unseen
            self.errors.append(error)

    def _converse(self, person: Person, rng: random.Random) -> None:
        """Hold one conversation of two questions."""
        kind, number = rng.choice(self.kinds), len(person.said)
        options: dict[str, Any] = {"model": self.model, "safety_identifier": person.name}
        headers = {"Authorization": f"Bearer {self.key}"}
        first = f"{self.filler}{TELL.format(number=person.number)}"
        if person.expected is not None:
            first = WHO
            headers["X-Locas-Learn"] = "false"  # the memory stays the one whose answer is known
            options |= {"max_output_tokens" if kind == "responses" else "max_tokens": MEMORY_TOKENS}
        if kind == "named":
            headers["X-Locas-Conversation"] = f"{person.name}, {number}"
        messages: list[dict[str, str]] = []
        # Whole conversations without a name that are the same to the last word are one, so that each asks otherwise.
        for at, text in enumerate((first, f"{ASK} ({number})" if kind == "unnamed" else ASK)):
            messages.append({"role": "user", "content": text})
            person.said.append(exchange := Exchange(text))
            if kind == "responses":
                options["input"] = text
                again = headers | {"Idempotency-Key": f"{person.name}, {number}, {at}"}
                heard = self._ask(exchange, "/v1/responses", options, again)
                options["previous_response_id"] = heard.response_id
            else:
                stream = rng.random() < 0.5
                leave = stream and kind == "named" and person.expected is None and rng.randrange(EVERY_LEFT) == 0
                body = options | {"messages": messages, "stream": stream}
                heard = self._ask(exchange, "/v1/chat/completions", body, headers, leave=leave)
            if not heard.is_whole:
                person.left.append(Left(headers["X-Locas-Conversation"], at, heard.text))
                return
            messages.append({"role": "assistant", "content": heard.text})
            self._look_at(person, text, heard.text)

    def _ask(
        self, exchange: Exchange, path: str, body: Mapping[str, Any], headers: Mapping[str, str], *, leave: bool = False
    ) -> Heard:
        """Ask until there is an answer."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            assert time.monotonic() < until, "asked in vain"
            heard = post(self.port, path, body, headers, leave=leave)
            exchange.is_acknowledged |= heard.is_whole or bool(heard.text)
            with self._lock:
                if leave and heard.text:
                    self.left += 1
                    return heard
                self.outcomes[heard.outcome] += 1
                if heard.is_whole:
                    self.seconds.append(heard.seconds)
                    self.first_seconds += [heard.first_seconds] if heard.first_seconds else []
                    exchange.answer = heard.text
                    return heard
            exchange.unheard += heard.outcome not in (429, REFUSED)
            time.sleep(heard.retry_after)

    def _look_at(self, person: Person, question: str, answer: str) -> None:
        """See whose answer it is."""
        told = set(re.findall(r"\d{6,}", answer)) & self._numbers
        others = [other for other in self.people if other is not person and other.says(answer)]
        is_asked = person.expected is not None and question == WHO
        with self._lock:
            self.foreign += bool(told - {person.number}) or (is_asked and bool(others) and not person.says(answer))
            self.own_numbers += person.number in told
            self.asked_memories += is_asked
            self.attributed += is_asked and person.says(answer)
