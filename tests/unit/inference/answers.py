"""Answers of a running batch as tests read them."""

from __future__ import annotations

from locas_agent.inference.requests import RunningAnswer


def written(answer: RunningAnswer) -> list[int]:
    """The tokens of an answer that is written already."""
    return list(iter(lambda: answer.next_token(0), None))
