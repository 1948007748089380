"""The conversation of `locas-agent chat`: lines in, streamed answers out, commands that begin with a slash."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import typer

from locas_agent.cli.forget import describe
from locas_agent.cli.output import deliver, progress_bar, revision_table, visible
from locas_storage import LocasError

if TYPE_CHECKING:
    from locas_agent.results import Consolidation, Reply
    from locas_agent.user import UserMemory

HELP = """\
/why                which revision answered, what the prompt held, what waits to be learnt
/consolidate        learn the turns that left the window; /consolidate all learns those in it too
/revisions          every saved memory
/forget N           forget turn N as if it had never been said; several numbers may follow
/quit               leave; everything said is in the database"""


class Chat:
    """One conversation.

    Args:
        user: who talks.
        max_new_tokens: longest answer, in tokens; None leaves it to the configuration.
        temperature: 0 is greedy.
        seed: of sampling and of training.
        learn: whether what is said may be learnt.
    """

    def __init__(
        self,
        user: UserMemory,
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        learn: bool = True,
    ) -> None:
        self._user = user
        self._max_new_tokens = max_new_tokens
        self._temperature = temperature
        self._seed = seed
        self._learn = learn
        self._last: Reply | None = None
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": lambda _: typer.echo(HELP),
            "/why": lambda _: self._why(),
            "/consolidate": self._consolidate,
            "/revisions": lambda _: deliver(None, None, revision_table(self._user.revisions())),
            "/forget": self._forget,
        }

    def run(self, lines: Iterable[str]) -> None:
        """Answer line after line until they end or say /quit. An error is told and the conversation goes on."""
        for line in lines:
            text = line.strip()
            command, _, rest = text.partition(" ")
            if command in ("/quit", "/exit"):
                return
            try:
                if command in self._commands:
                    self._commands[command](rest.strip())
                elif command.startswith("/"):
                    typer.echo(f"There is no {visible(command)}. /help lists what there is.")
                elif text:
                    self._answer(text)
            except LocasError as error:
                typer.echo(f"error: {error}", err=True)

    def _answer(self, text: str) -> None:
        stream = self._user.stream(
            text,
            max_new_tokens=self._max_new_tokens,
            temperature=self._temperature,
            seed=self._seed,
            learn=self._learn,
        )
        try:
            for piece in stream:
                typer.echo(visible(piece), nl=False)
                sys.stdout.flush()
        except KeyboardInterrupt:
            typer.echo("\n(stopped: what you said is kept, the answer is not)")
            return
        typer.echo()
        self._last = stream.reply
        if self._last is not None and self._last.consolidation is not None:
            typer.echo(f"({outcome(self._last.consolidation)})")

    def _consolidate(self, what: str) -> None:
        if what not in ("", "all"):
            typer.echo("Either /consolidate or /consolidate all.")
            return
        with progress_bar() as progress:
            result = self._user.consolidate(flush=what == "all", progress=progress, seed=self._seed)
        typer.echo(outcome(result))

    def _forget(self, what: str) -> None:
        numbers = what.split()
        if not numbers or not all(number.isdecimal() for number in numbers):
            typer.echo("/forget N, with the number of a turn as `locas-agent turns` prints it.")
            return
        with progress_bar() as progress:
            receipt = self._user.forget([int(number) for number in numbers], progress=progress)
        typer.echo(describe(receipt))
        revisions = self._user.revisions()
        if receipt.rebuild_to_seq and revisions and revisions[-1].to_seq >= receipt.rebuild_to_seq:
            typer.echo(f"and learnt: revision {revisions[-1].number}")

    def _why(self) -> None:
        reply = self._last
        if reply is None:
            typer.echo("Nothing has been answered yet in this conversation.")
            return
        used = (
            f"Revision {reply.revision} answered."
            if reply.used_memory
            else f"No memory was used: {reply.why_no_memory}."
        )
        tokens = reply.prompt_tokens
        typer.echo(
            f"{used}\n"
            f"The prompt held {tokens.window} tokens of the window and {tokens.overflow} of overflow, {tokens.total} "
            "in all.\n"
            f"{reply.pending_turns} turns wait to be learnt; {reply.unseen_turns} of them did not fit into the prompt."
        )


def outcome(result: Consolidation) -> str:
    """Say in one line what a consolidation did."""
    if result.revision is not None:
        learnt = f"learnt {result.turns} turns: revision {result.revision.number}"
        return f"{learnt} ({result.detail})" if result.detail else learnt
    if result.status == "nothing":
        return f"nothing to learn: {result.detail}"
    return f"refused to learn {result.turns} turns ({result.reason}): {result.detail}"


def typed_lines() -> Iterator[str]:
    """Yield lines from standard input, with a prompt if that is a terminal."""
    interactive = sys.stdin.isatty()
    if interactive:
        typer.echo("/help lists the commands, /quit leaves.")
    while True:
        try:
            yield input("> " if interactive else "")
        except EOFError:
            return
