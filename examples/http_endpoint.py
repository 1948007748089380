"""An HTTP endpoint that answers with the memory of the user whose key is sent. Standard library alone.

    python examples/http_endpoint.py 8080 s3cret=ada     # then: POST {"messages": [{"role": "user", "content": "Hi."}]}

with `Authorization: Bearer s3cret`. Nobody without a key is answered, and no key reaches another user's memory. The
client keeps the conversation; nothing is journalled. Put a proxy with TLS in front of it.
"""

from __future__ import annotations

import json
import sys
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from locas_agent import AgentMemory, LocasError, UserMemory


def server(memory: AgentMemory, users: dict[str, str], *, port: int) -> ThreadingHTTPServer:
    """Return a server on 127.0.0.1 that is not serving yet; `users` maps secret keys to user names."""

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            user = self.user()
            if user is None:
                return self.send(401, {"error": "send Authorization: Bearer KEY with a key that is known here"})
            try:
                size = min(max(int(self.headers.get("Content-Length") or 0), 0), 1 << 20)
                body = json.loads(self.rfile.read(size))
                answer = user.generate(
                    body["messages"], stop=body.get("stop", ()), max_new_tokens=body.get("max_tokens")
                )
            except (ValueError, KeyError, TypeError, AttributeError, LocasError) as error:
                said = str(error) if isinstance(error, LocasError) else 'expected JSON with "messages"'
                return self.send(400, {"error": said})
            return self.send(200, {"content": answer.text, "finish_reason": answer.finish_reason})

        def user(self) -> UserMemory | None:
            sent = self.headers.get("Authorization", "").removeprefix("Bearer ").encode()
            found = [name for key, name in users.items() if compare_digest(key.encode(), sent)]
            return memory.for_user(found[0]) if found else None

        def send(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Log nothing: a line of a request may hold what somebody said."""

    return ThreadingHTTPServer(("127.0.0.1", port), Endpoint)


if __name__ == "__main__":
    with AgentMemory.load() as loaded:
        server(loaded, dict(pair.split("=", 1) for pair in sys.argv[2:]), port=int(sys.argv[1])).serve_forever()
