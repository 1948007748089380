"""Forms of reading: how turns are put before a question so that a backbone answers from them.

A form turns chat messages and a question into the messages of one prompt; the backbone's own template does the rest.
The lines of a form call the user "I" and the assistant "You", as the question does: a model that reads "I: ..." answers
"my dog" without having to know who the user is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from locas_agent.conversation.messages import Message, exchange, question

_SPEAKERS = {"user": "I", "assistant": "You"}


@dataclass(frozen=True, slots=True)
class ReadingForm:
    """One way to put a question behind turns.

    Attributes:
        name: what settings, reports and caches call it.
        build: from the messages of some turns, headed by their date, and a question to the messages of a prompt.
    """

    name: str
    build: Callable[[Sequence[Message], str], list[Message]]

    def prompt(self, messages: Sequence[Message], text: str) -> list[Message]:
        """Return the prompt of a question behind turns.

        Args:
            messages: what `conversation` gives for the turns: dated headers of role system, and what was said. Without
                any the question stands alone.
            text: the question.
        """
        return self.build(messages, text) if messages else question(text)


def _said(messages: Sequence[Message]) -> str:
    """Return turns as lines, each with its speaker; a header is a line of its own."""
    return "\n".join(
        f"{_SPEAKERS[message['role']]}: {message['content']}" if message["role"] in _SPEAKERS else message["content"]
        for message in messages
    )


def _told(messages: Sequence[Message]) -> str:
    """Return turns as plain lines; only the assistant's say whose they are."""
    return "\n".join(
        f"You: {message['content']}" if message["role"] == "assistant" else message["content"] for message in messages
    )


def _chat(messages: Sequence[Message], text: str) -> list[Message]:
    return [*messages, *question(text)]


def _text(messages: Sequence[Message], text: str) -> list[Message]:
    return question(_TEXT.format(text=_said(messages), question=text))


def _plain(messages: Sequence[Message], text: str) -> list[Message]:
    return question(_TEXT.format(text=_told(messages), question=text))


def _asks(messages: Sequence[Message], text: str) -> list[Message]:
    return question(f"{_said(messages)}\n\nI ask: {text} Give a short answer.")


def _notes(messages: Sequence[Message], text: str) -> list[Message]:
    notes = "\n".join(f"- {line}" for line in _told(messages).split("\n"))
    return [
        {"role": "system", "content": f"The user told you:\n{notes}\nAnswer the user's questions in a few words."},
        *question(text),
    ]


def _examples(messages: Sequence[Message], text: str) -> list[Message]:
    shown = [
        message
        for told, asked, answer in _SHOWN
        for message in exchange(_TEXT.format(text=f"I: {told}", question=asked), answer)
    ]
    return [*shown, *_text(messages, text)]


_TEXT = "Read the text and answer the question in a few words.\n\nText:\n{text}\n\nQuestion: {question}"
_SHOWN = (
    ("We moved to Leeds last year because I got a job at the library there.", "Where do I work?", "At the library."),
    ("Nora, my eldest, turned six in March and wants a drum.", "What is my daughter called?", "Nora."),
)
"""Two answered questions, for models that have to be shown what is wanted."""

CHAT = ReadingForm("chat", _chat)
"""The turns as they were said, as a reply has them."""

READING_FORMS: dict[str, ReadingForm] = {
    form.name: form
    for form in (
        CHAT,
        ReadingForm("text", _text),
        ReadingForm("plain", _plain),
        ReadingForm("asks", _asks),
        ReadingForm("notes", _notes),
        ReadingForm("examples", _examples),
    )
}
"""All forms by name."""
