"""Who calls: over HTTP the user whom an API key of the store stands for, over stdio the one named to the process.

A key that stands for a whole tenant names nobody and is refused, since no argument may name somebody either.
"""

from __future__ import annotations

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken

from locas_agent.errors import ConfigurationError
from locas_agent.fleet import MemoryHost
from locas_agent.user import UserMemory

_TENANT = "tenant"


class KeyVerifier:
    """Accepts the API keys of one store that stand for a user.

    Args:
        memory: whose store has the keys.
    """

    def __init__(self, memory: MemoryHost) -> None:
        self._memory = memory

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return whom a secret stands for, None where it is of no key in force that names a user."""
        key = await self._memory.crews.run("journal", self._memory.store.api_keys.holder, token)
        if key is None or key.user is None:
            return None
        return AccessToken(token=token, client_id=key.key_id, scopes=[], subject=key.user, claims={_TENANT: key.tenant})


def by_token(memory: MemoryHost) -> UserMemory:
    """Return the memory of the user whose key the request that is being answered was sent with.

    Raises:
        ConfigurationError: the request carried none; the server refuses such a request before.
    """
    token = get_access_token()
    if token is None or token.subject is None or token.claims is None:
        raise ConfigurationError("the request names nobody: expected an API key that stands for a user")
    return memory.for_user(token.subject, tenant=str(token.claims[_TENANT]))
