"""What the server counts, for Prometheus: requests, times, tokens, the queue. Nothing in it is about one person."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from locas_agent import ChatAnswer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """The counters of one server; two servers in one process share none."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "locas_requests", "Requests that were answered.", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "locas_request_seconds",
            "Time until a request was answered.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._tokens = Counter("locas_tokens", "Tokens of prompts and answers.", ["kind"], registry=self._registry)
        self._lost = Counter(
            "locas_answers_left", "Answers whose client was gone before they ended.", registry=self._registry
        )
        self._waiting = Gauge("locas_waiting_requests", "Requests that wait for an answer.", registry=self._registry)
        self._running = Gauge("locas_running_answers", "Answers that are being written.", registry=self._registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def answer(self, answer: ChatAnswer) -> None:
        """Count the tokens of an answer."""
        self._tokens.labels("prompt").inc(answer.prompt_tokens)
        self._tokens.labels("answer").inc(answer.answer_tokens)

    def left(self) -> None:
        """Count an answer that nobody waited for."""
        self._lost.inc()

    def text(self, *, waiting: int, running: int) -> bytes:
        """Return all of it in the form that Prometheus reads."""
        self._waiting.set(waiting)
        self._running.set(running)
        return generate_latest(self._registry)
