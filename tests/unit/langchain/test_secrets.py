"""The password of the store's URL: it is in nothing that a program prints, dumps, traces, logs or raises."""

from __future__ import annotations

import copy
import json
import logging
import traceback
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
from langchain_core.load import dumpd, dumps
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run
from pydantic import BaseModel, ValidationError
from typer.testing import CliRunner

from langchain_locas import ChatLocas, LocasChainMemory
from langchain_locas.options import StoreUrl
from locas_agent import AgentMemory
from locas_agent.cli import app
from locas_agent.errors import ConfigurationError, LocasError, StoreUnavailable

PASSWORD = "s3same"
URL = f"postgresql+psycopg://ada:{PASSWORD}@127.0.0.1:1/memories"
OPTIONS = [
    URL,
    f"postgresql+psycopg://127.0.0.1:1/x?user=ada&password={PASSWORD}",
    f"postgresql+psycopg://ada@127.0.0.1:1/x?sslpassword={PASSWORD}",
    f"postgresql+psycopg://ada@127.0.0.1:1/x?oauth_client_secret={PASSWORD}",
    f"postgresql+psycopg://ada:a@{PASSWORD}@127.0.0.1:1/x",
    f"postgresql+psycopg://ada:a@b:{PASSWORD}@127.0.0.1/x",
    f"postgresql+psycopg://ada:a/{PASSWORD}@127.0.0.1:1/x",
    f"postgresql:/ada:{PASSWORD}@127.0.0.1/x",
    f"nosuch://ada:{PASSWORD}@127.0.0.1/x",
    f"{PASSWORD}",
]


class Outer(BaseModel):
    """A program's own model that holds one of ours."""

    chat: ChatLocas


class Serialized(ChatLocas):
    """A subclass that LangChain serializes."""

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True


