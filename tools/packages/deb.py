"""Debian packages from the laid out trees, by dpkg-deb; what they say of themselves is in packaging/deb/debian/."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

from tools.packages.stage import PACKAGES, REPO, Stage, compress, is_private, write
from tools.packages.targets import DEBIAN_ARCH

DEBIAN = REPO / "packaging" / "deb" / "debian"

_QEMU = {"x86_64": "qemu-system-x86, seabios", "aarch64": "qemu-system-arm"}
_SCRIPTS = ("preinst", "postinst", "prerm", "postrm")


def version(stage: Stage) -> str:
    """Return the packages' version."""
    return f"{stage.version}-1{stage.target.suffix}"


def build(stage: Stage, out: Path) -> list[Path]:
    """Return the packages, made in ``out``."""
    stanzas = _stanzas(stage)
    made = []
    for package in PACKAGES:
        root = stage.root(package)
        stanza = stanzas[package]
        _documents(stage, package, root)
        _control(root, package, stanza)
        for path in (path for path in (root, *root.rglob("*")) if path.is_dir()):
            path.chmod(0o700 if is_private(path) else 0o755)
        file = out / f"{package}_{version(stage)}_{stanza['Architecture']}.deb"
        # gzip: a tenth larger than xz, and made in a fifth of the time; most of it is compressed already.
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z6", "--build", root, file],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=dict(os.environ, SOURCE_DATE_EPOCH=str(stage.epoch), TZ="UTC"),
        )
        shutil.rmtree(root / "DEBIAN")
        made.append(file)
    return made


def _stanzas(stage: Stage) -> dict[str, dict[str, str]]:
    """Return the fields of each package, those of the source before its own."""
    text = (DEBIAN / "control").read_text()
    values = {
        "binary:Version": version(stage),
        "cfctl:Python": stage.target.python_package,
        "cfctl:QEMU": _QEMU[stage.arch],
    }
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value)
    stanzas: list[dict[str, str]] = []
    for paragraph in text.strip().split("\n\n"):
        fields: dict[str, str] = {}
        for line in paragraph.splitlines():
            if line.startswith(" "):
                fields[name] += f"\n{line}"
            elif not line.startswith("#"):
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        stanzas.append(fields)
    source, *packages = stanzas
    common = {name: value for name, value in source.items() if name != "Source"}
    found: dict[str, dict[str, str]] = {}
    for fields in packages:
        if fields["Architecture"] == "any":
            fields["Architecture"] = DEBIAN_ARCH[stage.arch]
        head = {"Package": fields["Package"], "Source": source["Source"], "Version": version(stage)}
        if head["Source"] == head["Package"]:
            del head["Source"]
        found[fields["Package"]] = {**head, **common, **fields}
    return found


def _documents(stage: Stage, package: str, root: Path) -> None:
    """Add what every Debian package has: whose it is, and what has changed."""
    docs = root / "usr/share/doc" / package
    docs.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(DEBIAN / "copyright", docs / "copyright")
    (docs / "copyright").chmod(0o644)
    maintainer = _stanzas(stage)[package]["Maintainer"]
    date = format_datetime(datetime.fromtimestamp(stage.epoch, UTC))
    changelog = (
        f"cfctl ({version(stage)}) unstable; urgency=medium\n\n"
        f"  * Packaged; what has changed is in /usr/share/doc/cfctl/CHANGELOG.md.\n\n -- {maintainer}  {date}\n"
    )
    compress(docs / "changelog.Debian.gz", changelog)
    overrides = DEBIAN / f"{package}.lintian-overrides"
    if overrides.exists():
        write(root / "usr/share/lintian/overrides" / package, overrides.read_text())
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, (stage.epoch, stage.epoch), follow_symlinks=False)


def _control(root: Path, package: str, stanza: dict[str, str]) -> None:
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}" for path in files]  # noqa: S324
    configuration = [f"/{path.relative_to(root)}" for path in files if path.is_relative_to(root / "etc")]
    # Kilobytes as dpkg counts them: each file rounded up, each folder and link as one.
    size = sum((path.stat().st_size + 1023) // 1024 if path in set(files) else 1 for path in root.rglob("*"))
    control = root / "DEBIAN"
    write(control / "md5sums", "".join(f"{line}\n" for line in sums))
    if configuration:
        write(control / "conffiles", "".join(f"{line}\n" for line in configuration))
    fields = {**stanza, "Installed-Size": str(size)}
    # The description is last, as everywhere.
    fields["Description"] = fields.pop("Description")
    write(control / "control", "".join(f"{name}: {value}\n" for name, value in fields.items()))
    for script in _SCRIPTS:
        source = DEBIAN / f"{package}.{script}"
        if source.exists():
            write(control / script, source.read_text(), 0o755)
    triggers = DEBIAN / f"{package}.triggers"
    if triggers.exists():
        write(control / "triggers", triggers.read_text())
