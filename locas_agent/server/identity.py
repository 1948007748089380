"""Who calls: an API key says for which tenant, and the request which of its users, unless the key says that too.

Nobody is answered from a memory that is not named: there is no user who stands for all that name none.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.datastructures import Headers

from locas_agent import MemoryHost, UserKey
from locas_agent.server.protocol.errors import ApiError
from locas_storage import ApiKey, InvalidTurn

USER_HEADER = "X-Locas-User"
"""Names the user for clients that cannot put one into the body."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and whose memory answers.

    Attributes:
        key: the API key that was sent.
        user: whose memory.
    """

    key: ApiKey
    user: UserKey


async def key_of(headers: Headers, memory: MemoryHost) -> ApiKey:
    """Return the API key of a request.

    Raises:
        ApiError: there is none, several, or one that is not in force.
        StoreUnavailable: the keys cannot be read.
    """
    sent = headers.getlist("authorization")
    scheme, _, secret = (sent[0] if len(sent) == 1 else "").partition(" ")
    found = None
    if scheme.lower() == "bearer":
        found = await memory.crews.run("journal", memory.store.api_keys.holder, secret.strip(" "))
    if found is None:
        raise ApiError(
            401,
            "no API key that is in force was sent: expected one header `Authorization: Bearer KEY`, with a key of "
            "`locas-agent keys api new`",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return found


def caller_of(key: ApiKey, headers: Headers, *, safety_identifier: str | None, user: str | None) -> Caller:
    """Return whose memory answers a request.

    Args:
        key: of the request.
        headers: of the request; `X-Locas-User` may name the user.
        safety_identifier: of the body.
        user: of the body; OpenAI's older name for the same.

    Raises:
        ApiError: nobody is named, two different users are, or another one than the key stands for.
    """
    given = {"safety_identifier": safety_identifier, "user": user}
    named = [name for name in (*given.values(), *headers.getlist(USER_HEADER)) if name is not None]
    if key.user is None and not named:
        raise ApiError(
            400,
            f"the request names no user: send `safety_identifier`, `user` or the header {USER_HEADER}, or use a key "
            "that stands for one user; there is no memory for everybody",
            code="user_required",
            param="safety_identifier",
        )
    if len(set(named)) > 1:
        raise ApiError(
            400,
            f"the request names {len(set(named))} different users, in `safety_identifier`, `user` and {USER_HEADER}: "
            "name one",
            code="user_ambiguous",
            param="safety_identifier",
        )
    if key.user is not None and named and named[0] != key.user:
        raise ApiError(
            403, "the API key stands for another user than the request names", code="user_mismatch", kind="forbidden"
        )
    try:
        return Caller(key, UserKey(key.tenant, named[0] if key.user is None else key.user))
    except InvalidTurn as error:
        raise ApiError(400, str(error), code="user_invalid", param="safety_identifier") from error
