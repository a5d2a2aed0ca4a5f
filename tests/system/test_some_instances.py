"""A device of which some instances have ended: the others can be talked to, and those that have ended are named."""

from __future__ import annotations

from tests.system.sandbox import Sandbox
from tests.system.test_device_faults import leaves_nothing, refused
from tests.system.test_device_faults import package as package
from tests.system.test_follow import Package, adb_file, wait_for
from tests.system.test_follow import host as host


def test_one_of_two_has_ended(host: Sandbox, package: Package) -> None:
    host.cfctl("launch", "farm", "--num-instances", "2", "--host-package", package("none"))
    adb_file(host, "go").write_text("")
    farm = "/var/lib/cfctl/devices/farm/cuttlefish/instances/cvd-2"
    (second,) = (pid for pid, args in host.processes().items() if "/bin/run_cvd" in args and f"{farm}/" in args)
    host.run("kill", "-9", str(second))
    wait_for(lambda: host.json("ps")["devices"][0]["state"] == "unreachable")

    for verb in (["suspend", "farm"], ["snapshot", "farm", "take", "/tmp/snap"]):
        error = refused(host, *verb, code=3)
        assert error["brief"] == "farm is unreachable"
        assert error["details"] == "farm/2 (cvd-2): nothing of it runs any more."
        assert error["resolution"] == "Boot it: cfctl restart farm"

    host.cfctl("adb", "farm/1", "shell", "one")
    assert adb_file(host, "done").read_text() == "one\n"
    done = host.cfctl("adb", "farm/2", "shell", "two", check=False)
    assert done.returncode == 3
    assert "Error: farm/2 is stale" in done.stderr
    assert "cfctl restart farm" in done.stderr
    # This package cannot do it: that it was looked for says that the instance was found to be up.
    assert refused(host, "powerbtn", "farm/1", code=4)
    assert refused(host, "powerbtn", "farm/2", code=3)
    host.cfctl("rm", "--force", "farm")
    leaves_nothing(host)
