"""What the distributions' own tools find in the packages, and what the generated pages and completions do."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import typer.main

from cfctl.cli.app import app
from tests.packaging import built
from tools.packages import help_texts


def test_lintian_finds_nothing_that_is_not_argued(packages: built.Built) -> None:
    done = subprocess.run(
        ["lintian", "--no-cfg", "--allow-root", "--fail-on", "error,warning", *packages.deb.values()],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


def test_rpmlint_finds_nothing_that_is_not_argued(packages: built.Built, tmp_path: Path) -> None:
    settings = built.REPO / "packaging/rpm/rpmlint.toml"
    done = subprocess.run(
        ["rpmlint", "-c", settings, *packages.rpm.values()],
        # Debian's rpm makes a database in the home directory.
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "0 errors, 0 warnings" in done.stdout, done.stdout


def test_every_verb_is_in_a_page_that_man_takes(tmp_path: Path) -> None:
    pages = dict(help_texts.pages(1_700_000_000))
    root = typer.main.get_command(app)
    verbs = {name: command for name, command in root.commands.items() if not command.hidden}  # type: ignore[attr-defined]
    assert pages.keys() == {"cfctl.1", *(f"cfctl-{name}.1" for name in verbs)}
    files = []
    for name, text in pages.items():
        files.append(tmp_path / f"{name}.gz")
        files[-1].write_bytes(gzip.compress(text.encode()))
    shown = subprocess.run(
        ["man", "--warnings", "--local-file", *files],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "100"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert shown.stderr == ""
    host = pages["cfctl-host.1"]
    for name, command in verbs["host"].commands.items():
        assert f'.SH "CFCTL HOST {name.upper()}"' in host
        for option in (word for param in command.params for word in param.opts if word.startswith("--")):
            assert option.replace("-", "\\-") in host, option
    assert "cfctl host setup --instances 4" in shown.stdout
