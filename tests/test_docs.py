"""The documents say what the code does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import jsonschema
import pytest

from cfctl import config
from tests.schemas import DIRECTORY, schema
from tools import config_page

REPO = Path(__file__).resolve().parents[1]
PAGES = sorted([*REPO.glob("*.md"), *(REPO / "docs").glob("*.md")])
SCHEMAS = sorted(file.stem for file in DIRECTORY.glob("*.json"))


def test_the_page_of_settings_is_the_table() -> None:
    assert config_page.PAGE.read_text() == config_page.page(), "run: make docs"


def test_its_example_can_be_loaded(tmp_path: Path) -> None:
    match = re.search(r"```toml\n(.*?)```", config_page.page(), re.DOTALL)
    assert match
    assert tomllib.loads(match[1])
    (tmp_path / "config.toml").write_text(match[1])
    settings = config.load(config_file=tmp_path / "config.toml", environ={}, upstream_file=tmp_path / "none")
    assert settings["host.instances"] == 20


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_schemas(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(name))
    assert schema(name)["title"]


def properties(node: object) -> set[str]:
    """Return every property that a schema names, at any depth."""
    if isinstance(node, dict):
        named = set(node["properties"]) if isinstance(node.get("properties"), dict) else set()
        return named.union(*(properties(inner) for inner in node.values()))
    return set().union(*(properties(inner) for inner in node)) if isinstance(node, list) else set()


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("error", {"error", "code", "brief", "details", "resolution"}),
        ("gpu", {"mode", "reason", "devices", "modes", "works", "why", "help"}),
    ],
)
def test_the_keys_of_the_contract(name: str, keys: set[str]) -> None:
    assert keys <= properties(schema(name))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_make_help_names_every_target_of_the_readme() -> None:
    makefile = (REPO / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE))
    assert {"setup", "demo", "test", "lint", "bench", "clean"} <= targets
    for page in PAGES:
        assert set(re.findall(r"\bmake ([a-z]+)\b(?=`|\s+#|$)", page.read_text(), re.MULTILINE)) <= targets, page


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_lock_files_pin_what_the_project_asks_for(lock: str) -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["build"]]
    if "dev" in lock:
        wanted += project["optional-dependencies"]["dev"]
    text = (REPO / lock).read_text()
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", text, re.MULTILINE))
    names = {re.split(r"[<>=]", line)[0].lower() for line in wanted}
    assert names <= set(pinned), "run: make lock"
    assert text.count("--hash=sha256:") >= len(pinned)
    assert "://" not in text, "a lock file names no index: whoever installs chooses it"


def test_the_two_lock_files_agree() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^([a-z0-9-]+==\S+) \\$", (REPO / name).read_text(), re.MULTILINE))

    assert pins("requirements.lock") <= pins("requirements-dev.lock")
