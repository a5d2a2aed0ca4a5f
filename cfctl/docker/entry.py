"""Where a container begins: ready to end before anything else is loaded.

A first process gets no signal that it has no handler for (pid_namespaces(7)): without this, a stop in the quarter of
a second that the imports take would be lost, and the engine would wait a minute before it kills.
"""

from __future__ import annotations

import signal
import sys

#: 128 + SIGTERM, as a shell would say it.
_TERMINATED = 143


def main() -> int:
    """Hand over to ``init.py``, which has handlers of its own."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    from cfctl.docker import init

    return init.main()


if __name__ == "__main__":
    sys.exit(main())
