"""A VM of crosvm's in a container: its program is read, and not run."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cfctl.control import crosvm, operations, perform
from cfctl.control.operations import Manager
from cfctl.control.target import VmTarget
from tests import crosvm as standin

PATIENCE_S = 30.0


def test_a_crosvm_among_other_files(tmp_path: Path) -> None:
    program = standin.write(tmp_path / "crosvm", "2022")
    (tmp_path / "s/internal").mkdir(parents=True)
    target = VmTarget("phone", Manager.CROSVM, tmp_path / "s")
    with standin.serving(target, program, prefix=("unshare", "--mount")):
        found = asyncio.run(crosvm.find(target, seconds=PATIENCE_S))
        assert found.path is None, "its libraries are not ours"
        assert found.age.knows("SuspendVm") is False
        asyncio.run(perform.perform(target, operations.operation("suspend"), seconds=PATIENCE_S))
        notes = tmp_path / "crosvm"
        assert '"suspended": true' in (notes / "state.json").read_text()
        # In the words of its age, and without a try in those of another.
        assert "SuspendVm" not in (notes / "requests").read_text()
        assert len((notes / "commands").read_text().splitlines()) == 1, "nobody ran it but for the VM"
