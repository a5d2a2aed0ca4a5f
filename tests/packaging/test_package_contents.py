"""What is in the packages: nothing slips in or out, everything is root's, and it loads on the oldest target."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging import built, listing
from tools.packages import elf_versions, stage, wheels
from tools.packages.targets import TARGETS

REPO = built.REPO
GOLDEN = Path(__file__).with_name("golden")
SITE = "usr/lib/cfctl/lib/python3.11/site-packages"
RELAY = (REPO / "packaging/systemd/cfctl-relay.service").exists()


@pytest.fixture(scope="module")
def unpacked(packages: built.Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The main package's files."""
    tree = tmp_path_factory.mktemp("cfctl")
    subprocess.run(["dpkg-deb", "-x", packages.deb["cfctl"], tree], check=True)
    return tree


def golden(family: str, name: str) -> list[str]:
    lines = (GOLDEN / family / name).read_text().splitlines()
    # The relay's unit comes with the relay.
    return [line for line in lines if RELAY or name != "cfctl-relay" or "/systemd" not in line]


@pytest.mark.parametrize("name", built.NAMES)
@pytest.mark.parametrize("family", ["deb", "rpm"])
def test_the_files_are_those_of_the_golden_list(packages: built.Built, family: str, name: str) -> None:
    file = getattr(packages, family)[name]
    found = getattr(listing, family)(file)
    assert listing.without_contents(found) == golden(family, name)
    assert {line.split()[1] for line in found} == {"root/root"}
    assert not [line for line in found if re.match(r"-.{7}w|-..s|-.{5}s", line)], "writable for all, or setuid"
    assert not [path for path in listing.paths(found) if "__pycache__" in path]


def test_cfctl_itself_is_all_there(packages: built.Built, unpacked: Path) -> None:
    ours = {path.relative_to(REPO / "cfctl") for path in built.sources() if path.is_relative_to(REPO / "cfctl")}
    # The profiles of GPUs are a link in the checkout.
    ours |= {Path("gpu/profiles") / path.relative_to(REPO / "gpu") for path in (REPO / "gpu").rglob("*.toml")}
    packed = {path.relative_to(unpacked / SITE / "cfctl") for path in (unpacked / SITE / "cfctl").rglob("*")}
    assert ours - {Path("gpu/profiles")} <= packed
    extra = {path for path in packed - ours if (unpacked / SITE / "cfctl" / path).is_file()}
    assert {path.parts[:2] for path in extra} <= {("gpu", "profiles")}
    for family in ("deb", "rpm"):
        paths = listing.paths(getattr(listing, family)(getattr(packages, family)["cfctl"]))
        for page in (REPO / "docs").glob("*.md"):
            assert f"/usr/share/doc/cfctl/{page.name}" in paths
        for schema in (REPO / "docs/schema").glob("*.json"):
            assert f"/usr/share/doc/cfctl/schema/{schema.name}" in paths


def test_the_libraries_are_those_of_the_lock_file(unpacked: Path) -> None:
    locked = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", (REPO / "requirements.lock").read_text(), re.MULTILINE))
    del locked["setuptools"]
    said = (unpacked / "usr/share/doc/cfctl/bundled.txt").read_text().split("\n\n")[1].splitlines()
    rows = dict(line.split(": ", 1) for line in said)
    found = dict(name.rsplit(" ", 1) for name in rows)
    assert {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found.items()} == {
        re.sub(r"[-_.]+", "-", name).lower(): version for name, version in locked.items()
    }
    assert [name for name, licence in rows.items() if licence == "see its files"] == []
    # The texts themselves, too.
    without = [
        path.name
        for path in (unpacked / SITE).glob("*.dist-info")
        if not [text for text in path.rglob("*") if re.search("(?i)licen[cs]e|copying|notice", text.name)]
    ]
    assert without == ["qemu_qmp-0.0.6.dist-info"] or without == []


