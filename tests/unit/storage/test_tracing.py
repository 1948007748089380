"""Spans: what they hold, how they hang together, and that a program without OpenTelemetry knows nothing of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from locas_storage import TurnDraft, UserKey, open_store, tracing
from tests.traced import Recorded, facts
from tests.traced import recorded as recorded

CANARY = "Zorbin-the-canary"
ADA = UserKey("default", CANARY)


def test_blocks_within_a_block_are_its_parts(recorded: Recorded) -> None:
    with tracing.span("whole", {"turns": 3, "unknown": None}) as traced:
        assert len(traced.trace_id or "") == 32
        with tracing.span("part") as part:
            part.note({"items": 2})
    assert recorded.parts(recorded.one("whole")) == ["part"]
    assert facts(recorded.one("whole")) == {"turns": 3}
    assert facts(recorded.one("part")) == {"items": 2}


def test_an_error_is_told_by_the_name_of_its_class_alone(recorded: Recorded) -> None:
    with pytest.raises(ValueError, match=CANARY), tracing.span("broken"):
        raise ValueError(CANARY)
    span = recorded.one("broken")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert facts(span) == {"error.type": "ValueError"}
    assert span.events == ()
    assert CANARY not in recorded.texts()


def test_what_is_written_piece_by_piece_leaves_its_reader_alone(recorded: Recorded) -> None:
    def pieces() -> Iterator[int]:
        with tracing.written("pieces"):
            yield from range(3)

    with tracing.span("reader"):
        reading = pieces()
        assert next(reading) == 0
        with tracing.span("meanwhile"):
            pass
        reading.close()
    assert sorted(recorded.parts(recorded.one("reader"))) == ["meanwhile", "pieces"]
    left = recorded.one("pieces")
    assert facts(left) == {"locas.left": True}
    assert left.status.status_code is StatusCode.UNSET


def test_caller_is_the_parent_and_its_words_are_not_read(recorded: Recorded) -> None:
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with tracing.served("request", traceparent=f"00-{trace}-{span}-01") as traced:
        assert traced.trace_id == trace
    with tracing.served("other", traceparent=CANARY) as traced:
        assert traced.trace_id not in (None, trace)
    kept = recorded.one("request")
    assert kept.kind is SpanKind.SERVER
    assert kept.parent is not None
    assert f"{kept.parent.span_id:016x}" == span
    assert CANARY not in recorded.texts()


def test_store_calls_are_parts_of_what_is_traced_and_nothing_by_themselves(recorded: Recorded, tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'locas.db'}")
    store.append(ADA, [TurnDraft("user", CANARY)])
    assert recorded.spans == ()
    with tracing.span("whole"):
        store.append(ADA, [TurnDraft("user", CANARY)])
        assert len(store.turns(ADA)) == 2
    store.close()
    assert recorded.parts(recorded.one("whole")) == ["locas.store.write", "locas.store.read"]
    assert facts(recorded.one("locas.store.read")) == {"db.system.name": "sqlite"}
    assert CANARY not in recorded.texts()


def test_nothing_is_imported_for_it_and_without_it_a_span_is_nothing() -> None:
    code = """
import sys
import locas_agent
from locas_storage import UserKey, open_store, tracing

store = open_store("sqlite://")
with tracing.span("whole") as traced, tracing.served("request", traceparent="00-x-y-01"):
    assert store.turns(UserKey("default", "ada")) == []
    traced.note({"turns": 1})
    traced.fail("nothing")
    traced.rename("other")
assert traced.trace_id is None
assert not any(name.startswith("opentelemetry") for name in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], env=_paths(), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _paths() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
