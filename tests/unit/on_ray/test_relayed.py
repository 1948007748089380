"""A request on its way to a replica: its name tells nobody who asks, and the same response is asked for once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.requests import Request

from locas_ray.relayed import RelayedRequest


def relayed(
    body: Any, headers: Mapping[str, str] | None = None, *, path: str = "/v1/chat/completions", method: str = "POST"
) -> RelayedRequest:
    sent = {"Authorization": "Bearer secret"} if headers is None else headers
    raw = [(name.lower().encode(), value.encode()) for name, value in sent.items()]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"a=1", "headers": raw}
    return RelayedRequest.of(Request(scope), body if isinstance(body, bytes) else json.dumps(body).encode())


def test_users_have_names_of_their_own_and_keep_them() -> None:
    ada, ben = relayed({"user": "ada"}).routing_name, relayed({"user": "ben"}).routing_name
    assert ada != ben
    assert ada == relayed({"user": "ada", "messages": [{"role": "user", "content": "Hello."}]}).routing_name
    assert ada == relayed({"safety_identifier": "ada"}).routing_name  # the newer field for the same
    assert ada != relayed({"user": "ada"}, {"Authorization": "Bearer other"}).routing_name
    assert "" not in (ada, ben)


def test_a_header_may_name_the_user() -> None:
    def named(user: str) -> str:
        return relayed({}, {"Authorization": "Bearer secret", "X-Locas-User": user}).routing_name

    assert named("ada") == named("ada") != named("ben")


def test_name_tells_neither_key_nor_user() -> None:
    asked = relayed({"user": "ada"})
    assert not {"ada", "secret"} & {asked.routing_name[at : at + n] for n in (3, 6) for at in range(16)}
    assert "secret" not in repr(asked)
    assert "ada" not in repr(asked)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"user": 3}', b"[" * 100_000])
def test_what_is_no_request_has_a_name_all_the_same(body: bytes) -> None:
    assert relayed(body).routing_name  # the replica refuses it


def test_who_sends_no_key_is_anybody() -> None:
    assert relayed({"user": "ada"}, {}).routing_name == ""


def test_response_without_a_key_is_given_one() -> None:
    keys = [dict(relayed({}, path="/v1/responses").headers).get(b"idempotency-key") for _ in range(2)]
    assert keys[0] is not None
    assert keys[0] != keys[1]
    given = relayed({}, {"Authorization": "Bearer secret", "Idempotency-Key": "mine"}, path="/v1/responses")
    assert [value for name, value in given.headers if name == b"idempotency-key"] == [b"mine"]
    assert b"idempotency-key" not in dict(relayed({}).headers)  # a chat is known by what was said
    assert b"idempotency-key" not in dict(relayed({}, path="/v1/responses", method="GET").headers)


def test_application_is_given_the_request_as_it_came() -> None:
    scope = relayed({"user": "ada"}, {"X-Locas-User": "ada"}).scope()
    assert (scope["method"], scope["path"], scope["query_string"]) == ("POST", "/v1/chat/completions", b"a=1")
    assert Request(scope).headers["x-locas-user"] == "ada"
