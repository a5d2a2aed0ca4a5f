"""The Python API for real: the README's lines and the page's examples, against the embedded guest."""

from __future__ import annotations

import re

import pytest

from tests.system.sandbox import REPO, Sandbox
from tests.system.test_device_faults import Package, host, leaves_nothing, package

__all__ = ["host", "package"]


def blocks(page: str) -> list[str]:
    """Return the Python in a page."""
    return re.findall(r"```python\n(.*?)```", (REPO / page).read_text(), re.DOTALL)


def python(sandbox: Sandbox, code: str, **kwargs: str) -> str:
    return sandbox.run(sandbox.cfctl_argv()[0], "-c", code, **kwargs).stdout  # type: ignore[arg-type]


def test_the_readme_shows_ten_lines_that_work(sandbox: Sandbox, host_package: object) -> None:
    (code,) = blocks("README.md")
    assert len(code.splitlines()) == 10
    assert blocks("docs/api.md")[0] == code
    said = python(sandbox, code).splitlines()
    assert said[0] == "running 127.0.0.1:6520"
    assert said[1].startswith("Linux ")
    assert "VIRTUAL_DEVICE" in said[2]
    assert said[3] == "['phone']"
    sandbox.run("adb", "kill-server")
    leaves_nothing(sandbox)
    assert sandbox.json("host", "status", "--instances", "2", check=False)["state"] == "absent"


def test_the_page_of_the_api_shows_what_works(host: Sandbox, package: Package) -> None:
    directory = package("none")
    _, errors, progress = blocks("docs/api.md")
    assert python(host, errors.replace("/opt/cf", directory)) == ""
    host.cfctl("rm", "--force", "phone")
    said = python(host, progress.replace('launch("phone"', f'launch("phone", host_package="{directory}"'))
    assert "booted: boot completed" in said
    host.cfctl("rm", "--force", "phone")


_WHOLE = """
import os, sys
from cfctl import Device, Host
from cfctl.api import State
from cfctl.errors import *
directory = sys.argv[1]

def raises(kind, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind as error:
        assert error.brief and type(error) is kind, error
    else:
        raise AssertionError(f"{kind} was not raised")

host = Host(instances=2)
assert host.status().state == "ready" and host.plan().changes == () and host.setup().changes == ()
assert all(finding.check and finding.result for found in host.doctor().values() for finding in found)
raises(NoSuchDevice, Device.get, "phone")
raises(UsageError, Device.launch, "phone", host_package="/usr")
phone = Device.launch("phone", host_package=directory, wait=False, num_instances=2)
phone.wait(30)
assert phone.state is State.RUNNING and Device.get("phone") == phone and len({phone, Device("phone")}) == 1
assert [i.number for i in phone.instances] == [1, 2] and phone.as_dict()["state"] == "running"
assert host.devices()[0]["name"] == "phone" and list(Device.list()) == [phone]
raises(NameTaken, Device.launch, "phone", host_package=directory)
raises(UsageError, phone.remove)
raises(UsageError, phone.logs, "nosuch")
assert "VIRTUAL_DEVICE_BOOT_COMPLETED" in phone.logs("kernel", position=2)
assert next(phone.follow("kernel")).startswith("console")
phone.stop()
assert phone.state is State.STOPPED, phone.state
assert phone.stop() == ()
raises(NotRunning, phone.shell, "true")
raises(NotRunning, phone.wait, 1)
phone.restart(timeout=30)
phone.remove(force=True)
raises(NoSuchDevice, lambda: phone.state)
with Device.launch(host_package=directory) as other:
    assert other.name == "cvd-1", repr(other)
hanging = Device.launch("hanging", host_package=directory.replace("none", "hang"), wait=False)
raises(DeadlinePassed, hanging.wait, 0.5)
hanging.remove(force=True)
assert host.teardown().changes and host.status().state == "absent"
"""


def test_the_whole_api(host: Sandbox, package: Package) -> None:
    directory = package("none")
    package("hang")
    done = host.run(host.cfctl_argv()[0], "-c", _WHOLE, directory)
    assert done.stdout == "", "the core prints nothing"
    assert done.stderr == ""
    leaves_nothing(host)


@pytest.mark.parametrize("name", ["Device", "Host"])
def test_the_api_is_documented(name: str) -> None:
    import inspect

    import cfctl

    kind = getattr(cfctl, name)
    public = [member for key, member in vars(kind).items() if not key.startswith("_")]
    assert public
    for member in public:
        assert inspect.getdoc(getattr(member, "__func__", member)), member
    page = (REPO / "docs/api.md").read_text()
    assert [
        key for key in vars(kind) if not key.startswith("_") and f"{key}(" not in page and f".{key}" not in page
    ] == []
