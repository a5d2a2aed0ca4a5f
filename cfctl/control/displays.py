"""The displays of a VM, as crosvm tells of them (vm_control.md section 1.3)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Display:
    """A display as the VM manager tells of it; what it does not tell is None."""

    id: int
    width: int | None
    height: int | None
    dpi: int | None
    refresh_rate_hz: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as the ``--json`` contract shows it."""
        return asdict(self)


def read(found: Any) -> list[Display]:
    """Read crosvm's list of displays, parsed.

    :raises ValueError: if it is none.
    """
    if not isinstance(found, dict) or not isinstance(found.get("displays"), dict):
        raise ValueError("it has no displays")  # noqa: TRY004 (whatever is wrong with an answer is one error)
    return sorted((_display(*item) for item in found["displays"].items()), key=lambda display: display.id)


def _display(number: str, told: Any) -> Display:
    told = told if isinstance(told, dict) else {}
    mode = told.get("mode")
    sizes = next(iter(mode.values()), None) if isinstance(mode, dict) else None
    width, height = _pair(sizes)
    return Display(int(number), width, height, _pair(told.get("dpi"))[0], _number(told.get("refresh-rate")))


def _pair(raw: Any) -> tuple[int | None, int | None]:
    pair = raw if isinstance(raw, list) and len(raw) == 2 else [None, None]
    return _number(pair[0]), _number(pair[1])


def _number(raw: Any) -> int | None:
    return raw if isinstance(raw, int) and not isinstance(raw, bool) else None
