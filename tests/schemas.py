"""Check a document against its published schema: ``conforms(document, "gpu")``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
from referencing import Registry, Resource

DIRECTORY = Path(__file__).resolve().parents[1] / "docs" / "schema"


def schema(name: str) -> dict[str, Any]:
    """Return the schema ``docs/schema/NAME.json``."""
    document: dict[str, Any] = json.loads((DIRECTORY / f"{name}.json").read_text())
    return document


def conforms(document: Any, name: str) -> None:
    """Fail with the place that is wrong unless ``document`` is as ``docs/schema/NAME.json`` says."""
    known = [(path.name, Resource.from_contents(schema(path.stem))) for path in DIRECTORY.glob("*.json")]
    registry: Registry[Any] = Registry().with_resources(known)
    jsonschema.Draft202012Validator(schema(name), registry=registry).validate(document)
