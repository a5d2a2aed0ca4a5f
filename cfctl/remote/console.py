"""The console of a device behind a relay, as a terminal of this machine is joined to one here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfctl.errors import CfctlError, FromElsewhere
from cfctl.remote import tunnel

if TYPE_CHECKING:
    from cfctl.remote.channel import Relay


class Console:
    """A console that is held open; as an asynchronous context manager it is closed at the end.

    :param target: a device, or ``NAME/2``.
    """

    def __init__(self, relay: Relay, target: str) -> None:
        self._relay = relay
        self._target = target
        self._tunnel: tunnel.Tunnel | None = None

    async def __aenter__(self) -> Console:
        """Open it.

        :raises CfctlError: what the relay has against it.
        """
        self._tunnel = await tunnel.Tunnel.open(
            self._relay.channel, self._target, tunnel.CONSOLE, self._relay.address
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let it go."""
        if self._tunnel is not None:
            self._tunnel.cancel()

    def resize(self, rows: int, columns: int) -> None:
        """Do nothing: no serial line carries the size of a window."""

    async def read(self) -> bytes:
        """Return what the guest has written.

        :raises CfctlError: if the relay has closed it, with the reason.
        """
        try:
            data = await self._opened.read()
        except OSError as exc:
            raise self._closed(str(exc)) from exc
        if data is None:
            await self._opened.closing()
            raise self._closed(self._opened.reason)
        return data

    async def write(self, data: bytes) -> None:
        """Send what was typed.

        :raises CfctlError: if the relay has closed it, with the reason.
        """
        if data:
            try:
                await self._opened.write(data)
            except OSError as exc:
                raise self._closed(str(exc)) from exc

    @property
    def _opened(self) -> tunnel.Tunnel:
        assert self._tunnel is not None  # noqa: S101 (inside of the block there is one)
        return self._tunnel

    def _closed(self, reason: str) -> CfctlError:
        return FromElsewhere(f"the console of {self._target} was closed: {reason or 'the device has ended it'}")