def test_what_wheels_bring_besides_their_own_code_is_listed_with_its_licence(unpacked: Path, tmp_path: Path) -> None:
    table = REPO / "packaging/bundled-native.tsv"
    said = (unpacked / "usr/share/doc/cfctl/bundled.txt").read_text().split("\n\n")[3].splitlines()
    assert "av, x265: GPL-2.0-or-later" in said
    assert "av, FFmpeg: GPL-3.0-or-later" in said
    assert "google_crc32c, crc32c: BSD-3-Clause" in said
    assert said == [f"{wheel}, {name}: {licence}" for wheel, name, licence in wheels.native(unpacked / SITE, table)]
    (tmp_path / "av.libs").mkdir()
    (tmp_path / "av.libs/libnew-1234.so.5").touch()
    with pytest.raises(SystemExit, match=r"av brings libnew-1234\.so\.5, whose licence is not in "):
        wheels.native(tmp_path, table)
    # No line is of a library that is not there any more.
    files = [path.name for path in (unpacked / SITE).glob("*.libs/*")]
    beginnings = [line.split("\t")[1] for line in table.read_text().splitlines() if not line.startswith("#")]
    assert [name for name in beginnings if name != "-" and not any(file.startswith(name) for file in files)] == []


def test_no_library_needs_more_than_the_oldest_target_has(unpacked: Path) -> None:
    libraries = list(elf_versions.libraries(unpacked))
    # Those of the screens, which their makers build elsewhere than the rest, are among them.
    assert {"av", "av.libs", "aiohttp", "grpc", "cryptography", "pylibsrtp"} <= {
        path.relative_to(unpacked / SITE).parts[0] for path in libraries
    }
    newest: tuple[int, ...] = (0, 0)
    for path in libraries:
        data = path.read_bytes()
        found = {name for name in elf_versions.versions(data) if name.startswith("GLIBC_")}
        # Another way to read it: the names as they lie in the file.
        assert found == {name.decode() for name in re.findall(rb"\bGLIBC_[0-9.]+(?=\0)", data)}, path
        newest = max([newest, *(tuple(map(int, name[6:].split(".")[:2])) for name in found)])
    assert (2, 14) < newest <= (2, 28)
    elf_versions.check(unpacked)
    with pytest.raises(SystemExit, match=r"needs GLIBC_2\.\d+; the oldest target has 2\.5"):
        elf_versions.check(unpacked, newest=(2, 5))


