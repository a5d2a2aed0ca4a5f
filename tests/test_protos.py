"""The generated code is what the protos say, and a device of the API is a device of ``--json``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cfctl import process
from cfctl.v1 import device_pb2, devices_pb2, host_pb2

ROOT = Path(__file__).parents[1]
SCHEMAS = ROOT / "docs" / "schema"


def test_generated_code_is_what_the_protos_say(tmp_path: Path) -> None:
    process.run([str(ROOT / "tools" / "protos"), str(tmp_path)], timeout=60)
    fresh = {path.name: path.read_text() for path in (tmp_path / "cfctl" / "v1").iterdir()}
    here = ROOT / "cfctl" / "v1"
    checked_in = {path.name: path.read_text() for path in here.glob("*_pb2*") if path.is_file()}
    assert fresh == checked_in, "run: make protos"


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("device.json", device_pb2.Device),
        ("device.json#/properties/instances/items", device_pb2.Instance),
        ("device.json#/properties/failure", device_pb2.Failure),
        ("error.json#/properties/error", device_pb2.Error),
        ("doctor.json#/properties/findings/items", host_pb2.Finding),
        ("log.json", devices_pb2.LogLine),
    ],
    ids=lambda value: value if isinstance(value, str) else value.DESCRIPTOR.name,
)
def test_messages_have_what_json_has(schema: str, message: type) -> None:
    name, _, pointer = schema.partition("#")
    document = json.loads((SCHEMAS / name).read_text())
    for key in pointer.split("/")[1:]:
        document = document[key]
    fields = set(message.DESCRIPTOR.fields_by_name)  # type: ignore[attr-defined]
    # What a verb has that no call of the API answers.
    elsewhere = {"snapshot", "context"} if name == "device.json" else set()
    assert set(document["properties"]) - elsewhere <= fields
