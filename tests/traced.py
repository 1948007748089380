"""Spans as a test sees them: recorded by OpenTelemetry's own SDK, for this test alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from locas_storage import tracing


class Recorded:
    """What was traced."""

    def __init__(self) -> None:
        self.provider = TracerProvider()
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def one(self, name: str) -> ReadableSpan:
        (found,) = self.named(name)
        return found

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def parts(self, whole: ReadableSpan) -> list[str]:
        """Return the names of the spans right below one, in the order in which they ended."""
        return [
            span.name
            for span in self.spans
            if span.parent is not None and whole.context is not None and span.parent.span_id == whole.context.span_id
        ]

    def texts(self) -> str:
        """Return everything that an exporter is handed."""
        return "\n".join(span.to_json() for span in self.spans)


def facts(span: ReadableSpan) -> Mapping[str, object]:
    """Return what a span tells, as a plain mapping."""
    return dict(span.attributes or {})


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    made = Recorded()
    monkeypatch.setattr(tracing, "tracer_in_use", lambda: made.provider.get_tracer(tracing.SCOPE))
    yield made
    made.provider.shutdown()