def test_no_library_needs_another_that_is_not_a_dependency(unpacked: Path) -> None:
    from cfctl import elf

    # libc6, libstdc++6 (and libgcc-s1, which it needs), zlib1g in Debian; glibc, libstdc++, libgcc, zlib in RHEL.
    system = r"ld-linux.*|libc|libm|libmvec|libdl|librt|libpthread|libstdc\+\+|libgcc_s|libz"
    files = list(elf_versions.libraries(unpacked))
    # A wheel's own are in a folder beside its package, under names that nobody else's have.
    beside = {path.name for path in files if path.parent.name.endswith(".libs")}
    for path in files:
        names = set(elf.needed(path.read_bytes())) - beside
        assert [name for name in names if not re.fullmatch(system, Path(name).name.partition(".so")[0])] == [], path


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("cfctl", "python3.11, libc6 (>= 2.28), libstdc++6, zlib1g"),
        (
            "cfctl-host-resources",
            "cfctl (= 0.1.0-1~deb12), dnsmasq-base, iproute2, kmod, nftables | iptables, passwd",
        ),
        ("cfctl-docker", "cfctl (>= 0.1.0-1~deb12)"),
        ("cfctl-relay", "cfctl (= 0.1.0-1~deb12)"),
    ],
)
def test_debian_names(packages: built.Built, name: str, wanted: str) -> None:
    done = subprocess.run(
        ["dpkg-deb", "-f", packages.deb[name], "Depends"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == wanted


def test_every_target_is_of_a_python_that_cfctl_runs_on() -> None:
    assert {target.family for target in TARGETS.values()} == {"deb", "rpm"}
    for target in TARGETS.values():
        assert target.python >= (3, 11)
        # Where the system's own is another one, the package of this one has its version in its name.
        assert target.python_package in (target.python_name, "python3")


def test_another_target_is_laid_out_for_its_own_python(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of that system is needed: its libraries are fetched by the tags of their wheels."""
    monkeypatch.setenv("CFCTL_PATHS_CACHE", str(built.CACHE))
    laid_out = stage.make(TARGETS["el10"])
    home = laid_out.root("cfctl") / "usr/lib/cfctl"
    assert (home / "bin/python3").readlink().name == "python3.12"
    site = home / "lib/python3.12/site-packages"
    libraries = list(elf_versions.libraries(site))
    assert len(libraries) > 90
    extensions = {path for path in libraries if ".libs" not in path.parent.name}
    marks = {path.name.split(".", 1)[1] for path in extensions}
    assert marks == {"abi3.so", "cpython-312-x86_64-linux-gnu.so"}
    elf_versions.check(site)
    assert {path.name for path in site.glob("*.dist-info")} == {
        path.name for path in (unpacked / SITE).glob("*.dist-info")
    }


def copy_of_the_checkout(copy: Path) -> None:
    for path in built.sources():
        target = copy / path.relative_to(REPO)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        target.chmod(0o700 if os.access(path, os.X_OK) else 0o600)
    (copy / "cfctl/gpu/profiles").unlink(missing_ok=True)
    (copy / "cfctl/gpu/profiles").symlink_to("../../gpu")
    # The libraries were fetched and checked by the first build.
    (built.BUILD / "wheels").mkdir(parents=True, exist_ok=True)
    (copy / "build/packages").mkdir(parents=True)
    (copy / "build/packages/wheels").symlink_to(built.BUILD / "wheels")


def test_a_second_build_elsewhere_is_the_same_to_the_byte(packages: built.Built, tmp_path: Path) -> None:
    """The RPMs are made again as whoever gets the source package makes them, without any network."""
    copy = tmp_path / "elsewhere"
    copy_of_the_checkout(copy)
    env = built.environment(
        SOURCE_DATE_EPOCH=built.epoch(), TZ="Asia/Tokyo", LC_ALL="C", HOME=str(tmp_path), USER="nobody"
    )
    defines = {
        "_topdir": tmp_path,
        "_rpmdir": tmp_path / "rpm",
        "_sourcedir": tmp_path / "SOURCES",
        "_dbpath": tmp_path / "db",
        "_build_name_fmt": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
        # Debian's python3.11 has no pip.
        "builder": sys.executable,
    }
    said = [word for name, value in defines.items() for word in ("--define", f"{name} {value}")]
    subprocess.run(["rpm", "-i", *said, packages.source], env=env, check=True, capture_output=True)
    # Not --rebuild, which adds a mark of the source package; what is required has RHEL's names.
    spec = tmp_path / "SPECS/cfctl.spec"
    rebuild: list[str | Path] = ["unshare", "--net", "rpmbuild", "-bb", "--quiet", "--nodeps", *said, spec]
    again: list[str | Path] = [sys.executable, "-m", "tools.packages", "deb", "--out", tmp_path / "deb"]
    builds = {
        family: subprocess.Popen(
            ["sh", "-c", 'umask 077; exec "$@"', "sh", *command],
            cwd=copy,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for family, command in (("deb", again), ("rpm", rebuild))
    }
    for family, first in (("deb", packages.deb), ("rpm", packages.rpm)):
        assert builds[family].wait(timeout=600) == 0
        second = {file.name: file.read_bytes() for file in (tmp_path / family).iterdir()}
        assert second.keys() == {file.name for file in first.values()}
        assert [file.name for file in first.values() if file.read_bytes() != second[file.name]] == []


def test_the_rpms_say_what_is_bundled_and_under_which_licence(packages: built.Built) -> None:
    def asked(name: str, form: str) -> list[str]:
        command: list[str | Path] = ["rpm", "-qp", "--dbpath", "/dev/null/none", "--qf", form, packages.rpm[name]]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    locked = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", (REPO / "requirements.lock").read_text(), re.MULTILINE))
    del locked["setuptools"]
    provided = asked("cfctl", "[%{PROVIDES} %{PROVIDEVERSION}\n]")
    python = dict(re.findall(r"^bundled\(python3dist\((.*)\)\) (.*)$", "\n".join(provided), re.MULTILINE))
    assert python == {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in locked.items()}
    assert {"bundled(ffmpeg) ", "bundled(openssl) ", "bundled(x264) "} <= set(provided)
    # A kernel is not under the licence of cfctl.
    assert asked("cfctl-guest", "%{LICENSE}")[0].startswith("GPL-2.0-only AND ")
