"""Which instance numbers a new device gets: served by the host, idle, and locked against every other tool."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cfctl import config, locks, paths
from cfctl.errors import CfctlError, HostLacks, NumberTaken
from cfctl.hostres import tap
from cfctl.instance import Instance
from cfctl.launch import registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cfctl.locks import NumberLock


@contextlib.contextmanager
def allocated(count: int) -> Iterator[list[NumberLock]]:
    """Own ``count`` free numbers for the block; give them back if it raises.

    The descriptors are for the launcher, which keeps them open for as long as the device lives.

    :raises HostLacks: if the host network serves fewer instances, or none.
    :raises NumberTaken: if it serves enough, but they are in use.
    """
    served = sorted(tap.served_numbers())
    if allowed := config.load()["launch.numbers"]:
        served = [number for number in served if number in allowed]
    if len(served) < count:
        raise HostLacks(
            "the host network is not set up" if not served else f"the host serves {len(served)} instances only",
            f"{count} instance(s) need {count} set(s) of taps (cvd-etap-NN and others).",
            f"Make them: sudo cfctl host setup --instances {max(count, 10)}",
        )
    busy = tap.busy_numbers()
    refused: list[str] = []
    with _kept_together() as taken:
        for number in served:
            if number in busy:
                refused.append(f"{number}: its taps are in use")
                continue
            try:
                taken.append(locks.NumberLock.take(Instance(number), paths.instance_lock_directories()))
            except HostLacks:
                raise  # the directory: the next number would fare no better
            except CfctlError as error:
                refused.append(f"{number}: {error.details}")
            if len(taken) == count:
                break
        else:
            raise _none_left(count, served, refused)
        yield taken


@contextlib.contextmanager
def taken_again(numbers: Sequence[int]) -> Iterator[list[NumberLock]]:
    """Own the numbers of a stopped device again for the block; give them back if it raises.

    :raises HostLacks: if the host network does not serve them any more.
    :raises NumberTaken: if another device has one of them by now.
    """
    if missing := sorted(set(numbers) - tap.served_numbers()):
        raise HostLacks(
            f"the host network does not serve instance {', '.join(map(str, missing))}",
            "Its taps are missing.",
            f"Make them: sudo cfctl host setup --instances {max(numbers)}",
        )
    with _kept_together() as taken:
        for number in numbers:
            taken.append(locks.NumberLock.take(Instance(number), paths.instance_lock_directories()))
        yield taken


@contextlib.contextmanager
def _kept_together() -> Iterator[list[NumberLock]]:
    """Collect locks: all are given back if the block raises; otherwise whoever inherited them holds them."""
    taken: list[NumberLock] = []
    try:
        yield taken
    except BaseException:
        for lock in taken:
            lock.release()
        raise
    for lock in taken:
        lock.close()


def _none_left(count: int, served: Sequence[int], refused: Sequence[str]) -> NumberTaken:
    ours = [
        f"{record.name} has {', '.join(map(str, record.numbers))}"
        for record in registry.load_all()
        if record.holds_numbers
    ]
    return NumberTaken(
        f"no {count} of the {len(served)} instances that the host serves are free",
        "\n".join([*refused, *(f"Device {line}." for line in ours)]),
        "Stop a device (cfctl ps, cfctl stop NAME), "
        f"or let the host serve more: sudo cfctl host setup --instances {min(128, len(served) + count)}",
    )
