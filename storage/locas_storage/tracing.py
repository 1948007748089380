"""Spans for OpenTelemetry: what was done, how long it took, how it ended. Never what was said, never a name.

A program that traces has imported OpenTelemetry itself. In any other a span is nothing, and nothing is imported for it.
"""

from __future__ import annotations

import sys
from asyncio import CancelledError
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

Fact = str | int | float | bool | None
"""What a span tells: a count, a time, a status, a hash. None is left out."""

SCOPE = "locas_agent"
"""What the spans' library is called."""


class TracedSpan:
    """A block that is being traced; without OpenTelemetry it takes facts and drops them.

    Args:
        recording: OpenTelemetry's own span.
    """

    def __init__(self, recording: Span | None) -> None:
        self._recording = recording

    @property
    def trace_id(self) -> str | None:
        """The trace it belongs to, as tools show it; None where nothing is recorded."""
        if self._recording is None or not self._recording.is_recording():
            return None
        return f"{self._recording.get_span_context().trace_id:032x}"

    def note(self, facts: Mapping[str, Fact]) -> None:
        """Add facts."""
        if self._recording is not None:
            self._recording.set_attributes({name: fact for name, fact in facts.items() if fact is not None})

    def rename(self, name: str) -> None:
        """Call it otherwise, once it is known what it is."""
        if self._recording is not None:
            self._recording.update_name(name)

    def fail(self, reason: str) -> None:
        """Mark it as failed.

        Args:
            reason: a word of ours or the name of an error's class; its message may quote what somebody said.
        """
        if self._recording is not None:
            from opentelemetry.trace import Status, StatusCode

            self._recording.set_attribute("error.type", reason)
            self._recording.set_status(Status(StatusCode.ERROR))


@contextmanager
def span(name: str, facts: Mapping[str, Fact] | None = None) -> Iterator[TracedSpan]:
    """Trace a block; what is traced within it is part of it."""
    with _traced(name, facts, is_current=True) as traced:
        yield traced


@contextmanager
def written(name: str, facts: Mapping[str, Fact] | None = None) -> Iterator[TracedSpan]:
    """Trace a block that yields to its caller in the middle, where what is traced next is the caller's own."""
    with _traced(name, facts, is_current=False) as traced:
        yield traced


@contextmanager
def detail(name: str, facts: Mapping[str, Fact] | None = None) -> Iterator[TracedSpan]:
    """Trace a block as part of what is being traced; where nothing is, it is not worth a trace."""
    if not _is_recording():
        yield TracedSpan(None)
        return
    with _traced(name, facts, is_current=True) as traced:
        yield traced


@contextmanager
def served(name: str, *, traceparent: str | None) -> Iterator[TracedSpan]:
    """Trace the answer to a request.

    Args:
        name: of the span.
        traceparent: header that names the span of the caller. Others, in which a caller may send words, are not read.
    """
    with _traced(name, None, is_current=True, parent=_parent(traceparent), kind="SERVER") as traced:
        yield traced


@contextmanager
def _traced(
    name: str,
    facts: Mapping[str, Fact] | None,
    *,
    is_current: bool,
    parent: Context | None = None,
    kind: Literal["INTERNAL", "SERVER"] = "INTERNAL",
) -> Iterator[TracedSpan]:
    tracer = tracer_in_use()
    if tracer is None:
        yield TracedSpan(None)
        return
    from opentelemetry.trace import SpanKind, use_span

    recording = tracer.start_span(
        name, context=parent, kind=SpanKind[kind], record_exception=False, set_status_on_exception=False
    )
    made = TracedSpan(recording)
    made.note(facts or {})
    try:
        if is_current:
            with use_span(recording, record_exception=False, set_status_on_exception=False):
                yield made
        else:
            yield made
    except (GeneratorExit, CancelledError):
        made.note({"locas.left": True})  # whoever asked wants no more of it: no error
        raise
    except BaseException as error:
        made.fail(type(error).__name__)
        raise
    finally:
        recording.end()


def tracer_in_use() -> Tracer | None:
    """Return what records; None in a program that has not imported OpenTelemetry."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry.trace import get_tracer

    return get_tracer(SCOPE)


def _is_recording() -> bool:
    if "opentelemetry.trace" not in sys.modules:
        return False
    from opentelemetry.trace import get_current_span

    return get_current_span().is_recording()


def _parent(traceparent: str | None) -> Context | None:
    if traceparent is None or tracer_in_use() is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})
