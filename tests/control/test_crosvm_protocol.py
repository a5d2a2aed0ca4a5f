"""crosvm's protocol and command line as data: the bytes of each age, and whatever comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.control import crosvm_cli, crosvm_protocol, operations
from cfctl.control.crosvm_protocol import UNKNOWN, Age, Word
from cfctl.control.faults import VmRefused
from cfctl.control.operations import TABLE, Manager
from tests.control.test_operations import ANYTHING, NEWEST, example
from tests.crosvm.program import AGES

ASKED = sorted(name for name, spec in TABLE.items() if spec.can(Manager.CROSVM) and name != "display.screenshot")
NAMES = st.sampled_from(ASKED)

OF_2022 = Age(frozenset({"AddDisplays", "RemoveDisplays"}))

#: The variants of crosvm's replies, so that what is made up gets past the first look.
VARIANTS = (
    *(
        "Ok",
        "Err",
        "ErrString",
        "BalloonStats",
        "BalloonWS",
        "UsbResponse",
        "GpuResponse",
        "BatResponse",
        "SwapStatus",
    ),
    *("VcpuPidTidResponse", "DisplayList", "Devices", "Ok", "TooManyDisplays", "stats", "balloon_actual", "displays"),
)
KEYS = st.sampled_from(VARIANTS) | st.text(max_size=4)
REPLIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(VARIANTS) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, min_size=1, max_size=2),
    max_leaves=8,
)


def packets(words: str, age: Age) -> list[str]:
    return [form.packet.decode() for form in crosvm_protocol.requests(operations.from_words(words.split()), age)]


@pytest.mark.parametrize(
    ("words", "packet"),
    # As serde prints them: vm_control.md section 1.3.
    [
        ("powerbtn", '"Powerbtn"'),
        ("sleepbtn", '"Sleepbtn"'),
        ("suspend", '"SuspendVm"'),
        ("resume", '"ResumeVm"'),
        ("balloon stats", '{"BalloonCommand":"Stats"}'),
        (
            "balloon set 1073741824",
            '{"BalloonCommand":{"Adjust":{"num_bytes":1073741824,"wait_for_success":false}}}',
        ),
        ("balloon working-set", '{"BalloonCommand":"WorkingSet"}'),
        ("disk resize 0 8g", '{"DiskCommand":{"disk_index":0,"command":{"Resize":{"new_size":8589934592}}}}'),
        ("battery status charging", '{"BatCommand":["goldfish",{"SetStatus":"Charging"}]}'),
        ("battery health good", '{"BatCommand":["goldfish",{"SetHealth":"Good"}]}'),
        ("battery present yes", '{"BatCommand":["goldfish",{"SetPresent":1}]}'),
        ("battery capacity 50", '{"BatCommand":["goldfish",{"SetCapacity":50}]}'),
        ("battery ac on", '{"BatCommand":["goldfish",{"SetACOnline":1}]}'),
        ("battery fake 80", '{"BatCommand":["goldfish",{"SetFakeBatConfig":80}]}'),
        ("battery cancel-fake", '{"BatCommand":["goldfish","CancelFakeConfig"]}'),
        (
            "display add 1280 800 160",
            '{"GpuCommand":{"AddDisplays":{"displays":[{"mode":{"windowed":[1280,800]},"hidden":false,'
            '"refresh-rate":60,"dpi":[160,160]}]}}}',
        ),
        ("display list", '{"GpuCommand":"ListDisplays"}'),
        ("display remove 1", '{"GpuCommand":{"RemoveDisplays":{"display_ids":[1]}}}'),
        ("usb list", '{"UsbCommand":{"ListDevice":{"ports":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]}}}'),
        (
            "usb attach /dev/bus/usb/001/002",
            '{"UsbCommand":{"AttachDevice":{"file":0,"bus":0,"addr":0,"vid":0,"pid":0}}}',
        ),
        ("usb detach 1", '{"UsbCommand":{"DetachDevice":{"port":1}}}'),
        ("swap enable", '{"Swap":"Enable"}'),
        ("swap disable", '{"Swap":{"Disable":{"slow_file_cleanup":false}}}'),
        ("swap out", '{"Swap":"SwapOut"}'),
        ("vcpus", '"VcpuPidTid"'),
        ('raw {"Throttle":[0,200]}', '{"Throttle":[0,200]}'),
    ],
)
def test_the_bytes_of_today(words: str, packet: str) -> None:
    assert packets(words, NEWEST) == [packet]


def test_the_bytes_of_2022() -> None:
    assert packets("suspend", OF_2022) == ['"Suspend"']
    assert packets("resume", OF_2022) == ['"Resume"']
    assert packets("swap disable", OF_2022) == ['{"Swap":"Disable"}']
    assert packets("balloon working-set", Age(frozenset({"BalloonWSS"}))) == ['{"BalloonCommand":"WorkingSetSize"}']


def test_an_unknown_age_has_both_forms_the_newer_first() -> None:
    assert packets("suspend", UNKNOWN) == ['"SuspendVm"', '"Suspend"']
    assert packets("powerbtn", UNKNOWN) == ['"Powerbtn"']


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("piece", [1 << 20, 7, 1])
def test_the_age_is_read_from_the_words_of_a_program(age: str, piece: int) -> None:
    program = b"\x7fELF" + b"\0" * 50 + "".join(AGES[age]["words"]).encode() + b"\0" * 50
    found = crosvm_protocol.age_of(program[at : at + piece] for at in range(0, len(program), piece))
    assert sorted(found.words or ()) == sorted(word.value for word in Word if word in AGES[age]["words"])


def test_a_program_that_is_no_crosvm_has_no_age() -> None:
    assert crosvm_protocol.age_of([b"SuspendVm"]) is UNKNOWN
    older = crosvm_protocol.age_of([b"BalloonCommandBalloonWSS"])
    assert list(older.words or ()) == ["BalloonWSS"], "the older word has the newer in it"


@pytest.mark.parametrize(
    ("words", "reply", "said"),
    [
        ("sleepbtn", {"Err": 95}, "This VM has no ACPI power management"),
        ("balloon stats", {"Err": 107}, "The guest's balloon driver is not active"),
        ("disk resize 4 1", {"Err": 19}, "There is no disk of that index"),
        ("display list", {"Err": 5}, "This VM's GPU is not in crosvm's own process"),
        ("battery capacity 3", {"BatResponse": "NoBatDevice"}, "This VM has no battery"),
        ("usb detach 3", {"UsbResponse": "NoSuchPort"}, "There is nothing on that port"),
        ("display add 1 1", {"GpuResponse": {"TooManyDisplays": {"allowed": 16}}}, "no more displays"),
        ("display add 1 1", {"GpuResponse": {"TooManyDisplays": 17}}, "no more displays"),
        ("display remove 9", {"GpuResponse": {"NoSuchDisplay": {"display_id": 9}}}, "There is no such display"),
        ("suspend", {"ErrString": "it is not so"}, "it is not so"),
        ("suspend", {"Err": 5}, "Input/output error"),
        ("suspend", {"FromTheFuture": 1}, "not understood"),
        ("usb list", {"UsbResponse": {"Devices": "none"}}, "not understood"),
    ],
)
def test_refusals(words: str, reply: Any, said: str) -> None:
    with pytest.raises(VmRefused) as caught:
        crosvm_protocol.result(operations.from_words(words.split()), reply, "phone")
    assert said in str(caught.value.details)
    assert json.dumps(reply) in str(caught.value.details), "the answer itself is shown"
    assert caught.value.reply == reply


@given(NAMES, REPLIES | ANYTHING)
def test_whatever_crosvm_answers(name: str, reply: Any) -> None:
    operation = example(name)
    try:
        assert isinstance(crosvm_protocol.result(operation, reply, "phone"), dict)
    except VmRefused as error:
        assert error.reply is reply  # noqa: PT017 (both ends are right)


@given(st.binary(max_size=300))
def test_whatever_bytes_it_answers(packet: bytes) -> None:
    crosvm_protocol.parse(packet)


@given(NAMES, st.integers(-15, 130), st.text(max_size=40) | REPLIES.map(json.dumps), st.text(max_size=20))
def test_whatever_its_command_line_prints(name: str, status: int, stdout: str, stderr: str) -> None:
    operation = example(name)
    reply = crosvm_cli.reply(operation, status, stdout, stderr)
    if status != 0 and not name.startswith("balloon."):
        with pytest.raises(VmRefused):
            crosvm_protocol.result(operation, reply, "phone") if name != "raw" else _refuse()


def _refuse() -> None:
    raise VmRefused("raw is not for the command line", reply=None)


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ("battery capacity 5", "No battery device created"),
        ("battery capacity 5", ""),
        ("usb detach 5", "no_such_port"),
        ("usb list", "no_such_device"),
        ("usb list", "devices 1 2"),
        ("usb list", "devices 1 zz 3"),
        ("display add 1 1", "too_many_displays: allowed 16, requested 17"),
        ("display list", "no gpu"),
        ("swap status", "what"),
    ],
)
def test_a_status_of_0_is_no_success(words: str, printed: str) -> None:
    operation = operations.from_words(words.split())
    with pytest.raises(VmRefused):
        crosvm_protocol.result(operation, crosvm_cli.reply(operation, 0, printed, ""), "phone")


def test_what_the_command_line_says_of_an_error() -> None:
    said = "unexpected response: error: Operation not supported (os error 95)"
    assert crosvm_cli.reply(example("powerbtn"), 1, said, "") == {"Err": 95}
    assert crosvm_cli.reply(example("balloon.stats"), 1, '{"Err": 107}', "") == {"Err": 107}
