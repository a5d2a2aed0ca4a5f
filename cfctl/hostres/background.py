"""One function beside another: both wait for programs or for the kernel, not for the processor."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


@contextlib.contextmanager
def running(function: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Run ``function`` in a thread beside the block, which does not end before it.

    :return: what waits for the function and returns its result, or raises its error. To be called in the block:
        an error that nobody asks for is lost.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    context = contextvars.copy_context()

    def work() -> None:
        try:
            results.append(context.run(function))
        except BaseException as exc:  # noqa: BLE001 (raised again where the caller waits)
            errors.append(exc)

    def wait() -> T:
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield wait
    finally:
        thread.join()
