"""Which command of the host package was called, and how its errors end."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from cfctl.errors import CfctlError
from cfctl.guest.gflags import FlagError, HelpWanted

#: The commands under their real names, and upstream's other names for them.
COMMANDS = (
    "cvd_internal_display",
    "cvd_internal_host_bugreport",
    "cvd_internal_start",
    "cvd_internal_status",
    "cvd_internal_stop",
    "powerbtn_cvd",
    "run_cvd",
    "snapshot_util_cvd",
    "webRTC",
)
ALIASES = {
    "launch_cvd": "cvd_internal_start",
    "cvd_status": "cvd_internal_status",
    "stop_cvd": "cvd_internal_stop",
}

_ABORTED = 134


def main(package: str) -> None:
    """Be the command that the script is called.

    :param package: the host package's directory.
    """
    called = Path(sys.argv[0]).name
    name = ALIASES.get(called, called)
    try:
        status = _call(name, sys.argv[1:], Path(package))
    except FlagError as exc:
        for line in str(exc).splitlines():
            print(f"ERROR: {line}", file=sys.stderr)
        # Upstream's parser of gflags exits, the one of stop aborts.
        status = _ABORTED if name == "cvd_internal_stop" else 1
    except HelpWanted as exc:
        to_people = name in ("cvd_internal_stop", "cvd_internal_status") and not exc.text.startswith("<?xml")
        print(exc.text, file=sys.stderr if to_people else sys.stdout)
        status = exc.status
    except CfctlError as exc:
        print(exc, file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _call(name: str, argv: list[str], package: Path) -> int:
    # Each imports only what it needs: status answers in hundredths of a second.
    if name == "cvd_internal_start":
        # So that a launch that is called off takes its temporary files and its trial of KVM with it.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        from cfctl.guest import launch

        return launch.main(argv, os.environ, package)
    if name == "run_cvd":
        from cfctl.guest import supervisor

        return supervisor.main(argv, os.environ, package)
    if name == "cvd_internal_stop":
        from cfctl.guest import stop

        return stop.main(argv, os.environ)
    if name == "snapshot_util_cvd":
        from cfctl.guest import snapshot_util

        return snapshot_util.main(argv, os.environ)
    if name == "powerbtn_cvd":
        from cfctl.guest import powerbtn

        return powerbtn.main(argv, os.environ)
    if name == "webRTC":
        from cfctl.guest.streamer import program

        return program.main(argv, os.environ)
    if name == "cvd_internal_display":
        from cfctl.guest import display

        return display.main(argv, os.environ)
    if name == "cvd_internal_host_bugreport":
        from cfctl.guest import bugreport

        return bugreport.main(argv, os.environ)
    from cfctl.guest import status

    return status.main(argv, os.environ)
