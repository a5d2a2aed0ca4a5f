"""Where the system's packages come from."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cfctl.guest.sources import Selection, Source, parse_deb822, parse_one_line, system

ONE_LINE = """
# deb http://commented.example/debian stable main
deb http://archive.example/debian stable main contrib   # a remark
deb [arch=amd64 signed-by=/usr/share/keyrings/K.gpg] https://other.example/x stable main
deb-src http://archive.example/debian stable main
deb [trusted=yes] file:///srv/mirror stable main
"""

DEB822 = """\
Types: deb deb-src
# a remark
URIs: http://archive.example/debian http://second.example/debian
Suites: stable stable-updates
Components: main
Signed-By: /usr/share/keyrings/K.gpg

Types: deb-src
URIs: http://sources.example/debian
Suites: stable
Components: main

Types: deb
URIs: http://off.example/debian
Suites: stable
Components: main
Enabled: no

Types: deb
URIs: http://inline.example/debian
Suites: stable
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abcd
 -----END PGP PUBLIC KEY BLOCK-----
"""


def test_one_line() -> None:
    assert parse_one_line(ONE_LINE) == [
        Source("http://archive.example/debian", ("stable",), ("main", "contrib")),
        Source("https://other.example/x", ("stable",), ("main",), "/usr/share/keyrings/K.gpg"),
        Source("file:///srv/mirror", ("stable",), ("main",), None, trusted=True),
    ]


def test_deb822() -> None:
    first, second, inline = parse_deb822(DEB822)
    suites = ("stable", "stable-updates")
    assert first == Source("http://archive.example/debian", suites, ("main",), "/usr/share/keyrings/K.gpg")
    assert second.uri == "http://second.example/debian"
    assert inline.signed_by is not None
    assert "\n -----END PGP" in inline.signed_by


def test_system_reads_both_styles_whatever_the_name(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("Types: deb\nURIs: http://a.example\nSuites: s\nComponents: main\n")
    (parts / "b.list").write_text("deb http://b.example s main\n")
    (parts / "c.sources").write_text("Types: deb\nURIs: http://c.example\nSuites: s\nComponents: main\n")
    (parts / "d.sources.off").write_text("Types: deb\nURIs: http://d.example\nSuites: s\nComponents: main\n")
    assert [source.uri[7] for source in system(tmp_path)] == ["a", "b", "c"]


def test_only_archives_of_the_release_are_chosen() -> None:
    sources = [
        *parse_deb822(DEB822),
        Source("http://security.example", ("stable-security",), ("main",)),
        Source("http://flat.example", ("stable",), ()),
    ]
    chosen = Selection.of(sources, "stable")
    assert [source.uri.split("/")[2] for source in chosen.archives] == [
        "archive.example",
        "second.example",
        "inline.example",
    ]
    assert Selection.of(sources, "other").archives == ()


def test_what_is_written_can_be_read() -> None:
    chosen = Selection.of(parse_deb822(DEB822), "stable")
    again = parse_deb822(chosen.deb822(("stable", "stable-backports")))
    assert [source.uri for source in again] == [source.uri for source in chosen.archives]
    assert {source.suites for source in again} == {("stable", "stable-backports")}
    assert [source.signed_by for source in again] == [source.signed_by for source in chosen.archives]


@given(st.text())
def test_no_file_breaks_it(text: str) -> None:
    parse_one_line(text)
    parse_deb822(text)
