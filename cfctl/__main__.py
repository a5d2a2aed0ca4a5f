"""``python -m cfctl`` and the ``cfctl`` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        from cfctl.cli.app import run

        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        # While the modules were loaded, or after the verb: a verb itself answers to it.
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
