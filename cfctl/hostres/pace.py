"""When a watcher looks at the host again: soon after news, not in the middle of them, and not in a quarrel.

Pure: it is told the time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

#: News come in bursts: a set-up makes thousands within a second. So long after the last of them the burst is over.
QUIET_S = 0.2
#: The longest that a burst is waited out.
BURST_S = 3.0
#: The rules of others change often (Docker, kube-proxy); what they do to ours may wait.
OTHERS_S = 5.0
#: There are changes that the kernel tells nobody: of files, of rules of iptables-legacy.
PERIOD_S = 30.0
#: While another cfctl changes the host.
BUSY_S = 0.25
#: So often within a while may be chance; the next time somebody takes away what is mended.
_CHANCES = 3
_FIRST_DELAY_S = 2.0
_LONGEST_DELAY_S = 300.0
#: What has stayed mended for so long beside the delay is forgotten.
_FORGET_S = 60.0


class Pace:
    """The times of a watcher.

    :param now: seconds of a clock that only goes forward; so everywhere.
    """

    def __init__(self, now: float) -> None:
        self._looked = now
        self._first = self._last = math.inf
        self._others = math.inf
        self._not_before = now
        self._mended: dict[str, tuple[int, float]] = {}
        self._refusals = 0

    def news(self, now: float) -> None:
        """Hear that something of ours has changed."""
        self._first = min(self._first, now)
        self._last = now

    def others_news(self, now: float) -> None:
        """Hear that rules of others have changed."""
        self._others = min(self._others, now)

    def due(self) -> float:
        """Return when to look next."""
        soon = math.inf
        if self._last < math.inf:
            soon = min(self._last + QUIET_S, self._first + BURST_S)
        others = max(self._others + QUIET_S, self._looked + OTHERS_S)
        return max(self._not_before, min(soon, others, self._looked + PERIOD_S))

    def looks(self, now: float) -> None:
        """Hear that a look begins: news from now on need another one."""
        self._looked = now
        self._first = self._last = self._others = math.inf

    def busy(self, now: float) -> None:
        """Hear that somebody else was changing the host."""
        self.news(now)
        self._not_before = now + BUSY_S

    def well(self, now: float, mended: Collection[str] = ()) -> float:
        """Hear that the host is as it should be, and what had to be mended for it.

        :param mended: objects by name.
        :return: seconds that nothing is mended now, because the same things come back again and again; 0 as a rule.
        """
        self._refusals = 0
        self._mended = {name: seen for name, seen in self._mended.items() if now - seen[1] < _memory(seen[0])}
        for name in mended:
            self._mended[name] = (self._mended.get(name, (0, now))[0] + 1, now)
        if not mended:
            return 0.0
        # Whoever was right: look whether it stays so.
        self.news(now)
        delay = _delay(max(self._mended[name][0] for name in mended))
        self._not_before = now + delay
        return delay

    def refused(self, now: float) -> None:
        """Hear that nothing could be done; each time it takes longer to the next attempt."""
        self._not_before = now + min(2.0**self._refusals, PERIOD_S)
        self._refusals = min(self._refusals + 1, 10)


def _delay(times: int) -> float:
    if times <= _CHANCES:
        return 0.0
    return min(_FIRST_DELAY_S * 2.0 ** min(times - _CHANCES - 1, 20), _LONGEST_DELAY_S)


def _memory(times: int) -> float:
    return _FORGET_S + 2 * _delay(times)
