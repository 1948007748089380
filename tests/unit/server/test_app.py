"""The server as clients see it: each is answered with the memory of its user, and nobody else's."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from openai import APIStatusError, AuthenticationError, BadRequestError, OpenAI, PermissionDeniedError

from locas_agent import AgentMemory
from locas_agent.errors import StoreUnavailable
from locas_agent.server.middleware import RateLimit
from locas_agent.server.protocol.errors import ApiError
from locas_storage import UserKey
from tests.conftest import MakeMemory
from tests.unit.server.conftest import MODEL, Serve, Served, taught, wait_for

pytestmark = pytest.mark.rounding

ASKED: list[Any] = [{"role": "user", "content": "What is my dog called?"}]
CANARY = "zanzibar-4711"


def ask(client: OpenAI, messages: list[Any] | None = None, **options: Any) -> str:
    made = client.chat.completions.create(model=MODEL, messages=messages or ASKED, **options)
    return made.choices[0].message.content or ""


@pytest.fixture
def users(agent: AgentMemory, make_memory: MakeMemory) -> list[str]:
    """Two users of one tenant and a namesake of another, each with a memory that answers differently."""
    for seed, (tenant, user) in enumerate((("default", "ada"), ("default", "ben"), ("acme", "ada"))):
        taught(agent, make_memory(seed, on=agent.backbone), user, tenant=tenant)
    return ["ada", "ben"]


def test_each_user_is_answered_from_the_own_memory(served: Served, users: list[str]) -> None:
    client = served.client()
    expected = [served.agent.for_user(user).generate(ASKED).text for user in users]
    assert len(set(expected)) == 2
    assert [ask(client, user=user) for user in users] == expected
    assert [ask(client, safety_identifier=user) for user in users] == expected
    named = [ask(client, extra_headers={"X-Locas-User": user}) for user in users]
    assert named == expected


def test_key_of_a_user_names_the_user(served: Served, users: list[str]) -> None:
    client = served.client(served.key(user="ben"))
    assert ask(client) == served.agent.for_user("ben").generate(ASKED).text
    assert ask(client, user="ben") == ask(client)
    before = served.said("ada")
    for options in ({"user": "ada"}, {"safety_identifier": "ada"}, {"extra_headers": {"X-Locas-User": "ada"}}):
        with pytest.raises(PermissionDeniedError):
            ask(client, **options)
    assert served.said("ada") == before


def test_key_of_another_tenant_reaches_nobody_of_this_one(served: Served, users: list[str]) -> None:
    other = served.client(served.key("acme"))
    before = served.said("ada")
    expected = served.agent.for_user("ada", tenant="acme").generate(ASKED).text
    assert ask(other, user="ada") == expected != served.agent.for_user("ada").generate(ASKED).text
    mine = served.client().responses.create(model=MODEL, input=CANARY, safety_identifier="ada")
    for client, user in ((other, "ada"), (served.client(), "ben")):
        with pytest.raises(BadRequestError) as caught:
            client.responses.create(
                model=MODEL, input="And?", previous_response_id=mine.id, extra_body={"safety_identifier": user}
            )
        assert caught.value.code == "previous_response_not_found"
    assert served.said("ada")[: len(before)] == before
    assert CANARY not in str(served.said("ada", "acme")) + str(served.said("ben"))


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ")],
        [("Authorization", "Bearer locas-0000000000000000-" + "A" * 43)],
        [("Authorization", "Basic {secret}")],
        [("Authorization", "Bearer {secret}x")],
        [("Authorization", "Bearer {secret}"), ("Authorization", "Bearer {secret}")],
        [("X-Api-Key", "{secret}")],
        [("Cookie", "Authorization=Bearer {secret}")],
    ],
    ids=str,
)
def test_nobody_is_let_in_without_a_key(served: Served, headers: list[tuple[str, str]]) -> None:
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("POST", "/v1/responses")):
        connection = served.connection()
        connection.putrequest(method, f"{path}?key={served.secret}")
        body = json.dumps({"model": MODEL, "messages": ASKED, "input": "Hi.", "user": "ada"}).encode()
        for name, value in [*headers, ("Content-Length", str(len(body)))]:
            connection.putheader(name, value.format(secret=served.secret))
        connection.endheaders(body)
        response = connection.getresponse()
        told = json.loads(response.read())
        assert (response.status, told["error"]["code"]) == (401, "invalid_api_key")
        assert set(told["error"]) == {"message", "type", "param", "code"}
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert served.agent.users() == []


def test_revoked_key_is_refused_at_once(served: Served) -> None:
    made = served.agent.store.api_keys.new("default")
    client = served.client(made.secret)
    assert client.models.list().data[0].id == MODEL
    served.agent.store.api_keys.revoke(made.key.key_id)
    with pytest.raises(AuthenticationError):
        client.models.list()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({}, "user_required"),
        ({"user": "ada", "safety_identifier": "ben"}, "user_ambiguous"),
        ({"user": "ada", "extra_headers": {"X-Locas-User": "ben"}}, "user_ambiguous"),
        ({"user": " "}, "user_invalid"),
        ({"user": ""}, "user_invalid"),
        ({"user": "x" * 201}, "user_invalid"),
        ({"user": "a\x00b"}, "user_invalid"),
    ],
)
def test_user_has_to_be_named_once(served: Served, options: dict[str, Any], code: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        ask(served.client(), **options)
    assert caught.value.code == code
    assert served.agent.users() == []


def test_two_headers_that_differ_name_nobody(served: Served) -> None:
    connection = served.connection()
    body = json.dumps({"model": MODEL, "messages": ASKED}).encode()
    connection.putrequest("POST", "/v1/chat/completions")
    for name, value in (
        ("Authorization", f"Bearer {served.secret}"),
        ("X-Locas-User", "ada"),
        ("X-Locas-User", "ben"),
        ("Content-Length", str(len(body))),
    ):
        connection.putheader(name, value)
    connection.endheaders(body)
    assert json.loads(connection.getresponse().read())["error"]["code"] == "user_ambiguous"


def post(
    served: Served, body: bytes | dict[str, Any], path: str = "/v1/chat/completions", **headers: str
) -> tuple[int, dict[str, Any], dict[str, str]]:
    connection = served.connection()
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Authorization": f"Bearer {served.secret}", "X-Locas-User": "ada"} | headers
    connection.request("POST", path, data, given)
    response = connection.getresponse()
    return response.status, json.loads(response.read()), {name.lower(): value for name, value in response.getheaders()}


GOOD = {"model": MODEL, "messages": ASKED}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"model": "gpt-5"}, 404),
        ({"messages": []}, 400),
        ({"messages": "Hi."}, 400),
        ({"messages": [{"role": "robot", "content": CANARY}]}, 400),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": CANARY}}]}]}, 400),
        ({"messages": [{"role": "user", "content": {"text": CANARY}}]}, 400),
        ({"messages": [{"role": "user", "content": f"{CANARY}\x00"}]}, 400),
        ({"max_tokens": 0}, 400),
        ({"max_tokens": "many"}, 400),
        ({"temperature": -1}, 400),
        ({"n": 2}, 400),
        ({"top_p": 0.5}, 400),
        ({"logprobs": True}, 400),
        ({"response_format": {"type": "json_object"}}, 400),
        ({"tools": [{"type": "function", "function": {}}]}, 400),
        ({"tool_choice": "required"}, 200),  # of no tool: left to the backbone
        ({"seed": 3, "temperature": 0.5, "metadata": {"a": "b"}, "reasoning_effort": "low"}, 200),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi."}]}]}, 200),
        ({"messages": [{"role": "developer", "content": "Be short."}, *ASKED]}, 200),
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_refused_in_the_shape_of_openai(
    served: Served, change: dict[str, Any], status: int
) -> None:
    found, told, _ = post(served, GOOD | change)
    assert found == status, told
    if status != 200:
        assert set(told["error"]) == {"message", "type", "param", "code"}
        assert CANARY not in json.dumps(told)
        assert served.said() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"model": "x", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b"\xff\xfe",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_malformed_bodies_are_refused(served: Served, body: bytes) -> None:
    status, told, _ = post(served, body)
    assert (status, told["error"]["type"]) == (400, "invalid_request_error")
    assert post(served, GOOD)[0] == 200  # and the server goes on


def test_long_body_is_refused_before_it_is_read(serve: Serve) -> None:
    served = serve(max_body_bytes=4096)
    long = json.dumps(GOOD | {"metadata": {"a": "x" * 5000}}).encode()
    assert post(served, long)[0] == 413
    connection = served.connection()
    connection.request(
        "POST",
        "/v1/chat/completions",
        iter([b" " * 1000] * 8),
        {"Authorization": f"Bearer {served.secret}", "Transfer-Encoding": "chunked"},
        encode_chunked=True,
    )
    assert connection.getresponse().status == 413
    assert post(served, GOOD)[0] == 200


@pytest.mark.parametrize("secret", [None, "wrong"], ids=["own key", "wrong key"])
@pytest.mark.parametrize("coding", ["length", "chunks"])
def test_client_that_is_still_sending_reads_why_it_is_refused(serve: Serve, coding: str, secret: str | None) -> None:
    served = serve(max_body_bytes=4096)
    body = b" " * (10 << 20)  # more than the sockets between hold: a reset on the way would cut it off
    headers = {"Authorization": f"Bearer {secret or served.secret}"}
    connection = served.connection()
    if coding == "length":
        connection.request("POST", "/v1/chat/completions", body, headers)
    else:
        pieces = (body[at : at + 65536] for at in range(0, len(body), 65536))
        connection.request("POST", "/v1/chat/completions", pieces, headers, encode_chunked=True)
    assert connection.getresponse().status == (401 if secret else 413)


def test_paths_lead_nowhere_else(served: Served) -> None:
    for path in (
        "/",
        "/v1",
        "/v1/../metrics/..",
        "/v1//models",
        "/v1/chat/completions/",
        "/%2e%2e/etc/passwd",
        "/V1/models",
    ):
        connection = served.connection()
        connection.request("GET", path, headers={"Authorization": f"Bearer {served.secret}"})
        response = connection.getresponse()
        told = response.read()
        assert response.status in (404, 405), path
        assert set(json.loads(told)["error"]) == {"message", "type", "param", "code"}


def test_requests_of_a_key_are_limited(serve: Serve) -> None:
    served = serve(requests_per_minute=3)
    client, other = served.client(), served.client(served.key())
    for _ in range(3):
        client.models.list()
    with pytest.raises(APIStatusError) as caught:
        client.models.list()
    assert (caught.value.status_code, caught.value.code) == (429, "rate_limit_exceeded")
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 21
    other.models.list()


def test_limit_of_requests_holds_nothing_of_keys_that_are_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("locas_agent.server.middleware.time", SimpleNamespace(monotonic=lambda: now))
    limit = RateLimit(2)
    for number in range(300):
        limit.take(f"key {number}")
        limit.take("one that is used all the time")
        now += 30.0
    assert len(limit._buckets) <= 4
    for _ in range(2):
        limit.take("key 0")  # full again
    with pytest.raises(ApiError):
        limit.take("key 0")


def test_store_that_is_away_is_a_503_and_comes_back(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable(f"sqlite:///{CANARY}: cannot be reached")

    for verb in ("append", "known"):
        with monkeypatch.context() as patch:
            patch.setattr(served.agent.store, verb, away)
            status, told, headers = post(served, GOOD)
            assert (status, told["error"]["code"]) == (503, "store_unavailable")
            assert CANARY not in json.dumps(told)
            assert "retry-after" in headers
    with monkeypatch.context() as patch:
        patch.setattr(served.agent.store, "state", away)
        connection = served.connection()
        connection.request("GET", "/health")
        assert connection.getresponse().status == 503
    assert post(served, GOOD)[0] == 200


def test_answer_that_cannot_be_journalled_is_no_answer(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    append, calls = served.agent.store.append, []

    def once(key: UserKey, drafts: Any, **options: Any) -> Any:
        calls.append(key)
        if len(calls) == 2:
            raise StoreUnavailable("gone")
        return append(key, drafts, **options)

    monkeypatch.setattr(served.agent.store, "append", once)
    assert post(served, GOOD)[0] == 503
    assert [role for role, _ in served.said()] == ["user"]
    assert post(served, GOOD)[0] == 200  # the same question again: it is journalled once, and answered
    assert [role for role, _ in served.said()] == ["user", "assistant"]


def test_bug_is_a_500_that_says_nothing(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(served.agent.store, "known", broken)
    with caplog.at_level(logging.INFO, logger="locas_agent"):
        status, told, headers = post(served, GOOD)
    assert (status, told["error"]["type"]) == (500, "server_error")
    assert CANARY not in json.dumps(told)
    wait_for(lambda: any(record.levelno >= logging.ERROR for record in caplog.records))
    (line,) = [vars(record) for record in caplog.records if record.levelno >= logging.ERROR]
    assert (line["reason"], line["request_id"]) == ("RuntimeError", headers["x-request-id"])
    assert CANARY not in str(line)


def test_log_names_requests_and_holds_no_content(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        _, told, headers = post(
            served, GOOD | {"messages": [{"role": "user", "content": CANARY}]}, **{"X-Request-Id": "mine-1"}
        )
        assert headers["x-request-id"] == "mine-1"
        assert post(served, GOOD, **{"X-Request-Id": "not mine\t<b>"})[2]["x-request-id"] != "not mine\t<b>"
        wait_for(lambda: sum(record.message == "request" for record in caplog.records) == 2)
    lines = [json.dumps(vars(record), default=str) for record in caplog.records if record.name.startswith("locas")]
    assert any('"request_id": "mine-1"' in line and '"status": 200' in line for line in lines)
    answer = told["choices"][0]["message"]["content"]
    assert not any(secret in line for line in lines for secret in (CANARY, served.secret, '"ada"', answer))


def test_metrics_count_and_name_nobody(served: Served) -> None:
    post(served, GOOD)
    connection = served.connection()
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    assert 'locas_requests_total{route="/v1/chat/completions",status="200"} 1.0' in text
    assert 'locas_tokens_total{kind="answer"}' in text
    assert "ada" not in text
    assert served.secret[:22] not in text


def test_metrics_can_be_left_out(serve: Serve) -> None:
    connection = serve(shows_metrics=False).connection()
    connection.request("GET", "/metrics")
    assert connection.getresponse().status == 404
