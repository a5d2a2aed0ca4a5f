"""The house's order: imports point downwards, and starting up loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PACKAGE = REPO / "cfctl"

#: Everything a floor may import from: itself and whatever stands lower. ``guest`` stands beside ``launch``.
FOUNDATION = {
    "config",
    "locks",
    "arch",
    "instance",
    "paths",
    "process",
    "errors",
    "disk",
    "distro",
    "elf",
    "signals",
    "steps",
}
MIDDLE = {"artifacts", "hostres", "gpu", "control", "wire"}
MAY_IMPORT = {
    "cli": {"api", "docker", "relay", "remote", "launch", "guest", "v1", "viewer"} | MIDDLE | FOUNDATION,
    "api": {"docker", "launch", "guest"} | MIDDLE | FOUNDATION,
    "docker": {"launch"} | MIDDLE | FOUNDATION,
    # The daemon and its client speak by the protocol alone.
    "relay": {"launch", "v1"} | MIDDLE | FOUNDATION,
    "remote": {"launch", "v1"} | MIDDLE | FOUNDATION,
    "launch": MIDDLE | FOUNDATION,
    "guest": MIDDLE | FOUNDATION,
    "artifacts": FOUNDATION,
    "hostres": FOUNDATION,
    "gpu": FOUNDATION,
    # What one verb of the command line needs of WebRTC.
    "viewer": {"launch"} | MIDDLE | FOUNDATION,
    "control": FOUNDATION,
    "wire": {"v1"} | FOUNDATION,
    # Written by tools/protos.
    "v1": set(),
    "__main__": {"cli"},
    "__init__": {"api"},
    **dict.fromkeys(FOUNDATION, FOUNDATION),
}

#: Programs that cfctl starts, not modules that it imports: the standard library is all they may use.
PROGRAMS = {"gpu/ask_egl.py", "gpu/ask_libraries.py", "gpu/ask_vulkan.py"}

#: Modules of which the import costs more than showing a help text may.
HEAVY = {
    "aiohttp",
    "aiortc",
    "av",
    "asyncio",
    "docker",
    "google.protobuf",
    "grpc",
    "hypothesis",
    "msgspec",
    "multiprocessing",
    "paramiko",
    "pydantic",
    "pygments",
    "pyroute2",
    "pytest",
    "rich",
    "sqlite3",
    "ssl",
    "tomllib",
    "urllib.request",
    "xml",
}


def sources() -> list[Path]:
    """Return every module of the package and the programs of the embedded host package."""
    return sorted(PACKAGE.rglob("*.py"))


def part(file: Path) -> str:
    """Return the folder or module of the foundation that a file belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(file: Path) -> Iterator[str]:
    """Return the full name of everything that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(name: str) -> str | None:
    """Return the part of cfctl that ``cfctl.PART...`` names; None for anything that is not cfctl's."""
    words = name.split(".")
    return words[1] if words[0] == "cfctl" and len(words) > 1 else None


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_downwards(file: Path) -> None:
    home = part(file)
    assert home in MAY_IMPORT, f"{home} is not in the drawing of the house"
    allowed = MAY_IMPORT[home] | {home, "__version__"}
    assert {name for name in imported(file) if own(name) not in {None, *allowed}} == set()


def test_the_foundation_has_no_circle() -> None:
    graph = {name: {own(n) for n in imported(PACKAGE / f"{name}.py")} & FOUNDATION for name in FOUNDATION}
    while graph:
        leaves = {name for name, needs in graph.items() if not needs & set(graph)}
        assert leaves, f"a circle: {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in leaves}


def test_only_process_starts_programs() -> None:
    banned = {"subprocess", "pty", "os.system", "os.popen", "os.posix_spawn", "os.spawnv"}
    guilty = {
        str(file.relative_to(PACKAGE))
        for file in sources()
        for name in imported(file)
        if name.split(".")[0] in banned or name in banned
    }
    assert guilty == {"process.py"}


def test_nothing_but_its_programs_the_command_line_and_the_api_imports_the_guest() -> None:
    guilty = {
        str(file.relative_to(PACKAGE))
        for file in sources()
        if part(file) not in ("guest", "cli", "api") and any(own(name) == "guest" for name in imported(file))
    }
    assert guilty == set()


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_children_need_the_standard_library_only(program: str) -> None:
    names = {name.split(".")[0] for name in imported(PACKAGE / program)}
    assert names <= sys.stdlib_module_names
    stem = program.removesuffix(".py").replace("/", ".")
    assert not any(f"cfctl.{stem}" in name for file in sources() for name in imported(file))


@pytest.mark.parametrize(
    "command",
    [["--help"], ["--version"], ["host", "--help"], ["docker", "create", "--help"], ["gpu", "probe", "--help"]],
)
def test_help_loads_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys\nfrom cfctl.cli.app import run\nstatus = run(sys.argv[1:])\n"
        "print(status, *sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPO)},
    )
    status, *modules = done.stderr.splitlines()[-1].split()
    assert status == "0"
    assert done.stdout
    loaded = {name for module in modules for name in (module, module.split(".")[0], ".".join(module.split(".")[:2]))}
    assert loaded & HEAVY == set()


def test_import_cfctl_loads_nothing_of_ours() -> None:
    code = "import sys, cfctl; print(*(name for name in sys.modules if name.startswith('cfctl')))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={"PYTHONPATH": str(REPO)},
    )
    assert done.stdout.split() == ["cfctl"]


def test_every_package_has_a_docstring_that_says_why() -> None:
    silent = [file for file in sources() if not ast.get_docstring(ast.parse(file.read_text()))]
    assert silent == []
