"""A stand-in for the stock operator, written from the facts: ``python stock.py SOCKET PORT``.

Devices register at the socket, clients come by HTTP: a WebSocket, or polling. Answers to GET /log are what devices
have sent, as it came.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

CONFIG = {"message_type": "config", "ice_servers": []}


@dataclass
class Device:
    connection: socket.socket
    info: dict[str, Any]
    port: int
    clients: dict[int, Any] = field(default_factory=dict)
    last: int = 0


class Operator:
    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}
        self.polled: dict[str, tuple[str, int, list[Any]]] = {}
        self.log: list[Any] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def listen(self, path: str) -> None:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server.setblocking(False)
        Path(path).unlink(missing_ok=True)
        server.bind(path)
        Path(path).chmod(0o770)
        server.listen(16)
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(server)
            connection.setblocking(False)
            task = loop.create_task(self.serve(connection))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        name = None
        with connection:
            while record := await loop.sock_recv(connection, 1 << 18):
                try:
                    message = json.loads(record)
                except ValueError:
                    break
                self.log.append(message)
                if name is None:
                    name = message.get("device_id")
                    if not isinstance(name, str) or not name:
                        await self.tell(connection, {"error": "Missing device_id"})
                        return
                    if name in self.devices:
                        await self.tell(connection, {"error": f"Device id already taken:  {name}\n"})
                        return
                    self.devices[name] = Device(connection, message["device_info"], message["device_port"])
                    await self.tell(connection, CONFIG)
                else:
                    client = self.devices[name].clients.get(message["client_id"])
                    if client is None:
                        text = f"Client disconnected:  {message['client_id']}\n"
                        await self.tell(connection, {"error": text})
                    else:
                        await client({"message_type": "device_msg", "payload": message["payload"]})
        if name:
            self.devices.pop(name, None)

    async def tell(self, connection: socket.socket, message: Any) -> None:
        text = json.dumps(message, separators=(",", ":"), sort_keys=True)
        for sign in "<>&":
            text = text.replace(sign, f"\\u{ord(sign):04x}")
        await asyncio.get_running_loop().sock_sendall(connection, text.encode())

    async def forward(self, device: Device, client: int, payload: Any) -> None:
        message = {"message_type": "client_msg", "client_id": client, "payload": payload}
        await self.tell(device.connection, message)

    # -- HTTP --------------------------------------------------------------------------------------------

    async def infra(self, _request: web.Request) -> web.Response:
        return web.json_response(CONFIG)

    async def listing(self, _request: web.Request) -> web.Response:
        return web.json_response([{"device_id": name, "group_name": "", "adb_port": 0} for name in self.devices])

    async def logged(self, _request: web.Request) -> web.Response:
        return web.json_response(self.log)

    async def raw(self, request: web.Request) -> web.Response:
        """Send a record to a device as it is: what no stock operator would."""
        device = self.devices[request.match_info["id"]]
        await asyncio.get_running_loop().sock_sendall(device.connection, await request.read())
        return web.json_response("ok")

    async def drop(self, request: web.Request) -> web.Response:
        """Close a device's connection, as an operator that ends does."""
        device = self.devices.pop(request.match_info["id"])
        device.connection.shutdown(socket.SHUT_RDWR)
        return web.json_response("ok")

    async def connect(self, request: web.Request) -> web.StreamResponse:
        device = self.devices.get(request.match_info["id"])
        if device is None:
            raise web.HTTPNotFound(text="Device not found\n")
        ws = web.WebSocketResponse(max_msg_size=65536)
        if not ws.can_prepare(request).ok:
            raise web.HTTPBadRequest(text="Bad Request\n")
        await ws.prepare(request)
        device.last += 1
        client = device.last

        async def deliver(message: Any) -> None:
            await ws.send_str(json.dumps(message) + "\n")

        device.clients[client] = deliver
        await deliver({"device_info": device.info})
        async for frame in ws:
            if frame.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                payload = json.loads(frame.data)
                if not isinstance(payload, dict):
                    break
                await self.forward(device, client, payload)
        del device.clients[client]
        return ws

    async def poll(self, request: web.Request) -> web.Response:
        name = (json.loads(await request.read()))["device_id"]
        device = self.devices.get(name)
        if device is None:
            raise web.HTTPNotFound(text="Device not found\n")
        device.last += 1
        key = secrets.token_hex(32)
        found: list[Any] = []
        self.polled[key] = (name, device.last, found)

        async def deliver(message: Any) -> None:
            found.append(message)

        device.clients[device.last] = deliver
        return web.json_response({"connection_id": key, "device_info": device.info})

    async def polled_forward(self, request: web.Request) -> web.Response:
        name, client, _ = self.polled[request.match_info["conn"]]
        body = json.loads(await request.read())
        await self.forward(self.devices[name], client, body["payload"])
        return web.json_response("ok")

    async def polled_messages(self, request: web.Request) -> web.Response:
        _, _, found = self.polled[request.match_info["conn"]]
        return web.json_response(found[int(request.query.get("start", 0)) :])


async def main(path: str, port: int, *, websocket: bool) -> None:
    operator = Operator()
    app = web.Application()
    app.router.add_get("/infra_config", operator.infra)
    app.router.add_get("/devices", operator.listing)
    app.router.add_get("/log", operator.logged)
    app.router.add_post("/raw/{id}", operator.raw)
    app.router.add_post("/drop/{id}", operator.drop)
    if websocket:
        app.router.add_get("/devices/{id}/connect", operator.connect)
    app.router.add_post("/polled_connections", operator.poll)
    app.router.add_post("/polled_connections/{conn}/:forward", operator.polled_forward)
    app.router.add_get("/polled_connections/{conn}/messages", operator.polled_messages)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await operator.listen(path)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), websocket="--polling" not in sys.argv))
