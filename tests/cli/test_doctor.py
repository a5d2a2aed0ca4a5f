"""``cfctl host doctor``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cfctl.cli import app
from cfctl.guest import kvm
from cfctl.hostres.doctor import facts as facts_module
from cfctl.hostres.doctor import fix
from cfctl.hostres.doctor.facts import Facts, Kvm
from cfctl.hostres.doctor.finding import Finding
from cfctl.hostres.firewall import Needs
from cfctl.hostres.safety import Network
from tests.hostres import patients
from tests.schemas import conforms

Play = Callable[[Facts], None]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Make the verb see another host than this one."""

    def show(facts: Facts) -> None:
        verdict = kvm.Verdict(ok=bool(facts.kvm.ok), reason=facts.kvm.reason, known=facts.kvm.ok is not None)
        monkeypatch.setattr(kvm, "usable", lambda: verdict)

        def gather(
            trial: Kvm, *, instances: int, subnets: tuple[Network, ...], firewall: str, needs: Needs, setup: str
        ) -> Facts:
            assert needs == facts.needs
            assert setup == f"sudo cfctl host setup --instances {instances}"
            assert len(subnets) == 2 * instances + 2
            assert trial == facts.kvm
            assert firewall == facts.firewall
            assert instances == facts.instances
            return facts

        monkeypatch.setattr(facts_module, "gather", gather)

    return show


def test_nothing_wrong(tmp_path: Path, play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play(patients.healthy(tmp_path))
    assert app.run(["host", "doctor", "--instances", "4", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    conforms(document, "doctor")
    assert (document["result"], document["mended"], err) == ("ok", [], "")


def test_warnings_are_no_failure(tmp_path: Path, play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play(patients.centos(tmp_path))
    assert app.run(["host", "doctor", "--instances", "4", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "  warn selinux                enforcing: started by a service" in out
    assert out.splitlines()[-1].startswith("0 failed, 1 to look at, ")


def test_a_lack_for_people(tmp_path: Path, play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    facts = patients.healthy(tmp_path, kvm=patients.KVM_HANGS)
    patients.remove(tmp_path, "sys/module/vhost_vsock/refcnt", "dev/vhost-vsock")
    play(facts)
    assert app.run(["host", "doctor", "--instances", "4", "--quiet"]) == 4
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("kernel")
    assert lines[at + 1].split() == ["FAIL", "kvm", *patients.KVM_HANGS.reason.split()]
    assert lines[at + 2].startswith("       Android needs hardware help")
    assert lines[at + 3].startswith("       -> ")
    assert (
        "       -> sudo modprobe vhost_vsock && echo vhost_vsock | sudo tee -a /etc/modules-load.d/cfctl.conf"
        in lines
    )
    assert lines[-1].endswith("cfctl host doctor --fix")


def test_with_colour(
    tmp_path: Path, play: Play, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    play(patients.centos(tmp_path))
    monkeypatch.setattr("cfctl.cli.common.use_colour", lambda _: True)
    assert app.run(["host", "doctor", "--instances", "4", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "✓" in out
    assert "FAIL" not in out


def test_fix_looks_again(
    tmp_path: Path, play: Play, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = patients.healthy(tmp_path)
    patients.write(tmp_path, {"etc/group": "root:x:0:\nkvm:x:36:\n"})
    play(facts)

    def mend(findings: list[Finding]) -> list[str]:
        assert [finding.check for finding in findings if finding.fixable] == ["group cvdnetwork"]
        patients.write(tmp_path, {"etc/group": "root:x:0:\nkvm:x:36:\ncvdnetwork:x:970:\n"})
        return ["groupadd --system cvdnetwork"]

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(fix, "run", lambda findings: mend(list(findings)))
    assert app.run(["host", "doctor", "--instances", "4", "--fix", "--quiet"]) == 0
    assert "mended: groupadd --system cvdnetwork\n" in capsys.readouterr().out


def test_fix_as_a_user(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert app.run(["host", "doctor", "--fix", "--json", "--quiet"]) == 4
    document = json.loads(capsys.readouterr().out)
    conforms(document, "error")
    assert document["error"]["code"] == "needs-root"
