"""Who is let in cannot be changed by what a proxy may add, by half a request, nor found out by the time it takes."""

from __future__ import annotations

import hmac
import json
import socket
from contextlib import closing

import pytest

from tests.unit.server.conftest import MODEL, Served

pytestmark = pytest.mark.rounding

ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 2}
OF_PROXIES = {
    "X-Forwarded-User": "ben",
    "X-Remote-User": "ben",
    "X-User": "ben",
    "Remote-User": "ben",
    "X-Locas-Tenant": "acme",
    "X-Forwarded-For": "127.0.0.1",
    "Forwarded": "for=127.0.0.1;host=evil.example",
    "X-Forwarded-Host": "evil.example",
    "X-Original-URL": "/metrics",
    "X-Rewrite-URL": "/metrics",
    "X-HTTP-Method-Override": "DELETE",
    "OpenAI-Organization": "acme",
}


def test_wrong_keys_take_one_comparison_whatever_is_wrong(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    compare = hmac.compare_digest
    compared: list[tuple[int, int]] = []

    def counted(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr("locas_storage.rules.api_keys.hmac.compare_digest", counted)
    head, tail = served.secret[:-43], served.secret[-43:]
    wrong = (
        head + ("A" if tail[0] != "A" else "B") + tail[1:],
        head + tail[:-1] + ("A" if tail[-1] != "A" else "B"),
        f"locas-{'0' * 16}-{tail}",  # of a key that there is not
    )
    told: set[tuple[int, bytes]] = set()
    for secret in (*wrong, served.secret):
        connection = served.connection()
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {secret}"})
        response = connection.getresponse()
        told.add((response.status, response.read() if secret != served.secret else b""))
    assert compared == [(32, 32)] * 4  # of digests, so that no prefix of a secret is ever compared
    assert sorted(status for status, _ in told) == [200, 401]  # all wrong ones are told the same


def test_headers_of_proxies_name_nobody(served: Served) -> None:
    connection = served.connection()
    for secret, status in ((served.key(user="ada"), 200), (served.secret, 400)):
        headers = OF_PROXIES | {"Authorization": f"Bearer {secret}", "X_Locas_User": "ben"}
        connection.request("POST", "/v1/chat/completions", json.dumps(ASKED), headers)
        response = connection.getresponse()
        told = json.loads(response.read())
        assert response.status == status, told
    assert told["error"]["code"] == "user_required"
    assert [(key.tenant, key.user) for key in served.agent.users()] == [("default", "ada")]


IN_DOUBT = (
    b"Content-Length: 4\r\nContent-Length: 40\r\n",
    b"Content-Length: +4\r\n",
    b"Content-Length: 4, 40\r\n",
    b"Transfer-Encoding: chunked, identity\r\n",
    b"Content-Length : 4\r\n",
    b"X-Locas-User : ben\r\nContent-Length: 4\r\n",
    b"X-Locas-User: a\x00b\r\nContent-Length: 4\r\n",
)


def raw(served: Served, sent: bytes) -> bytes:
    """Return all that comes until the server closes the connection."""
    told = b""
    with closing(socket.create_connection(("127.0.0.1", served.port), timeout=30)) as connection:
        connection.sendall(sent)
        while piece := connection.recv(1 << 16):
            told += piece
    return told


def test_request_whose_end_is_in_doubt_is_refused_with_all_that_follows(served: Served) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + served.secret.encode()
    hidden = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    for lines in IN_DOUBT:
        told = raw(served, head + b"\r\n" + lines + b"\r\n{  }" + hidden)
        assert told.count(b"HTTP/1.1 ") == 1, lines  # what was hidden in the body is no request
        assert told.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501")), lines
    assert served.agent.users() == []


def test_request_that_says_its_length_twice_is_refused_with_all_that_follows(served: Served) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + served.secret.encode()
    body = json.dumps(ASKED | {"user": "ada"}).encode()
    chunked = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    hidden = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    length = f"Content-Length: {len(chunked + hidden)}\r\n".encode()  # a proxy that goes by it sends all of it on
    coding = b"Transfer-Encoding: chunked\r\n"
    for lines in (length + coding, coding + length, coding.lower() + length.upper()):
        told = raw(served, head + b"\r\n" + lines + b"\r\n" + chunked + hidden)
        assert told.count(b"HTTP/1.1 ") == 1, lines
        assert told.startswith(b"HTTP/1.1 400"), lines
        assert b"connection: close" in told.lower()
        assert json.loads(told.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"
    assert served.agent.users() == []
    alone = raw(served, head + b"\r\nConnection: close\r\n" + coding + b"\r\n" + chunked)
    assert alone.startswith(b"HTTP/1.1 200")  # without the length it is a request as any other


def test_paths_of_other_forms_lead_nowhere(served: Served) -> None:
    for target in ("//evil.example/inspect", "http://evil.example/v1/models", "/v1/models/../../metrics"):
        sent = f"GET {target} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        told = raw(served, sent.encode())
        assert told.split(b" ")[1] in (b"401", b"404"), target
        assert b"evil" not in told
        assert b"location" not in told.lower()
