"""What a server and its consolidations tell a tracer: what was done and how it ended, and nothing that anybody said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from opentelemetry.trace import StatusCode

from locas_agent import AgentMemory, Backbone, InMemoryStore, LocasConfig
from tests.traced import Recorded, facts
from tests.traced import recorded as recorded
from tests.unit.server.conftest import MODEL, Serve, Served, wait_for

CANARY = "Zorbin-the-canary"
TRACE = "0af7651916cd43dd8448eb211c80319c"


def told(served: Served, path: str = "/v1/chat/completions", **body: object) -> tuple[int, dict[str, object]]:
    """Send a request in which everything that a client may choose is the canary."""
    headers = {
        "Authorization": f"Bearer {served.secret}",
        "Content-Type": "application/json",
        "User-Agent": CANARY,
        "X-Request-Id": CANARY,
        "X-Locas-Conversation": CANARY,
        "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
        "tracestate": f"canary={CANARY}",
        "baggage": f"canary={CANARY}",
    }
    asked = {"model": MODEL, "user": CANARY, "messages": [{"role": "user", "content": f"I am {CANARY}."}]} | body
    connection = served.connection()
    connection.request("POST", f"{path}?q={CANARY}", body=json.dumps(asked), headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    return answer.status, {} if body.get("stream") else json.loads(text)


def ended(recorded: Recorded, name: str, count: int) -> None:
    wait_for(lambda: len(recorded.named(name)) == count)  # a client has its answer a moment before the span ends


def test_a_request_its_waiting_and_its_answer_hang_together(served: Served, recorded: Recorded) -> None:
    status, answer = told(served)
    ended(recorded, "POST /v1/chat/completions", 1)
    request, written = recorded.one("POST /v1/chat/completions"), recorded.one("locas.generate")
    assert status == 200
    assert f"{request.context.trace_id:032x}" == TRACE  # type: ignore[union-attr]
    parts = recorded.parts(request)
    assert {"locas.wait", "locas.generate", "locas.store.read", "locas.store.write"} <= set(parts)
    assert facts(request)["http.response.status_code"] == 200
    assert facts(request)["locas.user"] == served.agent.for_user(CANARY).key.short_hash
    usage = answer["usage"]
    assert isinstance(usage, dict)
    assert facts(written)["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert facts(written)["gen_ai.usage.output_tokens"] == usage["completion_tokens"]


def test_no_text_and_no_name_is_in_any_span_however_a_request_ends(
    serve: Serve, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve()
    assert told(served)[0] == 200
    assert told(served, stream=True)[0] == 200
    assert told(served, "/v1/responses", input=f"{CANARY}!", messages=None)[0] in (200, 400)
    assert told(served, model=CANARY)[0] == 404
    assert told(served, f"/v1/{quote(CANARY)}")[0] == 404
    assert told(served, temperature=CANARY)[0] == 400
    assert told(served, messages=[{"role": "user", "content": CANARY * 4000}])[0] == 400

    def broken(*_: object, **__: object) -> None:
        raise ValueError(CANARY)

    monkeypatch.setattr(served.agent.chat, "_prompt", broken)
    assert told(served)[0] == 500
    wait_for(lambda: len([span for span in recorded.spans if span.name.startswith("POST")]) == 8)
    assert len(recorded.named("locas.generate")) >= 3
    failed = [span for span in recorded.spans if span.status.status_code is StatusCode.ERROR]
    assert any(facts(span)["error.type"] == "ValueError" for span in failed)
    assert CANARY not in recorded.texts()
    assert served.secret not in recorded.texts()
    assert CANARY in str(served.said(CANARY))  # it was said


def test_stages_of_a_consolidation_are_told_with_counts_alone(backbone: Backbone, recorded: Recorded) -> None:
    settings = {"training": {"objective": "ntp", "max_steps": 2}, "memory": {"width": 2}}
    with AgentMemory(backbone=backbone, store=InMemoryStore(), config=LocasConfig.model_validate(settings)) as memory:
        ada = memory.for_user(CANARY)
        ada.add("user", f"My dog is called {CANARY}, and it likes to swim in the sea.")
        done = ada.consolidate(flush=True)
        ada.recall(f"Who is {CANARY}?")
        ada.reply(f"Hello, {CANARY}.", max_new_tokens=2)
    whole = recorded.one("locas.consolidate")
    assert recorded.parts(whole) == ["locas.study", "locas.train", "locas.admission"]
    assert facts(whole) == {
        "locas.users": 1,
        "locas.turns": 1,
        "locas.admitted": int(done.status == "admitted"),
        "locas.refused": int(done.status == "refused"),
        "locas.not_written": 0,
    }
    assert facts(recorded.one("locas.train")) == {"locas.users": 1, "locas.steps": done.metrics.steps}
    assert facts(recorded.one("locas.reply"))["gen_ai.usage.output_tokens"] in (0, 1, 2)
    assert recorded.named("locas.recall")
    assert CANARY not in recorded.texts()


def test_traces_of_a_command_reach_the_collector_that_its_environment_names(tmp_path: Path) -> None:
    code = """
import os, threading
from http.server import BaseHTTPRequestHandler, HTTPServer

taken = []

class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        taken.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass

server = HTTPServer(("127.0.0.1", 0), Collector)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
os.environ["OTEL_EXPORTER_OTLP_COMPRESSION"] = "none"

from locas_agent.cli.traces import sending_traces
from locas_storage import tracing

with sending_traces(True), tracing.span("locas.example"):
    pass
((path, body),) = taken
assert path == "/v1/traces", path
assert b"locas.example" in body and b"locas-agent" in body, body
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=_paths(), check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def _paths() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