WAYS: dict[str, Callable[[ChatLocas], object]] = {
    "repr": repr,
    "str": str,
    "repr of a chain": lambda model: repr(model | RunnableLambda(str)),
    "repr of a bound model": lambda model: repr(model.bind(user_id="ada")),
    "repr of a configurable model": lambda model: repr(model.configurable_fields(store=ConfigurableField("store"))),
    "repr with fallbacks": lambda model: repr(model.with_fallbacks([model])),
    "repr of a container": lambda model: repr({"model": model, "fields": vars(model)}),
    "repr of the fields": lambda model: repr(model.__dict__),
    "model_dump": lambda model: repr(model.model_dump()),
    "model_dump for JSON": lambda model: repr(model.model_dump(mode="json")),
    "model_dump_json": lambda model: model.model_dump_json(),
    "dump of an outer model": lambda model: Outer(chat=model).model_dump_json() + repr(Outer(chat=model)),
    "dumps": lambda model: dumps(model | RunnableLambda(str)),
    "dumpd": lambda model: repr(dumpd(model.configurable_fields(store=ConfigurableField("store")))),
    "dict": lambda model: repr(model.asdict()),
    "schema": lambda model: json.dumps(
        (model.get_input_jsonschema(), model.get_output_jsonschema(), repr(type(model).model_fields))
    ),
    "schema of the config": lambda model: json.dumps(
        model.configurable_fields(store=ConfigurableField("store")).get_config_jsonschema()
    ),
    "graph": lambda model: json.dumps((model | RunnableLambda(str)).get_graph().to_json(with_schemas=True)),
    "name": lambda model: model.get_name(),
    "identity": lambda model: repr((model._identifying_params, model._get_ls_params(), model._llm_type)),
    "copy": lambda model: repr((model.model_copy(), copy.copy(model), copy.deepcopy(model))),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("url", OPTIONS)
def test_password_is_in_nothing_that_shows_a_model(way: str, url: str) -> None:
    assert PASSWORD not in str(WAYS[way](ChatLocas(store=url)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings(
    "ignore:Pydantic serializer warnings"
)  # a value that nobody validated, and pydantic says so
def test_a_store_that_was_put_in_later_is_masked_too(way: str) -> None:
    assigned, updated = ChatLocas(), ChatLocas().model_copy(update={"store": StoreUrl(URL)})
    assigned.store = StoreUrl(URL)
    for model in (assigned, updated):
        assert PASSWORD not in str(WAYS[way](model))
    if way in ("repr", "str", "model_dump", "model_dump_json", "dumps"):
        bare = ChatLocas().model_copy(update={"store": URL})
        assert PASSWORD not in str(WAYS[way](bare))


def test_what_is_shown_still_says_which_database() -> None:
    assert "postgresql+psycopg://ada:***@127.0.0.1:1/memories" in repr(ChatLocas(store=URL))
    assert json.loads(ChatLocas(store="sqlite:///a.db").model_dump_json())["store"] == "sqlite:///a.db"
    store = ChatLocas(store=URL).store
    assert isinstance(store, StoreUrl)
    assert store.get_secret_value() == URL


def test_a_subclass_that_is_serialized_leaves_it_out() -> None:
    written = dumps(Serialized(store=URL, user_id="ada"))
    assert PASSWORD not in written
    assert '"user_id": "ada"' in written
    assert json.loads(written)["kwargs"]["store"] == {"lc": 1, "type": "secret", "id": ["LOCAS_STORE"]}


class Tracer(BaseTracer):
    """Keeps what a tracer is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = ""

    def _persist_run(self, run: Run) -> None:
        self.sent += f"{run.model_dump()!r}{run.serialized!r}{run.extra!r}{run.error}"


@pytest.mark.parametrize("url", [URL, OPTIONS[1], OPTIONS[4]])
def test_a_traced_call_that_cannot_connect_says_nothing(
    url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    tracer = Tracer()
    model = ChatLocas(store=url)
    with pytest.raises(StoreUnavailable) as caught:
        model.invoke("Hello", {"callbacks": [tracer]}, user_id="ada")
    assert "ChatLocas" in tracer.sent
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + tracer.sent + caplog.text
    assert PASSWORD not in shown


REFUSED: dict[str, Callable[[str], object]] = {
    "unknown option": lambda url: ChatLocas(store=url, zz=1),
    "several": lambda url: ChatLocas(store=url, temperature="hot", max_tokens=[url], stop=[1]),
    "a store in a list": lambda url: ChatLocas(store=[url]),
    "a store as bytes": lambda url: ChatLocas(store=url.encode()),
    "a store as another option": lambda url: ChatLocas(user_id=1, tenant=[url], timeout=url),
    "a memory that is a URL": lambda url: ChatLocas(memory=url),
    "classic memory": lambda url: LocasChainMemory(memory=url, user_id="ada"),  # type: ignore[arg-type]
    "classic memory with an unknown option": lambda url: LocasChainMemory(
        user_id="ada",
        store=url,  # type: ignore[call-arg]
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_is_ours_and_quotes_nothing(what: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        REFUSED[what](URL)
    assert isinstance(caught.value, LocasError)
    assert isinstance(caught.value, ValueError)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


def test_a_refusal_names_the_fields() -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"temperature: Input should be a valid number.*; max_tokens: Input should be a valid integer",
    ):
        ChatLocas(temperature="hot", max_tokens="few")


@pytest.mark.parametrize("wrong", [{"zz": 1}, {"temperature": "hot"}, {"store": [URL]}], ids=str)
def test_a_refusal_of_pydantics_quotes_nothing_either(wrong: dict[str, Any]) -> None:
    for validate in (ChatLocas.model_validate, lambda fields: Outer.model_validate({"chat": fields})):
        with pytest.raises(ValidationError) as caught:
            validate({"store": URL, **wrong})
        assert PASSWORD not in str(caught.value) + repr(caught.value.errors()) + caught.value.json()
        assert next(iter(wrong)) in str(caught.value)


@pytest.mark.parametrize("url", OPTIONS)
def test_a_command_that_cannot_connect_says_nothing(url: str) -> None:
    for words in (["users"], ["db", "current"], ["turns", "--user", "ada"]):
        done = CliRunner().invoke(app, [*words, "--store", url])
        assert done.exit_code == 1
        assert done.output.startswith("locas-agent: ")
        assert done.exception is not None
        assert PASSWORD not in done.output + "".join(traceback.format_exception(done.exception))


# What a model that was not used may do
# ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path, type(None)])
def test_store_reaches_the_memory_as_it_was_given(
    monkeypatch: pytest.MonkeyPatch, agent: AgentMemory, kind: type
) -> None:
    given = {str: "sqlite:///x.db", Path: Path("x.db"), type(None): None}[kind]
    loaded: list[object] = []
    monkeypatch.setattr(AgentMemory, "load", lambda _, store, **__: loaded.append(store) or agent)
    model = ChatLocas("tiny", store=given)
    assert model.agent_memory is agent
    assert model.model_copy(update={"store": "sqlite://"}).agent_memory is agent
    assert loaded == [given, "sqlite://"]


def test_settings_can_be_pickled_and_copied_and_what_is_open_is_shared(
    monkeypatch: pytest.MonkeyPatch, agent: AgentMemory
) -> None:
    monkeypatch.setattr(AgentMemory, "load", lambda *_, **__: agent)
    model = ChatLocas("tiny", store=URL, user_id="ada", stop=["x"])
    again = ForkingPickler.loads(ForkingPickler.dumps(model))  # as it goes to another process
    assert (again, again.store) == (model.model_copy(update={"opening": again.opening}), StoreUrl(URL))
    deep = copy.deepcopy(model)
    assert deep.stop == ["x"]
    assert model.agent_memory is again.agent_memory is agent
    assert copy.deepcopy(model).agent_memory is deep.agent_memory is agent
    with pytest.raises(ConfigurationError, match="pickle it before its first use") as caught:
        ForkingPickler.dumps(model)
    assert PASSWORD not in str(caught.value)
