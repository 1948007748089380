"""The routes of the pages. A key of a person opens this person's; one of a tenant opens those of its users."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from locas_agent import MemoryHost, UserKey, UserMemory
from locas_agent.errors import LocasError
from locas_agent.server.inspector import views
from locas_agent.server.inspector.sessions import PATH, TOKEN, Session, Sessions, check_origin, check_token
from locas_agent.server.middleware import RateLimit, facts_of
from locas_agent.server.protocol import errors
from locas_agent.server.protocol.errors import ApiError
from locas_agent.server.requests import read_body
from locas_agent.server.settings import ServerSettings

_HERE = Path(__file__).parent
_STYLE = (_HERE / "style.css").read_bytes()
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # with no-referrer browsers send forms with the origin "null"
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
_MOST_FIELDS = 16
_PIECE_BYTES = 1 << 20

Form = dict[str, str]
Page = Callable[[Request, Session], Awaitable[Response]]
Act = Callable[[UserMemory, Form], str]


class Inspector:
    """The pages.

    Args:
        memory: whose users.
        settings: bounds of what is sent.
    """

    def __init__(self, memory: MemoryHost, settings: ServerSettings) -> None:
        self._memory = memory
        self._settings = settings
        self._rate = RateLimit(settings.requests_per_minute)
        self._asking = asyncio.Semaphore(settings.answers_at_once)
        self._questions = 0
        self._sessions = Sessions(memory, is_secure=settings.secure_cookies)
        self._pages = Environment(
            loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )

    def routes(self) -> list[BaseRoute]:
        """Return the routes, all below /inspect."""
        of = f"{PATH}/{{who}}"
        return [
            Route(f"{PATH}/style.css", self.style, methods=["GET"]),
            Route(f"{PATH}/login", self._open(self.login), methods=["GET", "POST"]),
            Route(f"{PATH}/logout", self._known(self.logout), methods=["POST"]),
            Route(PATH, self._known(self.start), methods=["GET"]),
            Route(of, self._known(self.overview), methods=["GET"]),
            Route(f"{of}/turns", self._known(self.turns), methods=["GET"]),
            Route(f"{of}/revisions", self._known(self.revisions), methods=["GET"]),
            Route(f"{of}/refusals", self._known(self.refusals), methods=["GET"]),
            Route(f"{of}/ask", self._known(self.ask), methods=["GET", "POST"]),
            Route(f"{of}/archive.zip", self._known(self.download_archive), methods=["GET"]),
            Route(f"{of}/memory", self._known(self.download_memory), methods=["GET"]),
            Route(f"{of}/forget", self._known(self._act(_forget, "turns")), methods=["POST"]),
            Route(f"{of}/correct", self._known(self._act(_correct, "turns")), methods=["POST"]),
            Route(f"{of}/rollback", self._known(self._act(_rollback, "revisions")), methods=["POST"]),
            Route(f"{of}/consolidate", self._known(self._act(_consolidate, "")), methods=["POST"]),
            Route(f"{of}/erase", self._known(self._act(_erase, "")), methods=["POST"]),
        ]

    # Around every page

    def _open(self, page: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """Return a page that shows what goes wrong as a page."""

        async def shown(request: Request) -> Response:
            try:
                return await page(request)
            except LocasError as error:
                told = errors.of(error)
                return self._page("error.html", None, status=told.status, told=str(told))

        return shown

    def _known(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        """Return a page that only somebody with a session sees."""

        async def shown(request: Request) -> Response:
            session = await self._sessions.of(request)
            if session is None:
                return _to(f"{PATH}/login")
            facts_of(request).key_id = session.key.key_id
            self._rate.take(session.key.key_id)
            return await page(request, session)

        return self._open(shown)

    async def _form(self, request: Request) -> Form:
        """Return the fields of a form that one of these pages sent."""
        check_origin(request)
        body = await read_body(request, self._settings)
        try:
            fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError:
            raise ApiError(400, f"expected a form of at most {_MOST_FIELDS} fields") from None
        return {name: values[-1].replace("\r\n", "\n") for name, values in fields.items()}

    async def _user(self, request: Request, session: Session) -> UserMemory:
        """Return the user whose page it is; in a path a user is a digest, since names are nobody's business there."""
        who, key = request.path_params["who"], session.key
        if key.user is not None:
            keys = [UserKey(key.tenant, key.user)]
        else:
            keys = await self._run(lambda: self._memory.users(tenant=key.tenant))
        found = next((one for one in keys if one.digest == who), None)
        if found is None:
            raise ApiError(404, "there is nobody here, or nobody whom your key may see")
        facts_of(request).user = found.short_hash
        return self._memory.for_user(found.user, tenant=found.tenant)

    def _page(self, template: str, session: Session | None, *, status: int = 200, **shown: Any) -> Response:
        text = self._pages.get_template(template).render(session=session, path=PATH, **shown)
        return HTMLResponse(text, status_code=status, headers=_HEADERS)

    async def _run(self, call: Callable[[], Any]) -> Any:
        return await self._memory.crews.run("journal", call)

    def _of_user(self, template: str, session: Session, user: UserMemory, **shown: Any) -> Response:
        return self._page(template, session, user=user.key.user, base=f"{PATH}/{user.key.digest}", **shown)

    # Coming and going

    async def style(self, _: Request) -> Response:
        """Return the style sheet."""
        return Response(_STYLE, media_type="text/css", headers=_HEADERS | {"Cache-Control": "max-age=3600"})

    async def login(self, request: Request) -> Response:
        """Ask for a key, and open a session with it."""
        if request.method == "GET":
            return self._page("login.html", None, is_wrong=False)
        form = await self._form(request)
        key = await self._run(lambda: self._memory.store.api_keys.holder(form.get("key", "").strip()))
        if key is None:
            return self._page("login.html", None, status=401, is_wrong=True)
        facts_of(request).key_id = key.key_id
        response = _to(PATH)
        self._sessions.open(response, key)
        return response

    async def logout(self, request: Request, session: Session) -> Response:
        """End the session."""
        check_token(session, (await self._form(request)).get(TOKEN, ""))
        response = _to(f"{PATH}/login")
        self._sessions.end(response)
        return response

    async def start(self, _: Request, session: Session) -> Response:
        """Show a person the own page, and an operator the users of the tenant."""
        key = session.key
        if key.user is not None:
            return _to(f"{PATH}/{UserKey(key.tenant, key.user).digest}")

        def listed() -> list[Any]:
            keys = self._memory.users(tenant=key.tenant)
            return [(one, self._memory.store.state(one)) for one in keys]

        return self._page("users.html", session, users=await self._run(listed), tenant=key.tenant)

    # What there is

    async def overview(self, request: Request, session: Session) -> Response:
        """Show what there is of a user."""
        user = await self._user(request, session)
        facts = await self._run(lambda: views.overview(self._memory, user))
        return self._of_user("overview.html", session, user, facts=facts, done=request.query_params.get("done", ""))

    async def turns(self, request: Request, session: Session) -> Response:
        """Show what was said, and what was learnt of it."""
        user = await self._user(request, session)
        asked = request.query_params.get("before", "")
        before = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 18 else None
        shown = await self._run(lambda: views.turn_page(self._memory, user, before=before))
        return self._of_user("turns.html", session, user, shown=shown, done=request.query_params.get("done", ""))

    async def revisions(self, request: Request, session: Session) -> Response:
        """Show which memories there are, with their figures."""
        user = await self._user(request, session)
        found = await self._run(user.revisions)
        shown = {"revisions": found[::-1], "plots": views.plots(found), "done": request.query_params.get("done", "")}
        return self._of_user("revisions.html", session, user, **shown)

    async def refusals(self, request: Request, session: Session) -> Response:
        """Show what was refused, and why."""
        user = await self._user(request, session)
        found = await self._run(lambda: views.refusals(self._memory, user))
        jobs = await self._run(lambda: views.jobs(self._memory, user))
        return self._of_user("refusals.html", session, user, refusals=found, jobs=jobs)

    async def ask(self, request: Request, session: Session) -> Response:
        """Ask with the memory and without it."""
        user = await self._user(request, session)
        asked = None
        if request.method == "POST":
            form = await self._form(request)
            check_token(session, form.get(TOKEN, ""))
            asked = await self._asked(user, form.get("question", ""))
        return self._of_user("ask.html", session, user, asked=asked)

    async def _asked(self, user: UserMemory, question: str) -> views.AskedBoth:
        """Have a question answered in its turn.

        Raises:
            ApiError: too many wait already.
        """
        if self._questions > self._settings.waiting_answers:
            raise ApiError(429, "many questions wait for their answers: ask again in a moment", code="queue_full")
        self._questions += 1
        try:
            async with self._asking:
                return await self._memory.crews.run("answers", views.ask, self._memory, user, question)
        finally:
            self._questions -= 1

    async def download_archive(self, request: Request, session: Session) -> Response:
        """Send everything that is kept of the user as one archive."""
        user = await self._user(request, session)
        archive, size = await self._run(lambda: _archived(user))
        headers = _HEADERS | _attached("archive.zip") | {"Content-Length": str(size)}
        return StreamingResponse(_pieces(archive), media_type="application/zip", headers=headers)

    async def download_memory(self, request: Request, session: Session) -> Response:
        """Send the current memory as a portable file."""
        user = await self._user(request, session)

        def exported() -> bytes:
            with tempfile.TemporaryDirectory(prefix="locas-export-") as folder:
                return user.export(Path(folder) / "memory.safetensors", form="memory").read_bytes()

        content = await self._memory.crews.run("answers", exported)
        return Response(
            content, media_type="application/octet-stream", headers=_HEADERS | _attached("memory.safetensors")
        )

    # What can be done

    def _act(self, act: Act, page: str) -> Page:
        """Return a page that does something and goes back to one that shows it."""

        async def done(request: Request, session: Session) -> Response:
            user = await self._user(request, session)
            form = await self._form(request)
            check_token(session, form.get(TOKEN, ""))
            said = await self._run(lambda: act(user, form))
            if said == "erased":
                return self._page("erased.html", session, user=user.key.user)
            return _to(f"{PATH}/{user.key.digest}{f'/{page}' if page else ''}?done={said}")

        return done


