"""How a plan of the host's network is shown, to people and as JSON."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from cfctl.cli.common import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cfctl.config import Settings
    from cfctl.hostres.plan import Change, Plan

#: Exit status: the state differs from what it should be.
DIFFERS = 3
#: More changes of one sort than this are shown as a range.
_SHOWN = 4


def answer(work: Plan, settings: Settings | None, *, done: bool) -> Answer:
    """Return a plan as a verb's answer.

    :param done: it has been carried out.
    """
    state = ("ready" if work.desired.instances else "absent") if done else work.state

    def show() -> None:
        for line in unchecked(work):
            print(f"unchecked  {line}")
        show_changes(work.changes, done=done)
        if done and work.desired.pod:
            print(f"The VM of instance 1 gets the pod's address {work.desired.pod.address}.")
        elif done and work.desired.instances:
            on_request = "" if work.desired.lazy is None else ", with taps from launch to stop"
            print(f"The host serves {plural(work.desired.instances, 'instance')}{on_request}.")
        elif done:
            print("Nothing of cfctl is left on the host.")

    exit_code = 0 if done or not work.changes else DIFFERS
    return Answer(as_document(work, settings, state=state), show, exit_code, done=done)


def as_document(work: Plan, settings: Settings | None, *, state: str) -> dict[str, Any]:
    """Return a plan as the ``--json`` contract shows it (docs/schema/host.json)."""
    found: dict[str, Any] = {
        "state": state,
        "instances": work.desired.instances,
        "changes": [{"action": c.action, "object": c.object, "reason": c.reason} for c in work.changes],
        "unchecked": unchecked(work),
    }
    if settings is not None:
        found["settings"] = {
            name: {"value": value.value, "origin": value.origin}
            for name, value in settings.values.items()
            if name.startswith("host.")
        }
    return found


def unchecked(work: Plan) -> list[str]:
    """Return what could not be compared, and why."""
    return ["firewall rules: only root may read them"] if work.observed.tables is None else []


def show_changes(changes: Sequence[Change], *, done: bool) -> None:
    """Print changes; many of one sort, such as 512 taps, as one line."""
    for line in lines(changes):
        print(line)
    print(f"{plural(len(changes), 'change')}{'' if done or not changes else ' to make'}.")


def lines(changes: Sequence[Change]) -> Iterator[str]:
    """Yield a line for each change, one for many of one sort."""
    for (action, kind, _, reason), group in itertools.groupby(changes, key=_sort):
        several = list(group)
        if len(several) > _SHOWN:
            yield f"{action:7} {len(several)} {kind}s {_names(several)}: {reason}"
            continue
        for change in several:
            yield f"{action:7} {change.object}: {change.reason}"


def _names(changes: Sequence[Change]) -> str:
    """Return what says where many changes are: the first and the last tap, the chain of rules."""
    where, colon, _ = changes[0].name.partition(": ")
    return f"in {where}" if colon else f"{where} ... {changes[-1].name}"


def _sort(change: Change) -> tuple[str, str, str, str]:
    """Return what changes of one sort have in common; rules their chain, while taps that go say their number each."""
    where, colon, _ = change.name.partition(": ")
    gone = change.action == "remove" and change.kind == "tap"
    return change.action, change.kind, where if colon else "", "no longer needed" if gone else change.reason


def plural(count: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
