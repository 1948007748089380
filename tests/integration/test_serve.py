"""`locas-agent serve` as people run it: told over the interface, learnt beside it, answered later; and its faults.

The process is real, so are the sockets and the clients.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, OpenAI, Stream
from openai.types.chat import ChatCompletionChunk

from locas_agent import AgentMemory, Backbone, LocasConfig
from locas_storage import UserKey, open_store
from tests.conftest import MakeMemory
from tests.integration.server_process import ServerProcess, serving
from tests.unit.langchain.conftest import taught

FACTS = {
    "ada": {
        "My dog is called Zorbin.": ("What is my dog called?", "Zorbin"),
        "I live in Tromso.": ("Where do I live?", "Tromso"),
    },
    "ben": {
        "My cat is called Mirella.": ("What is my cat called?", "Mirella"),
        "I live in Lagos.": ("Where do I live?", "Lagos"),
    },
}
CONFIG = LocasConfig.model_validate(
    {
        "window": {"window_tokens": 16},
        "policy": {"overflow_tokens": 20, "overflow_turns": 2, "min_overflow_tokens": 1},
    }
)
BACKBONE = os.environ.get("LOCAS_SERVED_BACKBONE", "tiny")
"""What is told and asked over the interface is learnt by this backbone; by another than the bundled one in minutes."""
ANSWER_SECONDS = 120 if BACKBONE == "tiny" else 600
CLIENTS = 50
TOOL: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


@dataclass(frozen=True)
class Prepared:
    """What a server is started on.

    Attributes:
        database: an SQLite file, to be copied.
        expected: what each user's memory answers.
        options: of the command.
    """

    database: Path
    expected: dict[str, str]
    options: tuple[str, ...]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'locas.db'}"


def turns(url: str, user: str) -> list[tuple[str, str]]:
    with closing(open_store(url)) as store:
        return [(turn.role, turn.content) for turn in store.turns(UserKey("default", user))]


def ask(client: OpenAI, text: str, **options: Any) -> str:
    model = client.models.list().data[0].id
    made = client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **options)
    return made.choices[0].message.content or ""


@pytest.mark.slow
@pytest.mark.timeout(600 if BACKBONE == "tiny" else 3600)
def test_what_was_told_in_one_conversation_is_answered_in_another(url: str, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(CONFIG.model_dump_json())
    options = ("--config", str(config), "--backbone", BACKBONE)
    with serving(url, tmp_path / "log", *options) as server, server.client(server.key()) as known:
        client = known.with_options(timeout=ANSWER_SECONDS)
        model = client.models.list().data[0].id
        for user, facts in FACTS.items():
            messages: list[Any] = []
            for fact in facts:
                messages.append({"role": "user", "content": fact})
                made = client.chat.completions.create(model=model, messages=messages, user=user, max_tokens=24)
                messages.append({"role": "assistant", "content": made.choices[0].message.content})
            for small_talk in ("Good night.", "See you tomorrow, then."):  # what was told leaves the window
                messages.append({"role": "user", "content": small_talk})
                made = client.chat.completions.create(model=model, messages=messages, user=user, max_tokens=24)
                messages.append({"role": "assistant", "content": made.choices[0].message.content})
            assert turns(url, user) == [(message["role"], message["content"]) for message in messages]
        until = time.monotonic() + (400 if BACKBONE == "tiny" else 3000)
        while not all(is_learnt(url, user) for user in FACTS):
            assert time.monotonic() < until, server.log.read_text()
            time.sleep(0.1)
        # One training may lose a fact to the rounding of a processor: a share, and never another user's.
        answers = {
            user: [ask(client, question, user=user, store=False) for question, _ in facts.values()]
            for user, facts in FACTS.items()
        }
        values = {user: [value for _, value in facts.values()] for user, facts in FACTS.items()}
        right = sum(
            value in answer for user in FACTS for value, answer in zip(values[user], answers[user], strict=True)
        )
        assert right >= 2, answers
        for user, other in (("ada", "ben"), ("ben", "ada")):
            asked = [ask(client, question, user=user, store=False) for question, _ in FACTS[other].values()]
            assert not any(value in answer for value in values[other] for answer in (*asked, *answers[user]))
        stranger = [ask(client, question, user="carl", store=False) for question, _ in FACTS["ada"].values()]
        assert not any(value in answer for value in values["ada"] + values["ben"] for answer in stranger)
        assert server.stop() == 0
        told = server.log.read_text()
        assert not any(value in told for value in values["ada"] + values["ben"])


def is_learnt(url: str, user: str) -> bool:
    """Tell whether the turns that tell facts are learnt."""
    with closing(open_store(url)) as store:
        state = store.state(UserKey("default", user))
        return state is not None and state.head > 0 and state.consolidated_seq >= 3


@pytest.fixture(scope="module")
def prepared(
    tmp_path_factory: pytest.TempPathFactory, backbone: Backbone, backbone_folder: str, make_memory: MakeMemory
) -> Prepared:
    """A database of users whose memories answer differently."""
    folder = tmp_path_factory.mktemp("prepared")
    config = LocasConfig.model_validate({"memory": {"width": 2}, "window": {"max_new_tokens": 24}})
    (folder / "config.json").write_text(config.model_dump_json())
    expected = {}
    with closing(open_store(f"sqlite:///{folder / 'locas.db'}")) as store:
        agent = AgentMemory(backbone=backbone, store=store, config=config)
        for number in range(CLIENTS):
            name = f"user {number}"
            taught(agent, make_memory(number), name)
            expected[name] = agent.for_user(name).generate([{"role": "user", "content": "Who am I?"}]).text
    options = ("--backbone", backbone_folder, "--dtype", "float32", "--config", str(folder / "config.json"))
    return Prepared(folder / "locas.db", expected, (*options, "--no-learn"))


@pytest.fixture
def canaries(prepared: Prepared, url: str, tmp_path: Path) -> Iterator[tuple[ServerProcess, dict[str, str]]]:
    """A server for these users, and what each of them answers."""
    shutil.copy(prepared.database, tmp_path / "locas.db")
    with serving(url, tmp_path / "log", *prepared.options) as server:
        yield server, prepared.expected


def test_fifty_clients_at_once_get_answers_of_their_own(canaries: tuple[ServerProcess, dict[str, str]]) -> None:
    server, expected = canaries
    assert len(set(expected.values())) > CLIENTS // 2  # memories that do tell
    secret = server.key()
    barrier = threading.Barrier(CLIENTS)

    def talk(name: str) -> list[str]:
        with server.client(secret) as client:
            model = client.models.list().data[0].id
            barrier.wait(60)
            messages: Any = [{"role": "user", "content": "Who am I?"}]
            whole = client.chat.completions.create(model=model, messages=messages, user=name)
            chunks = client.chat.completions.create(model=model, messages=messages, user=name, stream=True)
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            return [whole.choices[0].message.content or "", streamed]

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = dict(zip(expected, pool.map(talk, expected), strict=True))
    assert answers == {name: [text, text] for name, text in expected.items()}
    for name, text in expected.items():
        said = [("user", "Something was said."), ("user", "Who am I?")]
        assert turns(server.store, name) == ([*said, ("assistant", text)] if text.strip() else said)


def long_story(client: OpenAI) -> Stream[ChatCompletionChunk]:
    """Ask for an answer that takes a while, piece by piece."""
    return client.chat.completions.create(
        model=client.models.list().data[0].id,
        messages=[{"role": "user", "content": "Tell me a long story."}],
        user="user 1",
        max_tokens=200,
        stream=True,
    )


def test_sigterm_lets_answers_be_written_to_their_end(canaries: tuple[ServerProcess, dict[str, str]]) -> None:
    server, _ = canaries
    with server.client(server.key()) as client:
        stream = long_story(client)
        pieces = [next(iter(stream))]
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        with pytest.raises(OSError, match="refused"):
            server.get("/health")
        pieces += list(stream)
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert pieces[-1].choices[0].finish_reason in ("stop", "length")
    assert server.process.wait(60) == 0
    role, kept = turns(server.store, "user 1")[-1]
    assert (role, text[: len(kept)]) == ("assistant", kept)  # noise may be spelled in more tokens than a turn holds
    assert kept


def test_large_and_broken_requests_leave_the_server_as_it_was(
    canaries: tuple[ServerProcess, dict[str, str]], prepared: Prepared
) -> None:
    server, expected = canaries
    secret = server.key()
    big = json.dumps({"model": "x", "messages": [{"role": "user", "content": "x" * 10_000_000}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n"
    for raw, status in (
        (f"{head}Content-Length: {len(big)}\r\n\r\n".encode() + big, b"413"),
        (f"{head}Content-Length: 8\r\n\r\n".encode() + b"{not it}", b"400"),
        (b"\x00\x01\x02 nonsense\r\n\r\n", b"400"),
        (f"{head}X-Locas-User: {'x' * 100_000}\r\n\r\n".encode(), b"4"),
    ):
        with closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(raw)
            with suppress(ConnectionResetError):  # what was sent too much is not read
                answer = connection.recv(200)
                assert answer.split(b" ")[1].startswith(status) if answer else True
    with server.client(secret) as client:
        assert ask(client, "Who am I?", user="user 4") == expected["user 4"]
        with pytest.raises(BadRequestError) as caught:
            ask(client, "Who am I?", user="user 4", tools=[TOOL])
    assert "cannot call tools" in str(caught.value)
    assert str(prepared.options[1]) not in str(caught.value)  # the backbone's folder is nobody's business
    assert "Traceback" not in server.log.read_text()


def test_address_that_is_taken_is_said_in_one_line(tmp_path: Path, url: str) -> None:
    from typer.testing import CliRunner

    from locas_agent.cli import app

    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        done = CliRunner().invoke(app, ["serve", "--store", url, "--port", port])
    assert done.exit_code == 1
    assert f"port {port}" in done.stderr
