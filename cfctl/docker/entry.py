"""Where a container's Python begins: ready to end before anything else is loaded.

A first process gets no signal that it has no handler for (pid_namespaces(7)), and the engine would wait a minute
before it kills. So the image starts Python with these signals blocked (``context/install``): one that comes in the
quarter of a second until there is a handler is kept for it.
"""

from __future__ import annotations

import signal
import sys

#: What an engine, or somebody at a terminal, ends a container with.
_ENDING = (signal.SIGTERM, signal.SIGINT)


def _end(number: int, _frame: object) -> None:
    # As a shell would say it.
    sys.exit(128 + number)


def main() -> int:
    """Hand over to ``init.py``, which has handlers of its own."""
    for number in _ENDING:
        signal.signal(number, _end)
    # What waited comes in here.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    from cfctl.docker import init

    return init.main()


if __name__ == "__main__":
    sys.exit(main())