def _archived(user: UserMemory) -> tuple[BinaryIO, int]:
    """Return the archive of a user, and its bytes: an open file that has no name any more, gone once it is closed."""
    with tempfile.TemporaryDirectory(prefix="locas-export-") as folder:
        place = user.archive(Path(folder) / "archive.zip")
        return place.open("rb"), place.stat().st_size


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _forget(user: UserMemory, form: Form) -> str:
    user.forget(_number(form, "turn"), wait=False)
    return "forgotten"


def _correct(user: UserMemory, form: Form) -> str:
    user.correct(_number(form, "turn"), form.get("text", ""), wait=False)
    return "corrected"


def _rollback(user: UserMemory, form: Form) -> str:
    user.rollback(_number(form, "revision"))
    return "rolled-back"


def _consolidate(user: UserMemory, _: Form) -> str:
    return user.consolidate(flush=True, wait=False).status


def _erase(user: UserMemory, form: Form) -> str:
    if form.get("confirm", "") != "erase":
        raise ApiError(400, "nothing was erased: type the word erase to confirm it")
    user.erase()
    return "erased"


def _number(form: Form, name: str) -> int:
    value = form.get(name, "")
    if not (value.isascii() and value.isdigit() and len(value) < 18):
        raise ApiError(400, f"{name}: expected a number")
    return int(value)


def _to(place: str) -> Response:
    return RedirectResponse(place, status_code=303, headers={"Cache-Control": "no-store"})


def _attached(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}
