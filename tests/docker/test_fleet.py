"""Fleet files and the plans that follow from them."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from cfctl.docker import fleet
from cfctl.docker.fleet import Fleet, FleetFile, Seen
from cfctl.errors import ContainerNameTaken, NumberTaken, UsageError
from tests.schemas import DIRECTORY, conforms

FARM = """
[devices.phone]
count = 3
cpus = 2

[devices.tablet]
"""


def parsed(text: str = FARM) -> Fleet:
    return fleet.parse(text, name="farm", source="farm.toml")


def as_it_should_be(wanted: Fleet, host: str = "default") -> list[Seen]:
    ports = frozenset({6520})
    return [Seen(host, one.name, wanted.name, one.wish, True, True, ports, ports) for one in wanted.members]


def shown(changes: list[fleet.Change]) -> list[tuple[str, str, str]]:
    return [(change.action, change.name, change.reason) for change in changes]


def test_an_empty_engine_gets_everything() -> None:
    changes = fleet.plan(parsed(), [], {"default": 2})
    assert shown(changes) == [
        ("create", name, "it is not there") for name in ("phone-1", "phone-2", "phone-3", "tablet")
    ]
    document = {"fleet": "farm", "state": "absent", "hosts": {"default": "unix:///x"}}
    conforms(document | {"changes": [change.as_dict() for change in changes]}, "fleet")


def test_a_fleet_that_is_there_needs_nothing() -> None:
    wanted = parsed()
    assert fleet.plan(wanted, as_it_should_be(wanted), {"default": 2}) == []


def test_one_changed_entry_rolls_only_itself() -> None:
    seen = as_it_should_be(parsed())
    changed = parsed(FARM + "memory_mb = 512\n")
    assert shown(fleet.plan(changed, seen, {"default": 2})) == [
        ("replace", "tablet", "memory_mb is the default, not 512")
    ]


def test_every_reason() -> None:
    wanted = parsed()
    first, second, third, last = as_it_should_be(wanted)
    seen = [
        Seen("default", first.name, "farm", first.wish, False, True),
        Seen("default", second.name, "farm", second.wish, True, False),
        Seen("default", third.name, "farm", third.wish, True, True, frozenset(), frozenset({6522})),
        last,
        Seen("default", "old", "farm", last.wish),
        Seen("default", "other", "another", last.wish),
    ]
    assert shown(fleet.plan(wanted, seen, {"default": 2})) == [
        ("remove", "old", "the file does not name it"),
        ("replace", "phone-1", "the image cfctl is another by now"),
        ("start", "phone-2", "its device is not up"),
        ("publish", "phone-3", "port 6522 is not published"),
    ]


@pytest.mark.parametrize("owner", ["another", None])
def test_a_name_that_somebody_else_has(owner: str | None) -> None:
    wanted = parsed()
    stranger = Seen("default", "tablet", owner, wanted.members[0].wish if owner else None)
    with pytest.raises(ContainerNameTaken, match="'tablet' on default") as error:
        fleet.plan(wanted, [stranger], {"default": 2})
    assert "Nothing was changed" in str(error.value)


HOSTS = """
[hosts.big]
engine = "ssh://me@big"
[hosts.small]
capacity = 1
[devices.phone]
count = 4
"""


def test_devices_are_spread_by_capacity() -> None:
    changes = fleet.plan(parsed(HOSTS), [], {"big": 4, "small": 64})
    # An engine without a limit counts for its processors: four on it are as much as one on the other.
    assert [change.host for change in changes] == ["big"] * 4
    # A host that is half full already gets less.
    full = [Seen("big", f"x{number}", None, parsed(HOSTS).members[0].wish) for number in range(8)]
    hosts = [change.host for change in fleet.plan(parsed(HOSTS), full, {"big": 4, "small": 64})]
    assert hosts[0] == "small"
    assert hosts.count("small") == 1


def test_no_room_is_said_before_anything_is_made() -> None:
    text = "[hosts.a]\ncapacity = 1\n[devices.phone]\ncount = 2\n"
    with pytest.raises(NumberTaken, match="no host has room for phone-2") as error:
        fleet.plan(parsed(text), [], {"a": 8})
    assert "a has 1 of 1" in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("devices = 3", "not a fleet file"),
        ("[devices.phone]\ncolour = 'red'", "colour"),
        ("[devices.phone]\ncpus = 'two'", "cpus"),
        ("[devices.phone]\ngpu = 'gfxsteam'", "there is no GPU mode"),
        ("[devices.phone]\nhosts = ['x']", "there is no host 'x'"),
        ("[devices.phone]\nnetwork = 'host'", "--network host"),
        ("[devices.phone]\ncount = 2\npublish = ['8443:8443']", "cannot be published by 2"),
        ("[devices.a-1]\n[devices.a]\ncount = 1", "names a-1 twice"),
        ("[devices.'x y']", "not a name"),
        ("[devices", "not a TOML file"),
    ],
)
def test_files_that_make_no_sense(text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        parsed(text)
    assert said in str(error.value)


def test_what_a_fleet_is_called(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'b' is not a name for a fleet") as error:
        fleet.parse(FARM, name="b", source="b.toml")
    assert 'name = "farm"' in str(error.value)
    with pytest.raises(UsageError, match="cannot be read") as error:
        fleet.load(tmp_path / "nope.toml")
    assert "Errno" not in str(error.value)


def test_the_published_schema_is_the_code() -> None:
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(FleetFile)}
    made |= {"title": "A fleet file, as cfctl docker up reads it (TOML)"}
    assert json.loads((DIRECTORY / "fleet-file.json").read_text()) == json.loads(json.dumps(made))


def test_the_example_of_the_manual() -> None:
    import re
    import tomllib

    page = (Path(__file__).resolve().parents[2] / "docs/docker.md").read_text()
    [text] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    conforms(tomllib.loads(text), "fleet-file")
    assert len(parsed(text).members) >= 4
