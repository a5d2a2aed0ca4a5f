"""The few words of QEMU's monitor that the launcher needs (QEMU docs/interop/qmp-spec.txt)."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from cfctl.errors import CfctlError

if TYPE_CHECKING:
    from pathlib import Path

#: The monitor serves one client at a time: if somebody holds it, it stays silent.
_PATIENCE_S = 5.0


async def execute(socket: Path, command: str) -> Any:
    """Run one command and let the monitor go.

    :return: what the monitor returned.
    :raises CfctlError: if it does not answer or refuses; the VM is as it was.
    """
    try:
        return await asyncio.wait_for(_execute(socket, command), _PATIENCE_S)
    except (OSError, ValueError, EOFError, TimeoutError) as exc:
        raise CfctlError(f"QEMU's monitor did not do {command}", str(exc) or "It did not answer.") from exc


async def _execute(socket: Path, command: str) -> Any:
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        await reader.readline()
        for name in ("qmp_capabilities", command):
            writer.write(json.dumps({"execute": name}).encode() + b"\n")
            # Events come in between.
            while not ({"return", "error"} & (answer := json.loads(await reader.readline())).keys()):
                pass
            if "error" in answer:
                raise ValueError(answer["error"].get("desc", "refused"))
        return answer["return"]
    finally:
        writer.close()
