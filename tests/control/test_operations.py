"""The table of operations: whole, within its limits, and the same for whoever reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import Device
from cfctl.control import crosvm_cli, crosvm_protocol, operations, qemu
from cfctl.control.crosvm_protocol import UNKNOWN, Age, Word
from cfctl.control.faults import VmCannot
from cfctl.control.operations import TABLE, Argument, Manager, Operation, Role
from cfctl.errors import UsageError

NEWEST = Age(frozenset(word.value for word in Word) - {Word.OLD_WORKING_SET.value})

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def example(name: str) -> Operation:
    """Return an operation with the least values that it takes."""
    texts = {"path": "/dev/bus/usb/001/002", "keys": "ctrl-c", "text": "Hi!", "request": '"Powerbtn"'}
    values: dict[str, object] = {}
    for argument in TABLE[name].arguments:
        if argument.choices:
            values[argument.name] = argument.choices[-1]
        elif argument.kind is str:
            values[argument.name] = texts[argument.name]
        elif argument.kind is bool:
            values[argument.name] = True
        else:
            values[argument.name] = argument.least
    return operations.operation(name, values)


@pytest.mark.parametrize("name", TABLE)
def test_every_operation_can_be_said_to_those_that_can_do_it(name: str) -> None:
    spec = TABLE[name]
    operation = example(name)
    assert spec.can(Manager.QEMU) == (name in qemu.NAMES)
    if not spec.can(Manager.CROSVM) or name == "display.screenshot":
        return
    for age in (UNKNOWN, NEWEST, Age(frozenset())):
        forms = crosvm_protocol.requests(operation, age)
        assert 1 <= len(forms) <= 2
        assert all(0 < len(form.packet) <= operations.LONGEST_PACKET for form in forms)
        argv = crosvm_cli.arguments(operation, age, "/s")
        # A socket is the last word but for switches, and no word is empty.
        assert argv is None or ([word for word in argv if not word.startswith("--")][-1] == "/s" and all(argv))


def test_what_reaches_into_the_host_is_for_admins_and_never_relayed() -> None:
    reaching = {name for name, spec in TABLE.items() if spec.reaches_host}
    assert reaching == {"usb.attach", "raw"}
    assert all(TABLE[name].role is Role.ADMIN and not TABLE[name].relayed for name in reaching)
    viewers = {name for name, spec in TABLE.items() if spec.role is Role.VIEWER}
    assert viewers == {
        *("balloon.stats", "balloon.working-set", "usb.list", "swap.status", "vcpus"),
        *("display.list", "display.screenshot"),
    }


@pytest.mark.parametrize(
    ("words", "name", "values"),
    [
        ("balloon stats", "balloon.stats", {}),
        ("balloon set 512M", "balloon.set", {"bytes": 512 << 20, "wait": False}),
        ("balloon set 1GiB wait", "balloon.set", {"bytes": 1 << 30, "wait": True}),
        ("balloon set wait=yes bytes=7", "balloon.set", {"bytes": 7, "wait": True}),
        ("battery ac off", "battery.ac", {"online": False}),
        ("battery status discharging", "battery.status", {"status": "discharging"}),
        ("usb detach 3", "usb.detach", {"port": 3}),
        ("disk resize 0 16g", "disk.resize", {"index": 0, "bytes": 16 << 30}),
        ("swap disable", "swap.disable", {"slow-file-cleanup": False}),
        ("swap disable slow-file-cleanup", "swap.disable", {"slow-file-cleanup": True}),
        ("vcpus", "vcpus", {}),
        ("key ctrl-alt-delete", "key", {"keys": "ctrl-alt-delete", "hold-ms": 100}),
        ("text a=b", "text", {"text": "a=b"}),
    ],
)
def test_what_people_write(words: str, name: str, values: dict[str, Any]) -> None:
    operation = operations.from_words(words.split())
    assert (operation.name, operation.values) == (name, values)


@pytest.mark.parametrize(
    ("words", "brief"),
    [
        ("", "no operation is named"),
        ("fly", "'fly' is no operation"),
        ("balloon", "'balloon' is not whole"),
        ("balloon set", "balloon set needs bytes"),
        ("balloon set much", "bytes 'much': a size is needed, such as 512M"),
        ("balloon set -1", "bytes '-1': a size is needed, such as 512M"),
        ("balloon set 2000000T", "bytes '2000000T': it must be 0 to 1125899906842624"),
        ("usb detach 16", "port '16': it must be 1 to 15"),
        ("usb detach 3 4", "usb detach takes no '4'"),
        ("usb attach /etc/shadow", "path '/etc/shadow': the device's node: /dev/bus/usb/BUS/DEVICE"),
        (
            "usb attach /dev/bus/usb/../../sda",
            "path '/dev/bus/usb/../../sda': the device's node: /dev/bus/usb/BUS/DEVICE",
        ),
        ("battery capacity 101", "percent '101': it must be 0 to 100"),
        ("battery present maybe", "present 'maybe': true or false is needed"),
        ("key ctrl+c", "keys 'ctrl+c': names of QEMU's keys with dashes between: ctrl-alt-delete"),
    ],
)
def test_what_makes_no_sense(words: str, brief: str) -> None:
    with pytest.raises(UsageError) as caught:
        operations.from_words(words.split())
    assert caught.value.brief == brief


@given(st.sampled_from(sorted(TABLE)), st.dictionaries(st.text(max_size=10), ANYTHING, max_size=3))
def test_whatever_is_asked_for_is_checked(name: str, values: dict[str, object]) -> None:
    values |= {argument.name: value for argument, value in zip(TABLE[name].arguments, values.values(), strict=False)}
    try:
        found = operations.operation(name, values)
    except UsageError:
        return
    for argument in found.spec.arguments:
        assert type(found[argument.name]) is argument.kind
        if argument.kind is int:
            assert argument.least <= found[argument.name] <= argument.most


@given(ANYTHING)
def test_whatever_a_value_is(raw: object) -> None:
    for spec in TABLE.values():
        for argument in spec.arguments:
            try:
                assert type(argument.read(raw)) is argument.kind
            except UsageError as error:
                assert len(error.brief) < 300  # noqa: PT017 (both ends are right)


@given(st.lists(st.text(max_size=12), max_size=4))
def test_whatever_people_write(words: list[str]) -> None:
    operations.completions(words)
    try:
        assert operations.from_words(words).name in TABLE
    except UsageError as error:
        assert error.exit_code == 2  # noqa: PT017 (both ends are right)


def test_completions() -> None:
    assert operations.completions(["balloon"]) == ["stats", "set", "working-set"]
    assert operations.completions(["battery", "status"])[:2] == ["unknown", "charging"]
    assert operations.completions(["battery", "ac"]) == ["true", "false"]
    assert "suspend" not in operations.completions([])


def test_what_a_vm_manager_cannot_do_is_said() -> None:
    error = operations.refusal(TABLE["battery.capacity"], Manager.QEMU, "phone")
    assert isinstance(error, VmCannot)
    assert (error.exit_code, error.code) == (4, "vm-cannot")
    assert error.brief == "the VM manager of phone (QEMU) cannot do battery capacity"
    assert error.resolution == "Have Android pretend: cfctl adb phone shell dumpsys battery set level 50"
    assert operations.refusal(TABLE["battery.capacity"], Manager.CROSVM, "phone") is None
    for spec in TABLE.values():
        assert len(spec.cannot) < len(Manager), f"nobody can do {spec.name}"


def test_a_required_argument_comes_before_one_that_need_not_be_given() -> None:
    for spec in TABLE.values():
        needed = [argument.required for argument in spec.arguments]
        assert needed == sorted(needed, reverse=True), spec.name
        assert all(isinstance(argument, Argument) for argument in spec.arguments)


def test_the_python_api_names_values_as_python_does() -> None:
    with pytest.raises(UsageError, match="takes no bites"):
        Device("phone").control("balloon.set", bytes=1, bites=2)
    with pytest.raises(UsageError, match="it must be 1 to 10000"):
        Device("phone").control("key", keys="a", hold_ms=0)


PAGE = Path(__file__).resolve().parents[2] / "docs" / "control.md"


def rows() -> list[str]:
    """Return the table of docs/control.md, made from the code."""
    found = []
    for spec in TABLE.values():
        verb, *rest = spec.words
        written = operations.usage(spec) if spec.control else " ".join(["cfctl", verb, "NAME", *rest])
        cells = ["yes" if spec.can(manager) else "no" for manager in (Manager.CROSVM, Manager.QEMU)]
        relayed = spec.role.name.lower() if spec.relayed else "never" if spec.reaches_host else "no"
        found.append(f"| `{written}` | {spec.summary} | {' | '.join(cells)} | {relayed} |")
    return found


def test_the_page_has_the_table() -> None:
    lines = PAGE.read_text().splitlines()
    assert [line for line in lines if line.startswith("| `")][: len(TABLE)] == rows()
