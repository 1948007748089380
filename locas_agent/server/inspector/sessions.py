"""Who looks at the pages: an API key opens a session; a signed cookie carries it, a token in each form confirms it."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.requests import Request
from starlette.responses import Response

from locas_agent import MemoryHost
from locas_agent.server.protocol.errors import ApiError
from locas_storage import ApiKey

COOKIE = "locas_session"
PATH = "/inspect"
LIFE_SECONDS = 8 * 3600
"""Time after which the key has to be given again."""
TOKEN = "token"
"""Field of every form that changes something."""


@dataclass(frozen=True, slots=True)
class Session:
    """One browser that gave a key.

    Attributes:
        key: the key, still in force.
        token: what its forms send back.
    """

    key: ApiKey
    token: str


class Sessions:
    """Opens, reads and ends sessions. Nothing is kept: the cookie holds the key's id and is signed for this process.

    Args:
        memory: whose keys.
        is_secure: whether browsers send the cookie over TLS alone.
    """

    def __init__(self, memory: MemoryHost, *, is_secure: bool) -> None:
        self._memory = memory
        self._is_secure = is_secure
        self._signer = URLSafeTimedSerializer(
            secrets.token_bytes(32), salt="locas-inspector", signer_kwargs={"digest_method": sha256}
        )

    async def of(self, request: Request) -> Session | None:
        """Return the session of a request; None without one, and once its key was revoked.

        Raises:
            StoreUnavailable: the keys cannot be read.
        """
        try:
            held = self._signer.loads(request.cookies.get(COOKIE, ""), max_age=LIFE_SECONDS)
        except BadSignature:
            return None
        keys = await self._memory.crews.run("journal", self._memory.store.api_keys.keys, held["tenant"])
        found = next((key for key in keys if key.key_id == held["key"] and key.is_in_force), None)
        return None if found is None else Session(found, held["token"])

    def open(self, response: Response, key: ApiKey) -> None:
        """Give a browser a session of its own."""
        held = {"key": key.key_id, "tenant": key.tenant, "token": secrets.token_urlsafe(24)}
        response.set_cookie(
            COOKIE,
            self._signer.dumps(held),
            max_age=LIFE_SECONDS,
            path=PATH,
            secure=self._is_secure,
            httponly=True,
            samesite="strict",
        )

    def end(self, response: Response) -> None:
        """Have a browser forget its session."""
        response.delete_cookie(COOKIE, path=PATH, secure=self._is_secure, httponly=True, samesite="strict")


def check_origin(request: Request) -> None:
    """Refuse a form that was sent from another site's page.

    Raises:
        ApiError: the browser says so.
    """
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "same-origin")
    host = request.headers.get("host", "")
    is_other = origin is not None and origin != "null" and urlsplit(origin).netloc != host
    if is_other or origin == "null" or site not in ("same-origin", "none"):
        raise ApiError(403, "the form was sent from another page than this server's own", code="cross_site")


def check_token(session: Session, sent: str) -> None:
    """Refuse a form that this session was not given.

    Raises:
        ApiError: its token is another.
    """
    if not hmac.compare_digest(session.token.encode(), sent.encode()):
        raise ApiError(403, "the form is not one of this session: open the page again", code="csrf")
