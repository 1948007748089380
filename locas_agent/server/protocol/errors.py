"""What goes wrong, in the shape of OpenAI's errors. A message never holds what somebody said, nor a place of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from locas_agent.errors import (
    BackboneError,
    ConfigurationError,
    GenerationTimeout,
    IncompatibleMemory,
    InvalidTurn,
    LocasError,
    RevisionNotFound,
    SchemaOutdated,
    StorageFull,
    StoreUnavailable,
    TurnNotFound,
    TurnTooLong,
    UnknownUser,
    UserErased,
)

JSON_TYPE = "application/json"


class ApiError(LocasError):
    """An error that a client is told of.

    Args:
        status: of HTTP.
        message: what was got, what was expected, and the next step.
        kind: OpenAI's `type`.
        code: a word for programs.
        param: the field of the request that it is about.
        headers: more headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The JSON that is sent."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


_STATUS: tuple[tuple[type[LocasError], int, str | None], ...] = (
    (TurnTooLong, 400, "context_length_exceeded"),
    (TurnNotFound, 409, "turn_forgotten"),
    (RevisionNotFound, 404, "revision_not_found"),
    (UnknownUser, 404, "unknown_user"),
    (UserErased, 410, "user_erased"),
    (IncompatibleMemory, 500, None),
    (ConfigurationError, 400, None),
    (InvalidTurn, 400, None),
    (BackboneError, 400, None),
    (GenerationTimeout, 504, "timeout"),
)
"""Errors of ours whose message is for the client, the more particular first."""

_AWAY = (StoreUnavailable, SchemaOutdated)


def of(error: Exception) -> ApiError:
    """Return what a client is told of an error; of one that is not the client's nothing but that it happened."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, _AWAY):
        return ApiError(
            503,
            "the store cannot be used at the moment; nothing was lost that was acknowledged, try again",
            kind="server_error",
            code="store_unavailable",
            headers={"Retry-After": "2"},
        )
    if isinstance(error, StorageFull):
        return ApiError(
            507,
            "the store has no room left: nothing was lost that was acknowledged, and nothing more is kept until its "
            "operator has made room; then try again",
            kind="server_error",
            code="storage_full",
        )
    for kind, status, code in _STATUS:
        if isinstance(error, kind) and status < 500:
            return ApiError(status, str(error), code=code)
        if isinstance(error, kind) and code is not None:
            return ApiError(status, str(error), kind="server_error", code=code)
    return ApiError(500, "the server failed; its log names the request's id", kind="server_error")


def of_validation(error: ValidationError) -> ApiError:
    """Return what is wrong with the first field of a request that is; its value is not quoted."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    # The kinds of a union stand in the place of names; what a client wrote as a name may be anything.
    place = ".".join(str(part) for part in first["loc"][:3])[:100]
    said = "is no JSON" if first["type"] == "json_invalid" else str(first["msg"]).split(", input_value")[0]
    return ApiError(400, f"the request {f'at {place}: ' if place else ''}{said}", param=place or None)


def unsupported(param: str, expected: str) -> ApiError:
    """Word the error of an option that this server does not have, rather than to ignore it."""
    return ApiError(
        400, f"{param} has a value that this server cannot keep: {expected}", code="unsupported_value", param=param
    )
