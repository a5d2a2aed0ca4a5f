"""The relay's pages and the stock operator's endpoints, over HTTP.

Where the stock operator trips, this does not: a wrong ``start`` is an error and no panic, another site's pages get
nothing, and what is asked for must be allowed to whoever asks.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from aiohttp import web

from cfctl.control.operations import Role
from cfctl.errors import CfctlError, NoSuchDevice, NotAllowed, NotRunning, RelayBusy, TokenRefused, UsageError
from cfctl.relay.web import access, brought, sessions
from cfctl.relay.web.adb import tunnel
from cfctl.relay.web.ports import owner_of
from cfctl.wire import webrtc_messages as messages
from cfctl.wire.webrtc_messages import MalformedMessage, decode

if TYPE_CHECKING:
    from pathlib import Path

    from cfctl.relay.audit import Audit
    from cfctl.relay.caller import Caller
    from cfctl.relay.connection import Connection
    from cfctl.relay.screens import Screen, Screens
    from cfctl.relay.tunnel import Resolver
    from cfctl.relay.web.access import Access
    from cfctl.relay.web.console import Consoles

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: Nothing inline, nothing from elsewhere; a device's own pages have inline code, and come with a policy of their own.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "media-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

#: Files of the page, and what they are; nothing else is served.
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

_STATUS: list[tuple[type[CfctlError], int]] = [
    (TokenRefused, 401),
    (NotAllowed, 403),
    (NoSuchDevice, 404),
    (RelayBusy, 429),
    (UsageError, 400),
]

#: Bodies of requests: the longest is a session description.
_LONGEST_BODY = messages.LONGEST_RECORD

_PICTURE_S = 8.0

_CALLER = "cfctl.caller"

#: The connection that a request comes over.
_CONNECTION = "cfctl.connection"


class Web:
    """The pages of one relay.

    :param connection: returns a connection of the front's by its name: nobody comes in another way.
    :param ways: finds the way to a device's adb.
    :param config: returns STUN and TURN as one caller is told them, and whether he is to use nothing but TURN.
    """

    def __init__(
        self,
        *,
        connection: Callable[[str], Connection | None],
        access: Access,
        screens: Screens,
        consoles: Consoles,
        ways: Resolver,
        config: Callable[[Caller], tuple[messages.Config, bool]],
        audit: Audit,
        secure: bool,
    ) -> None:
        self._connection = connection
        self._access = access
        self._screens = screens
        self._consoles = consoles
        self._ways = ways
        self._config = config
        self._audit = audit
        self._secure = secure
        self._polled = sessions.PolledClients(screens)
        self._page = resources.files("cfctl.relay.web") / "page"
        self._runner: web.AppRunner | None = None
        self._looking: asyncio.Task[None] | None = None

    # -- its life ------------------------------------------------------------------------------------------

    async def serve(self, inside: Path) -> None:
        """Answer from now on, behind the front.

        :param inside: the unix socket to listen on.
        """
        application = web.Application(middlewares=[self._guard], client_max_size=_LONGEST_BODY)
        get, post = application.router.add_get, application.router.add_post
        get("/", self._file)
        get("/enter", self._file)
        get("/static/{name}", self._file)
        get("/session", self._who)
        post("/session", self._begin)
        application.router.add_delete("/session", self._end)
        get("/api/session", self._session)
        get("/api/devices", self._api_devices)
        get("/api/devices/{device}/stats", self._stats)
        get("/api/devices/{device}/picture", self._picture)
        get("/api/devices/{device}/console", self._console)
        get("/infra_config", self._infra_config)
        get("/devices", self._devices)
        get("/devices/{device}", self._device)
        get("/devices/{device}/connect", self._connect)
        get("/devices/{device}/adb", self._adb)
        get("/devices/{device}/files/{path:.+}", self._files)
        post("/polled_connections", self._new_polled)
        post("/polled_connections/{name}/:forward", self._forward)
        get("/polled_connections/{name}/messages", self._messages)
        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=2, keepalive_timeout=60
        )
        await self._runner.setup()
        await web.UnixSite(self._runner, inside).start()
        self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._polled.forget_old(self._access.still)

    async def close(self) -> None:
        """Answer nobody any more."""
        if self._looking is not None:
            self._looking.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    # -- who asks ------------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let in whoever may, and say no as the stock operator says it."""
        caller: Caller | None = None
        try:
            request[_CONNECTION] = self._over(request)
            bearer = request.headers.get("Authorization", "").lower().startswith("bearer ")
            changes = request.method not in ("GET", "HEAD") or "Upgrade" in request.headers
            if changes and not access.same_origin(request.headers, bearer=bearer):
                raise NotAllowed("another site's page asks for that", None, "Ask from a page of the relay itself.")
            if handler not in (self._file, self._begin, self._who):
                caller = self._admit(request)
                request[_CALLER] = caller
            answer = await handler(request)
        except CfctlError as error:
            answer = self._refused(request, caller, error)
        except MalformedMessage as exc:
            answer = web.Response(status=400, text=f"{exc}\n")
        except web.HTTPException as exc:
            if exc.status in (404, 405):
                return _harden(web.Response(status=404, text="404 page not found\n"))
            raise
        return _harden(answer) if not answer.prepared else answer

    def _over(self, request: web.Request) -> Connection:
        """Return the connection that a request comes over.

        :raises TokenRefused: if it does not come by the front.
        """
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        found = self._connection(peer[1:].decode()) if isinstance(peer, bytes) and peer[:1] == b"\0" else None
        if found is None:
            raise TokenRefused
        return found

    def _admit(self, request: web.Request) -> Caller:
        caller = self._access.admit(
            _remote(request),
            request.cookies.get(access.COOKIE, ""),
            request.headers.get("Authorization", ""),
        )
        # Whoever is let in has time, and room for more than a request.
        request[_CONNECTION].welcome()
        return caller

    def _refused(self, request: web.Request, caller: Caller | None, error: CfctlError) -> web.Response:
        status = next((number for kind, number in _STATUS if isinstance(error, kind)), 500)
        if status in (401, 403):
            self._note(request, caller, error.code)
        if request.path.startswith("/api/") or request.path == "/session":
            return _json({"error": error.as_dict()}, status)
        return web.Response(status=status, text="Device not found\n" if status == 404 else f"{error.brief}\n")

    def _note(self, request: web.Request, caller: Caller | None, outcome: str, device: str = "") -> None:
        token = caller.token if caller else None
        self._audit.record(
            _remote(request), caller, token, f"{request.method} {request.path}", device, outcome=outcome
        )

    # -- our page ------------------------------------------------------------------------------------------

    async def _file(self, request: web.Request) -> web.StreamResponse:
        """Serve a file of the page; anybody may read it."""
        name = request.match_info.get("name") or "index.html"
        suffix = "." + name.rpartition(".")[2]
        if suffix not in _TYPES or "/" in name or name.startswith("."):
            raise web.HTTPNotFound
        try:
            content = (self._page / name).read_bytes()
        except OSError:
            raise web.HTTPNotFound from None
        answer = web.Response(body=content, content_type=_TYPES[suffix], charset="utf-8")
        answer.headers["Content-Security-Policy"] = _POLICY
        answer.headers["Cache-Control"] = "no-cache"
        return answer

    async def _begin(self, request: web.Request) -> web.StreamResponse:
        """Begin a session, with a link's code or a token."""
        body = await _body(request, _Enter)
        name, token = self._access.begin(_remote(request), code=body.code, secret=body.token)
        caller = self._access.caller(_remote(request), token)
        self._note(request, caller, "ok", token.devices)
        answer = _json(_about(caller))
        answer.set_cookie(
            access.COOKIE, name, httponly=True, samesite="Strict", secure=self._secure, path="/", max_age=None
        )
        return answer

    async def _who(self, request: web.Request) -> web.StreamResponse:
        """Tell whether somebody is let in, and who: to find that nobody is, is no error."""
        try:
            return _json(_about(self._admit(request)))
        except TokenRefused:
            return _json({"user": None})

    async def _end(self, request: web.Request) -> web.StreamResponse:
        """End the session."""
        self._access.end(request.cookies.get(access.COOKIE, ""))
        answer = _json({})
        answer.del_cookie(access.COOKIE, path="/")
        return answer

    async def _session(self, request: web.Request) -> web.StreamResponse:
        """Tell who is let in."""
        return _json(_about(request[_CALLER]))

    async def _api_devices(self, request: web.Request) -> web.StreamResponse:
        """List the devices, with their screens."""
        found = []
        caller: Caller = request[_CALLER]
        for document, screens in await self._screens.devices(caller):
            found.append(
                {
                    "name": document["name"],
                    "state": document["state"],
                    "owner": document["owner"],
                    "adb": [one.get("adb") for one in document["instances"]],
                    "screens": [{"id": one.streamer.device_id, "name": one.name} for one in screens],
                    "console": caller.role >= Role.OPERATOR and bool(document["instances"]),
                }
            )
        return _json({"devices": found})

    async def _stats(self, request: web.Request) -> web.StreamResponse:
        """Tell how the fan-out of a device is."""
        screen = await self._found(request)
        return _json(self._screens.hub(screen.streamer).stats())

    async def _picture(self, request: web.Request) -> web.StreamResponse:
        """Return a key frame as it came from the device: the browser decodes it."""
        screen = await self._found(request)
        frame = await self._screens.hub(screen.streamer).picture(_PICTURE_S)
        if frame is None:
            raise NoSuchDevice(screen.name, [])
        return web.Response(body=frame.data, content_type="video/vp8")

    async def _console(self, request: web.Request) -> web.StreamResponse:
        """Sit at a device's serial console."""
        caller: Caller = request[_CALLER]
        name = request.match_info["device"]
        access.require(caller, Role.OPERATOR, "console")
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(status=400, text="Bad Request\n")
        self._note(request, caller, "ok", name[:100])
        return await self._consoles.serve(request, caller, name, lambda: self._access.still(caller))

    # -- the stock operator's ------------------------------------------------------------------------------

    async def _found(self, request: web.Request) -> Screen:
        return await self._screens.find(request[_CALLER], request.match_info["device"])

    async def _infra_config(self, request: web.Request) -> web.StreamResponse:
        config, relay_only = self._config(request[_CALLER])
        answer = _raw(config)
        if relay_only:
            answer.headers["X-Cfctl-Relay-Only"] = "1"
        return answer

    async def _devices(self, request: web.Request) -> web.StreamResponse:
        group, owner = request.query.get("groupId", ""), request.query.get("owner", "")
        listed = [one.streamer.listed() for one in await self._screens.visible(request[_CALLER])]
        return _raw([one for one in listed if group in ("", one.group_name) and owner in ("", one.owner)])

    async def _device(self, request: web.Request) -> web.StreamResponse:
        return _raw((await self._found(request)).streamer.listed(whole=True))

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        screen = await self._found(request)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(status=400, text="Bad Request\n")
        self._note(request, request[_CALLER], "ok", screen.name)
        return await sessions.websocket(request, self._screens, screen, request[_CALLER], self._access)

    async def _new_polled(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request, messages.NewConnection)
        caller: Caller = request[_CALLER]
        screen = await self._screens.find(caller, body.device_id)
        polled = self._polled.begin(caller, screen, direct=sessions.direct(request, caller))
        self._note(request, caller, "ok", screen.name)
        return _raw(messages.PolledConnection(polled.name, screen.streamer.info))

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        polled = self._polled.get(request[_CALLER], request.match_info["name"])
        body = await _body(request, messages.PolledForward)
        if polled.talking is not None:
            polled.talking.say(bytes(body.payload))
        return _raw("ok")

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        polled = self._polled.get(request[_CALLER], request.match_info["name"])
        numbers: dict[str, int | None] = {"start": 0, "count": None}
        for name in numbers:
            if name in request.query:
                word = request.query[name]
                if not word.isdecimal() or len(word) > 9:
                    return web.Response(status=400, text=f"Invalid value for {name} field\n")
                numbers[name] = int(word)
        return _raw(polled.messages(numbers["start"] or 0, numbers["count"]))

    async def _adb(self, request: web.Request) -> web.StreamResponse:
        screen = await self._found(request)
        caller: Caller = request[_CALLER]
        access.require(caller, Role.OPERATOR, "adb")
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(status=400, text="Bad Request\n")
        if screen.document is None:
            raise NotRunning(f"{screen.name} has no adb that is known here")
        self._note(request, caller, "ok", screen.name)
        return await tunnel(request, self._ways, caller, screen.name, lambda: self._access.still(caller))

    async def _files(self, request: web.Request) -> web.StreamResponse:
        """Pass on a file of the device's own pages; our connector stands where upstream's operator has its own."""
        screen = await self._found(request)
        caller: Caller = request[_CALLER]
        path = request.match_info["path"]
        if path == "js/server_connector.js":
            content = (self._page / "server_connector.js").read_bytes()
            return web.Response(body=content, content_type="text/javascript", charset="utf-8")
        streamer = screen.streamer
        if streamer.uid not in (0, caller.user.uid):
            # Their scripts would run with the session of whoever looks.
            raise NotAllowed(
                f"the pages of {screen.name} are another user's", None, f"Look at it here: /#/{quote(screen.name)}"
            )
        # Not root's either: what lets in root alone would let in whoever named its port.
        if owner_of(streamer.port) != streamer.uid:
            return brought.missing()
        return await brought.fetch(request, streamer.port, path, _HEADERS)


def _remote(request: web.Request) -> str:
    found: Connection | None = request.get(_CONNECTION)
    return found.host if found is not None else ""


class _Enter(msgspec.Struct):
    code: str = ""
    token: str = ""


async def _body(request: web.Request, kind: Any) -> Any:
    """Read a request's body, whatever it says that it is.

    :raises MalformedMessage: if it is not what may come there.
    """
    try:
        content = await request.read()
    except (ConnectionError, web.RequestPayloadError) as exc:
        raise MalformedMessage("a body that ends early") from exc
    return decode(content, kind)


def _about(caller: Caller) -> dict[str, Any]:
    return {"user": caller.user.name, "role": caller.role.name.lower(), "control": caller.role >= Role.OPERATOR}


def _json(document: Any, status: int = 200) -> web.Response:
    return web.Response(text=json.dumps(document) + "\n", content_type="application/json", status=status)


def _raw(message: Any) -> web.Response:
    """Answer as the stock operator does: JSON, and a newline."""
    return web.Response(body=msgspec.json.encode(message) + b"\n", content_type="application/json")


def _harden(answer: web.StreamResponse) -> web.StreamResponse:
    for name, value in _HEADERS.items():
        answer.headers.setdefault(name, value)
    return answer
