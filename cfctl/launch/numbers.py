"""Which instance numbers a new device gets: served by the host, idle, and locked against every other tool."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cfctl import config, locks, paths, steps
from cfctl.errors import CfctlError, HostLacks, NumberTaken
from cfctl.hostres import lazy, tap, tap_client
from cfctl.instance import Instance, counted
from cfctl.launch import registry

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from cfctl.config import Settings
    from cfctl.locks import NumberLock


@contextlib.contextmanager
def allocated(count: int) -> Iterator[list[NumberLock]]:
    """Own ``count`` free numbers for the block, and their taps; give them back if it raises.

    The descriptors are for the launcher, which keeps them open for as long as the device lives.

    :raises HostLacks: if the host network serves fewer instances, or none; or if taps are made on request, and nobody
        makes them.
    :raises NumberTaken: if it serves enough, but they are in use.
    :raises CfctlError: if the lock files cannot be written: the disk is full.
    """
    recorded = lazy.recorded()
    served = sorted(_served(recorded))
    if allowed := config.load()["launch.numbers"]:
        served = [number for number in served if number in allowed]
    if len(served) < count:
        raise HostLacks(
            "the host network is not set up" if not served else f"the host serves {counted(len(served))} only",
            f"Each instance needs taps of its own (cvd-etap-NN and others). Wanted: {counted(count)}.",
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
            except (NumberTaken, locks.UnusableLock) as error:
                # Not what is wrong with the directory or its disk: the next number would fare no better.
                refused.append(f"{number}: {error.details or error.brief}")
            if len(taken) == count:
                break
        else:
            raise _none_left(count, served, refused)
        with _with_taps(taken) if recorded else contextlib.nullcontext():
            yield taken


@contextlib.contextmanager
def taken_again(numbers: Sequence[int]) -> Iterator[list[NumberLock]]:
    """Own the numbers of a stopped device again for the block, and their taps; give them back if it raises.

    :raises HostLacks: if the host network does not serve them any more.
    :raises NumberTaken: if another device has one of them by now.
    """
    recorded = lazy.recorded()
    if missing := sorted(set(numbers) - set(_served(recorded))):
        raise HostLacks(
            f"the host network does not serve instance {', '.join(map(str, missing))}",
            "Its taps are missing.",
            f"Make them: sudo cfctl host setup --instances {max(numbers)}",
        )
    with _kept_together() as taken:
        for number in numbers:
            taken.append(locks.NumberLock.take(Instance(number), paths.instance_lock_directories()))
        with _with_taps(taken) if recorded else contextlib.nullcontext():
            yield taken


def give_back(lock: NumberLock) -> None:
    """Give a number back, and its taps where they are made on request."""
    if lazy.written() is not None:
        _remove_taps(lock)
    lock.release()


def _remove_taps(lock: NumberLock) -> None:
    try:
        tap_client.remove(lock)
    except CfctlError as error:
        # The number is free all the same: the next set-up of the host, or whoever watches it, sweeps them.
        steps.note(f"The taps of instance {lock.instance.number} stay: {error.brief}.")


def _served(recorded: Settings | None) -> Collection[int]:
    """Return the numbers that have taps, or get them on request."""
    return tap.served_numbers() if recorded is None else range(1, lazy.limit(recorded) + 1)


@contextlib.contextmanager
def _with_taps(taken: Sequence[NumberLock]) -> Iterator[None]:
    """Have the taps of numbers that we hold made; they are removed again if it fails, or the block does."""
    made: list[NumberLock] = []
    try:
        with steps.step(f"get the taps of {len(taken)} instance{'' if len(taken) == 1 else 's'}"):
            for lock in taken:
                tap_client.make(lock)
                made.append(lock)
        yield
    except BaseException:
        for lock in made:
            _remove_taps(lock)
        raise


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
        "Stop a device (cfctl ps, cfctl stop NAME), give back what dead ones have left (cfctl clean), "
        f"or let the host serve more: sudo cfctl host setup --instances {min(128, len(served) + count)}",
    )
