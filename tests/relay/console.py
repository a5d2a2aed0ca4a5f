"""Sits at a console as the page does: ``python -m tests.relay.console URL TOKEN DEVICE TYPED WANTED``.

Types a line until what is wanted was shown. Prints the names of all devices that have a console.
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import ClientSession, WSMsgType

_PATIENCE_S = 60.0


async def main(url: str, token: str, device: str, typed: str, wanted: str) -> None:
    async with ClientSession(url, headers={"Authorization": f"Bearer {token}"}) as session:
        async with session.get("/api/devices") as answer:
            devices = (await answer.json())["devices"]
        print(*sorted(one["name"] for one in devices if one["console"]))
        async with session.ws_connect(f"/api/devices/{device}/console") as line:
            shown = b""
            async for frame in line:
                if frame.type == WSMsgType.TEXT:
                    # A word about it: that it is open, or what went wrong.
                    assert "opened" in frame.data, frame.data
                    await line.send_bytes(f"\r{typed}\r".encode())
                else:
                    shown += frame.data
                if wanted.encode() in shown:
                    return
    sys.exit(f"it ended: {shown!r}")


if __name__ == "__main__":
    asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), _PATIENCE_S))
