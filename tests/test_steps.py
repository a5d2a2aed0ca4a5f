"""Steps: what the core says while it works, without printing."""

from __future__ import annotations

import pytest

from cfctl import steps


class Recorder:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def begin(self, title: str) -> None:
        self.heard.append(("begin", title))

    def finish(self, title: str, seconds: float, *, ok: bool | None) -> None:
        assert seconds >= 0
        self.heard.append(("finish", title, ok))

    def note(self, text: str) -> None:
        self.heard.append(("note", text))

    def phase(
        self, name: str, detail: str, seconds: float, *, took: float | None = None, typical: float | None = None
    ) -> None:
        self.heard.append(("phase", name, detail, seconds))

    def progress(self, done: int, total: int) -> None:
        self.heard.append(("progress", done, total))


def test_nobody_listens(capfd: pytest.CaptureFixture[str]) -> None:
    with steps.step("work"):
        steps.note("a word")
        steps.phase("kernel", "", 1.0)
    assert capfd.readouterr() == ("", "")


def test_steps_nest() -> None:
    recorder = Recorder()
    with steps.reporting(recorder), steps.step("outer"):
        with steps.step("inner"):
            steps.note("a word")
            steps.progress(5, 10)
        steps.phase("kernel", "6.1", 2.5)
    assert recorder.heard == [
        ("begin", "outer"),
        ("begin", "inner"),
        ("note", "a word"),
        ("progress", 5, 10),
        ("finish", "inner", True),
        ("phase", "kernel", "6.1", 2.5),
        ("finish", "outer", True),
    ]


@pytest.mark.parametrize(("error", "ok"), [(ValueError, False), (KeyboardInterrupt, None)])
def test_a_step_that_fails(error: type[BaseException], ok: bool | None) -> None:
    recorder = Recorder()
    with pytest.raises(error), steps.reporting(recorder), steps.step("work"):
        raise error
    assert recorder.heard == [("begin", "work"), ("finish", "work", ok)]


def test_the_reporter_before_comes_back() -> None:
    outer, inner = Recorder(), Recorder()
    with steps.reporting(outer):
        with pytest.raises(ValueError, match="x"), steps.reporting(inner):
            raise ValueError("x")
        steps.note("after")
    steps.note("nobody hears this")
    assert (outer.heard, inner.heard) == ([("note", "after")], [])
