"""``cfctl host run``: the watcher of a host in the foreground, and what it tells."""

from __future__ import annotations

import signal
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cfctl.cli import host_plan
from cfctl.cli.common import print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from cfctl.config import Settings
    from cfctl.hostres.watch import Report


def watch(load: Callable[[], Settings], *, json_: bool) -> None:
    """Watch this host, and root's devices, until SIGTERM or SIGINT; SIGHUP has the settings read again."""
    from cfctl.cli.tending import tending
    from cfctl.hostres.watch import Report, Watcher

    show = _print_json if json_ else _print
    speaking = threading.Lock()

    def hear(report: Report) -> None:
        with speaking:
            show(report)

    watcher = Watcher(load, hear)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: watcher.end())
    signal.signal(signal.SIGHUP, lambda *_: watcher.reload())
    with tending(lambda text: hear(Report("note", text))):
        watcher.run()


def _print(report: Report) -> None:
    for line in host_plan.lines(report.changes) if report.kind in ("mended", "taps") else ():
        print(f"{line}{f' ({report.text})' if report.text else ''}", flush=True)
    if report.error:
        parts = (report.error.brief, report.error.details, report.error.resolution)
        text = "\n".join(part for part in parts if part)
        print("waiting: " + text.replace("\n", "\n  "), flush=True)
    elif report.kind not in ("mended", "taps"):
        print(report.text, flush=True)


def _print_json(report: Report) -> None:
    print_json(document(report))


def document(report: Report) -> dict[str, Any]:
    """Return a report as a line of ``--json`` shows it (docs/schema/watch.json)."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    found: dict[str, Any] = {"event": report.kind, "time": now, "text": report.text}
    if report.changes:
        found["changes"] = [{"action": c.action, "object": c.object, "reason": c.reason} for c in report.changes]
    if report.error:
        found["error"] = report.error.as_dict()
    return found
