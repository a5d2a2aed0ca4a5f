from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.errors import CfctlError, DamagedRecord, NameTaken, NoSuchDevice, UsageError
from cfctl.launch import observe, registry
from cfctl.launch.registry import Record, Request
from tests.launch import devices
from tests.schemas import conforms


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CFCTL_PATHS_STATE", str(tmp_path))
    return tmp_path


def record(name: str = "phone") -> Record:
    return Record(
        name=name,
        owner="me",
        created_at=registry.now(),
        request=Request(host_package="/opt/cf"),
        numbers=(1, 2),
        gpu_mode="guest_swiftshader",
        gpu_reason="no GPU",
    )


def test_round_trip() -> None:
    registry.create(record())
    assert registry.load("phone") == record() or registry.load("phone").numbers == (1, 2)
    assert [r.name for r in registry.load_all()] == ["phone"]
    assert [i.number for i in registry.load("phone").instances] == [1, 2]


def test_name_is_taken_once(state: Path) -> None:
    registry.create(record())
    with pytest.raises(NameTaken):
        registry.create(record())
    assert [p.name for p in (state / "devices").iterdir()] == ["phone"], "nothing half-made is left"


@pytest.mark.parametrize("name", ["", ".", "..", "-x", ".x", "a b", "x" * 64, "ü"])
def test_bad_names(name: str) -> None:
    with pytest.raises(UsageError, match="is not a name for a device"):
        registry.load(name)


def test_an_instance_is_no_device() -> None:
    with pytest.raises(UsageError) as error:
        registry.load("phone/2")
    assert "Name the device: phone" in str(error.value)


def test_no_such_device_names_those_that_exist() -> None:
    registry.create(record("tablet"))
    with pytest.raises(NoSuchDevice) as error:
        registry.load("phone")
    assert str(error.value) == "there is no device 'phone'\nDevices: tablet.\nList them with: cfctl ps"


def test_damaged_record_is_an_error_and_left_out_of_lists(state: Path) -> None:
    registry.create(record())
    (state / "devices/phone/device.json").write_text('{"name": 3}')
    assert registry.load_all() == []
    with pytest.raises(CfctlError, match="is damaged"):
        registry.load("phone")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"numbers": [999]}, "its instance numbers make no sense: [999]"),
        ({"numbers": []}, "its instance numbers make no sense: []"),
        ({"schema": 2}, "it was written by a newer cfctl"),
        ({"name": "other"}, "it is the record of other"),
    ],
)
def test_records_that_would_mislead_are_damaged(state: Path, wrong: dict[str, object], said: str) -> None:
    registry.create(record())
    mark = state / "devices/phone/device.json"
    mark.write_text(json.dumps(json.loads(mark.read_text()) | wrong))
    with pytest.raises(DamagedRecord) as error:
        registry.load("phone")
    assert said in str(error.value)
    assert registry.load_all() == [], "one bad record does not keep the others from being listed"


def test_a_copied_directory_is_not_the_device(state: Path) -> None:
    registry.create(record())
    shutil.copytree(state / "devices/phone", state / "devices/copy")
    with pytest.raises(DamagedRecord):
        registry.load("copy")
    assert [r.name for r in registry.load_all()] == ["phone"]


def test_a_device_that_was_removed_while_we_waited(state: Path) -> None:
    registry.create(record())
    device = registry.load("phone")
    failures: list[BaseException] = []

    def other() -> None:
        try:
            with registry.opened("phone"):
                raise AssertionError("the directory that was locked is gone")
        except NoSuchDevice as error:
            failures.append(error)

    with registry.held("phone"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.1)
        registry.remove(device)
        registry.create(record())
    thread.join()
    assert len(failures) == 1


def test_remove_touches_only_marked_directories(state: Path) -> None:
    registry.create(record())
    device = registry.load("phone")
    (state / "devices/phone/device.json").unlink()
    with pytest.raises(CfctlError, match="does not carry the mark"):
        registry.remove(device)
    assert (state / "devices/phone").is_dir()


def test_remove_follows_no_links(state: Path) -> None:
    outside = state / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    registry.create(record())
    (state / "devices/phone/link").symlink_to(outside)
    registry.remove(registry.load("phone"))
    assert (outside / "precious").read_text() == "x"
    assert list((state / "devices").iterdir()) == []


def test_remove_sweeps_what_a_killed_removal_left(state: Path) -> None:
    debris = state / "devices/.removed-old-1234"
    debris.mkdir(parents=True)
    (debris / "disk").write_text("x")
    registry.create(record())
    registry.remove(registry.load("phone"))
    assert not debris.exists()


def test_removals_at_once_leave_each_others_trees_alone(state: Path) -> None:
    for name in ("phone", "tablet"):
        registry.create(record(name))
    removing = state / "devices/.removed-phone-1234"
    with registry.held("phone"):
        # Another cfctl, in the middle of removing it.
        (state / "devices/phone").rename(removing)
        with registry.held("tablet"):
            registry.remove(registry.load("tablet"))
        assert [path.name for path in (state / "devices").iterdir()] == [removing.name]
        assert (removing / "device.json").exists()


def test_held_is_seen_and_waits() -> None:
    registry.create(record())
    device = registry.load("phone")
    assert not registry.is_held(device)
    order = []

    def other() -> None:
        with registry.opened("phone"):
            order.append("second")

    with registry.held("phone"):
        assert registry.is_held(device)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_full_disk_leaves_nothing(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFCTL_PATHS_STATE", "/dev/full/x")
    with pytest.raises(CfctlError, match="cannot be written"):
        registry.create(record())


_junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_whole = json.loads(registry._encode(record()))


@given(st.binary(max_size=60) | st.dictionaries(st.sampled_from(sorted(_whole)), _junk).map(lambda d: _whole | d))
def test_any_record_is_a_device_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | dict[str, object]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CFCTL_PATHS_STATE", str(tmp_path_factory.mktemp("state")))
        registry.create(record())
        mark = registry.load("phone").home / "device.json"
        mark.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        try:
            found = observe.device("phone")
        except CfctlError:
            assert observe.devices() == []
            observe.salvaged("phone").as_dict()
        else:
            conforms(found.as_dict(), "device")
            assert [device.name for device in observe.devices()] == ["phone"]


@pytest.mark.parametrize(
    ("given", "each", "all_"),
    [
        (None, [None, None, None], None),
        (512, [512, 512, 512], 512),
        ((256, 320), [256, 320, 256], None),
        ((256, 256, 256), [256, 256, 256], 256),
    ],
)
def test_memory_of_each_guest(given: registry.PerInstance, each: list[int | None], all_: int | None) -> None:
    record = devices.record("farm", (4, 5, 9), memory_mb=given)
    registry.create(record)
    document = observe.device("farm").as_dict()
    conforms(document, "device")
    assert [instance["guest_memory_mb"] for instance in document["instances"]] == each
    assert document["guest_memory_mb"] == all_
    for position, memory in enumerate(each, start=1):
        assert observe.one_instance("farm", position).as_dict()["guest_memory_mb"] == memory


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a/2", "'a/2' names an instance, and this takes whole devices"),
        ("a/b", "'a/b' is not a name for a device"),
        ("../2", "'../2' is not a name for a device"),
        ("/2", "'/2' is not a name for a device"),
    ],
)
def test_what_is_no_name(name: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        registry.check_name(name)
    assert refused.value.brief == said
