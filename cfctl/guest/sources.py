"""Reads where this system's Debian packages come from, so that cfctl names no host of its own (sources.list(5))."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Source:
    """One place that packages come from.

    :param uri: the archive.
    :param suites: its suites, as written.
    :param components: its components; empty for an archive without a dists tree.
    :param signed_by: the value of ``Signed-By`` if there is one: a keyring's path, or an inline key.
    :param trusted: whether the system takes it without a signature.
    """

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str | None = None
    trusted: bool = False


def system(etc_apt: Path) -> list[Source]:
    """Return all package sources of the system.

    :param etc_apt: the directory with ``sources.list`` and ``sources.list.d``.
    """
    found = []
    parts = etc_apt / "sources.list.d"
    for path in (etc_apt / "sources.list", *sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))):
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        # Only the name tells the format; images exist whose sources.list is in the newer one.
        newer = path.suffix == ".sources" or re.search(r"^Types:", text, re.MULTILINE)
        found += parse_deb822(text) if newer else parse_one_line(text)
    return found


_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<rest>[^#]*)")


def parse_one_line(text: str) -> list[Source]:
    """Read the one-line style: ``deb [options] uri suite component ...``."""
    found = []
    for line in text.splitlines():
        match = _ONE_LINE.match(line.strip())
        if match is None:
            continue
        words = (word.partition("=") for word in (match["options"] or "").split())
        options = {name.lower(): value for name, _, value in words}
        found.append(
            Source(
                match["uri"],
                (match["suite"],),
                tuple(match["rest"].split()),
                options.get("signed-by"),
                options.get("trusted") == "yes",
            )
        )
    return found


def parse_deb822(text: str) -> list[Source]:
    """Read the deb822 style: stanzas of fields, values over several lines."""
    found = []
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields = _fields(stanza.splitlines())
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        found += [
            Source(
                uri,
                tuple(fields.get("suites", "").split()),
                tuple(fields.get("components", "").split()),
                fields.get("signed-by"),
                fields.get("trusted", "no").lower() == "yes",
            )
            for uri in fields.get("uris", "").split()
        ]
    return found


def _fields(lines: Iterable[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in lines:
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t") and name:
            fields[name] += "\n" + line
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return {key: value.strip() if "\n" not in value else value for key, value in fields.items()}


@dataclass(frozen=True, slots=True)
class Selection:
    """The archives that serve one release, and the suites of it that the guest is made from.

    :param codename: the release, for example ``bookworm``.
    :param archives: sources whose suites include the release itself.
    """

    codename: str
    archives: Sequence[Source] = field(default_factory=tuple)

    @classmethod
    def of(cls, sources: Iterable[Source], codename: str) -> Selection:
        """Choose the sources that serve the release itself, one per URI."""
        chosen: dict[str, Source] = {}
        for source in sources:
            if codename in source.suites and source.components and "://" in source.uri:
                chosen.setdefault(source.uri, source)
        return cls(codename, tuple(chosen.values()))

    def deb822(self, suites: Sequence[str]) -> str:
        """Return a private ``.sources`` file that asks these archives for ``suites``."""
        stanzas = []
        for source in self.archives:
            lines = [
                "Types: deb",
                f"URIs: {source.uri}",
                f"Suites: {' '.join(suites)}",
                f"Components: {' '.join(source.components)}",
            ]
            if source.signed_by:
                lines.append(f"Signed-By: {source.signed_by}")
            if source.trusted:
                lines.append("Trusted: yes")
            stanzas.append("\n".join(lines))
        return "\n\n".join(stanzas) + "\n"
