"""The pages over plain HTTP: who sees which, what a form needs, and that nothing that was said becomes markup."""

from __future__ import annotations

import io
import json
import re
import zipfile
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlencode

import pytest

from locas_agent import AgentMemory
from locas_storage import UserKey
from tests.conftest import MakeMemory
from tests.unit.server.conftest import Served, taught

pytestmark = pytest.mark.rounding

XSS = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}"
ADA = UserKey("default", "ada")


class Browser:
    """What a browser does of which these tests need something: a cookie, forms, and where a response leads."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.cookie = ""
        self.flags = ""

    def send(self, method: str, path: str, form: dict[str, Any] | None = None, **headers: str) -> tuple[int, str]:
        connection = self._served.connection()
        given = {"Cookie": self.cookie, "Content-Type": "application/x-www-form-urlencoded"} | headers
        connection.request(method, path, None if form is None else urlencode(form), given)
        self.response: HTTPResponse = connection.getresponse()
        text = self.response.read().decode()
        if (cookie := self.response.headers.get("Set-Cookie")) is not None:
            self.cookie, _, self.flags = cookie.partition(";")
        return self.response.status, text

    def get(self, path: str) -> tuple[int, str]:
        return self.send("GET", path)

    def log_in(self, secret: str) -> Browser:
        assert self.send("POST", "/inspect/login", {"key": secret})[0] == 303
        return self

    def token(self, path: str) -> str:
        return re.findall(r'name="token" value="([^"]+)"', self.get(path)[1])[0]


@pytest.fixture
def ada(served: Served, agent: AgentMemory, make_memory: MakeMemory) -> str:
    """Ada, who said something wicked, with a memory; her page."""
    handle = agent.for_user("ada")
    handle.add("user", XSS, name=XSS[:150])
    taught(agent, make_memory(1, on=agent.backbone), "ada")
    handle.add("user", "Something more.")
    return f"/inspect/{ADA.digest}"


def test_person_sees_the_own_pages_and_no_others(served: Served, ada: str) -> None:
    served.agent.for_user("ben").add("user", "I am Ben.")
    browser = Browser(served).log_in(served.key(user="ada"))
    assert browser.get("/inspect")[0] == 303
    assert browser.response.headers["Location"] == ada
    for page in ("", "/turns", "/ask", "/revisions", "/refusals"):
        status, text = browser.get(ada + page)
        assert status == 200
        assert 'aria-current="page"' in text
    for who in (UserKey("default", "ben").digest, UserKey("acme", "ada").digest, "ada", "0" * 64):
        status, text = browser.get(f"/inspect/{who}/turns")
        assert (status, "Ben" in text) == (404, False)


def test_operator_sees_the_users_of_the_own_tenant(served: Served, ada: str) -> None:
    served.agent.for_user("carl", tenant="acme").add("user", "I am Carl.")
    browser = Browser(served).log_in(served.secret)
    status, text = browser.get("/inspect")
    assert (status, "ada" in text, "carl" in text) == (200, True, False)
    assert browser.get(f"/inspect/{UserKey('acme', 'carl').digest}")[0] == 404
    other = Browser(served).log_in(served.key("acme"))
    assert "carl" in other.get("/inspect")[1]
    assert other.get(ada)[0] == 404


@pytest.mark.parametrize("cookie", ["", "locas_session=", "locas_session=abc", "locas_session=eyJrZXkiOiJ4In0.a.b"])
def test_nobody_sees_a_page_without_a_session(served: Served, ada: str, cookie: str) -> None:
    browser = Browser(served)
    for method, page in (
        ("GET", ""),
        ("GET", "/archive.zip"),
        ("GET", "/memory"),
        ("POST", "/forget"),
        ("POST", "/erase"),
    ):
        browser.cookie = cookie
        status, text = browser.send(method, ada + page, {"turn": "1"} if method == "POST" else None)
        assert (status, browser.response.headers["Location"], text) == (303, "/inspect/login", "")
    assert browser.send("POST", "/inspect/login", {"key": "locas-0000000000000000-" + "A" * 43})[0] == 401
    assert not browser.response.headers.get("Set-Cookie")
    assert len(served.said()) == 2


def test_cookie_is_out_of_reach_and_altered_ones_are_refused(served: Served, ada: str) -> None:
    browser = Browser(served).log_in(served.key(user="ada"))
    assert {"HttpOnly", "SameSite=strict", "Path=/inspect"} <= {flag.strip() for flag in browser.flags.split(";")}
    assert served.secret not in browser.cookie
    good = browser.cookie
    assert browser.get(ada)[0] == 200
    name, _, value = good.partition("=")
    for altered in (value[:-2] + ("AA" if value[-2:] != "AA" else "BB"), "x" + value, value.split(".")[0]):
        browser.cookie = f"{name}={altered}"
        assert browser.get(ada)[0] == 303


def test_revoked_key_ends_its_sessions(served: Served, ada: str) -> None:
    made = served.agent.store.api_keys.new("default", "ada")
    browser = Browser(served).log_in(made.secret)
    assert browser.get(ada)[0] == 200
    served.agent.store.api_keys.revoke(made.key.key_id)
    assert browser.get(ada)[0] == 303


def test_forms_of_other_pages_change_nothing(served: Served, ada: str) -> None:
    browser, other = Browser(served).log_in(served.secret), Browser(served).log_in(served.secret)
    token, foreign = browser.token(ada), other.token(ada)
    assert token != foreign
    acts: dict[str, dict[str, str]] = {
        "/forget": {"turn": "1"},
        "/correct": {"turn": "1", "text": "x"},
        "/rollback": {"revision": "0"},
        "/consolidate": {},
        "/erase": {"confirm": "erase"},
        "/ask": {"question": "x"},
    }
    before = served.said(), len(served.agent.store.revisions(ADA))
    for act, form in acts.items():
        for sent in ("", "x", foreign):
            assert browser.send("POST", ada + act, form | {"token": sent})[0] == 403
        for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
            assert browser.send("POST", ada + act, form | {"token": token}, **headers)[0] == 403
        if act != "/ask":
            assert browser.send("GET", f"{ada}{act}?{urlencode(form | {'token': token})}")[0] == 405
    assert browser.send("POST", "/inspect/logout", {"token": foreign})[0] == 403
    assert browser.send("POST", "/inspect/login", {"key": served.secret}, Origin="https://evil.example")[0] == 403
    assert (served.said(), len(served.agent.store.revisions(ADA))) == before


def test_what_was_said_is_shown_and_is_no_markup(served: Served, ada: str) -> None:
    served.agent.for_user(XSS).add("user", "x")
    browser = Browser(served).log_in(served.secret)
    token = browser.token(ada)
    asked = browser.send("POST", f"{ada}/ask", {"question": XSS, "token": token})
    users = browser.get("/inspect")
    for status, text in (browser.get(f"{ada}/turns"), asked, users, browser.get(f"{ada}/turns?done={XSS[:8]}")):
        assert status == 200
        assert "<script" not in text
        assert "<img" not in text
        assert " style=" not in text
        assert not re.search(r'(src|href)="(?!/inspect|#)', text)
    assert "&lt;script&gt;" in asked[1] + users[1]
    assert "{{ 7 * 7 }}" in users[1]


def test_every_page_has_a_strict_policy(served: Served, ada: str) -> None:
    browser = Browser(served).log_in(served.secret)
    for path in ("/inspect", ada, f"{ada}/turns", f"{ada}/ask", "/inspect/login", f"{ada}x"):
        browser.get(path)
        headers = browser.response.headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "script-src" not in headers["Content-Security-Policy"]
        assert (headers["Cache-Control"], headers["X-Frame-Options"]) == ("no-store", "DENY")
        assert headers["X-Content-Type-Options"] == "nosniff"
    browser.get("/inspect/style.css")
    assert browser.response.headers["Content-Type"].startswith("text/css")


def test_everything_is_taken_along_as_one_archive(served: Served, ada: str) -> None:
    browser = Browser(served).log_in(served.key(user="ada"))
    assert f'href="{ada}/archive.zip"' in browser.get(ada)[1]
    connection = served.connection()
    connection.request("GET", f"{ada}/archive.zip", headers={"Cookie": browser.cookie})
    response = connection.getresponse()
    content = response.read()
    assert (response.status, response.headers["Content-Type"]) == (200, "application/zip")
    assert response.headers["Content-Disposition"].startswith("attachment")
    assert response.headers["Cache-Control"] == "no-store"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        turns = [json.loads(line) for line in archive.read("turns.jsonl").decode().splitlines()]
        assert [turn["content"] for turn in turns] == [text for _, text in served.said()]
        assert "memories/1.safetensors" in archive.namelist()
    assert [entry.action for entry in served.agent.store.audit(ADA)].count("export") == 1


def test_who_said_nothing_has_nothing_to_take_along(served: Served) -> None:
    browser = Browser(served).log_in(served.key(user="carl"))
    carl = f"/inspect/{UserKey('default', 'carl').digest}"
    assert "archive.zip" not in browser.get(carl)[1]
    assert browser.get(f"{carl}/archive.zip")[0] == 404


def test_turn_is_corrected_and_another_forgotten(served: Served, ada: str) -> None:
    browser = Browser(served).log_in(served.key(user="ada"))
    token = browser.token(ada)
    assert browser.send("POST", f"{ada}/correct", {"turn": "1", "text": "I live in Oslo.", "token": token})[0] == 303
    assert [text for _, text in served.said()] == ["Something more.", "I live in Oslo."]
    assert "corrected" in browser.get(str(browser.response.headers["Location"]))[1]
    assert browser.send("POST", f"{ada}/forget", {"turn": "2", "token": token})[0] == 303
    assert [text for _, text in served.said()] == ["I live in Oslo."]
    for wrong in ("99", "-1", "x", "", "1" * 40, "²"):
        status, text = browser.send("POST", f"{ada}/forget", {"turn": wrong, "token": token})
        assert status in (400, 409)
        assert 'role="alert"' in text


def test_memory_is_taken_along_rolled_back_and_erased(served: Served, ada: str) -> None:
    browser = Browser(served).log_in(served.key(user="ada"))
    token = browser.token(ada)
    connection = served.connection()
    connection.request("GET", f"{ada}/memory", headers={"Cookie": browser.cookie})
    assert len(connection.getresponse().read()) > 1000
    assert browser.send("POST", f"{ada}/rollback", {"revision": "0", "token": token})[0] == 303
    revision = served.agent.store.revision(ADA)
    assert revision is not None
    assert not revision.has_payload
    assert browser.send("POST", f"{ada}/consolidate", {"token": token})[0] == 303
    assert [job.key for job in served.agent.store.queue.jobs()] == [ADA]
    assert browser.send("POST", f"{ada}/erase", {"token": token, "confirm": "yes"})[0] == 400
    assert served.said()
    status, text = browser.send("POST", f"{ada}/erase", {"token": token, "confirm": "erase"})
    assert (status, "is erased" in text) == (200, True)
    assert served.agent.users() == []
    assert browser.get(ada)[0] == 303  # the key that stood for her is gone as well


def test_answers_with_and_without_the_memory_stand_side_by_side(served: Served, ada: str) -> None:
    browser = Browser(served).log_in(served.secret)
    question = "Where do I live?"
    status, text = browser.send("POST", f"{ada}/ask", {"question": question, "token": browser.token(ada)})
    assert status == 200
    recall = served.agent.for_user("ada").recall(question)
    assert f"log-probability {recall.logprob:.2f}, without it {recall.logprob_without:.2f}" in text
    assert text.count('<tr><th scope="row" class="said">') == len(
        served.agent.for_user("ada").explain(recall.answer, question=question).tokens
    )
    assert len(served.said()) == 2  # nothing of it is kept
    assert [key.user for key in served.agent.users()] == ["ada"]


def test_logging_out_ends_the_session(served: Served, ada: str) -> None:
    browser = Browser(served).log_in(served.secret)
    assert browser.send("POST", "/inspect/logout", {"token": browser.token(ada)})[0] == 303
    assert browser.get(ada)[0] == 303
