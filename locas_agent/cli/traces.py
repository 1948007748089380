"""`--traces`: where the spans of a command go. Importing this loads nothing of OpenTelemetry."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from locas_agent.errors import MissingExtra

TracesOption = Annotated[
    bool,
    typer.Option(
        "--traces/--no-traces",
        help="Send spans, which hold no content, to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names.",
    ),
]


@contextmanager
def sending_traces(is_wanted: bool) -> Iterator[None]:
    """Send the spans of this process to a collector while the block runs, and what is left of them at its end.

    Where to, and how many, is said by OpenTelemetry's own variables of the environment.

    Args:
        is_wanted: whether there are any.

    Raises:
        MissingExtra: OpenTelemetry's SDK or its exporter is not installed.
    """
    if not is_wanted:
        yield
        return
    os.environ.setdefault("OTEL_SERVICE_NAME", "locas-agent")
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise MissingExtra.of("otel", "--traces") from error
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
