"""``python -m cfctl`` and the ``cfctl`` command."""

from __future__ import annotations

import os
import sys


def _open_standard_ends() -> None:
    """Lead standard descriptors that are closed nowhere: else the next file, or a lock, would be one of them.

    A program that is started has ends of its own there, so it would not inherit the lock of its device's number.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003 (the standard library's)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 (a descriptor, for good)


def main() -> None:
    """Run the command line and exit with its status."""
    _open_standard_ends()
    try:
        from cfctl.cli.app import run

        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        # While the modules were loaded, or after the verb: a verb itself answers to it.
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
