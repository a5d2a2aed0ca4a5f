"""The host's network, as a Python program prepares it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl import config
from cfctl.api.wares import kvm_trial
from cfctl.artifacts import choose
from cfctl.docker import contained
from cfctl.hostres import host
from cfctl.launch import census

if TYPE_CHECKING:
    from cfctl.config import Settings
    from cfctl.hostres.doctor.finding import Finding
    from cfctl.hostres.plan import Plan


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was done to the host, or would be.

    :param action: create, change or remove.
    :param object: what, for example ``tap cvd-etap-01``.
    """

    action: str
    object: str
    reason: str


@dataclass(frozen=True, slots=True)
class HostState:
    """How the host's network is, or what was done to it.

    :param state: ``ready``, ``absent`` (nothing is set up) or ``drift`` (not as it should be).
    :param instances: how many instances it should serve.
    :param changes: what is missing; of ``setup`` and ``teardown``, what was done.
    """

    state: str
    instances: int
    changes: tuple[Change, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as ``cfctl host status --json`` has it, without the settings."""
        changes = [{"action": c.action, "object": c.object, "reason": c.reason} for c in self.changes]
        return {"state": self.state, "instances": self.instances, "changes": changes}


class Host:
    """The host's network: bridges, taps, addresses, NAT and DHCP for a number of instances.

    ::

        Host(instances=10).setup()          # as root; a second time it changes nothing
        assert Host().status().state == "ready"

    :param instances: how many instances it is to serve; None is as the settings say, else as now, else 10.
    :param bridge: an existing bridge that devices become members of; None is as the settings say.
    :param config_file: settings instead of /etc/cfctl/config.toml.
    """

    def __init__(
        self, *, instances: int | None = None, bridge: str | None = None, config_file: Path | str | None = None
    ) -> None:
        self._flags = {"host.instances": instances, "host.bridge": bridge}
        self._config_file = None if config_file is None else Path(config_file).expanduser()

    def _settings(self) -> Settings:
        return config.load(config_file=self._config_file, flags=self._flags)

    def status(self) -> HostState:
        """Compare the host with what it should be; changes nothing and needs no root.

        :raises CfctlError: if the settings or the host cannot be read.
        """
        work, _ = host.status(self._settings())
        return _state(work, work.state)

    def plan(self, *, adopt: bool = False, force: bool = True) -> HostState:
        """Return what :meth:`setup` would do, if it may.

        :param adopt: as of a set-up that makes ours what upstream's script has made.
        :param force: as of a set-up that goes on regardless of running devices.
        :raises CfctlError: if it would refuse: foreign objects, clashing subnets, devices that are up.
        """
        work, _ = host.check(self._settings(), adopt=adopt, force=force)
        return _state(work, work.state)

    def setup(self, *, adopt: bool = False, force: bool = False) -> HostState:
        """Make the host ready, by doing no more than is missing; needs root.

        :param adopt: make ours what upstream's script has made.
        :param force: delete taps of devices that run.
        :return: what was done.
        :raises NeedsRoot: for an ordinary user.
        :raises CfctlError: as :meth:`plan`; and if a step fails, after which nothing half-made is left.
        """
        work, _ = host.setup(self._settings(), adopt=adopt, force=force)
        return _state(work, "ready" if work.desired.instances else "absent")

    def teardown(self, *, force: bool = False) -> HostState:
        """Take down everything of cfctl's; needs root.

        :param force: take the network from running devices too.
        :return: what was done.
        :raises NeedsRoot: for an ordinary user.
        :raises DevicesUp: naming the taps in use; nothing was changed.
        """
        return _state(host.teardown(force=force), "absent")

    def doctor(self, *, host_package: Path | None = None) -> dict[str, list[Finding]]:
        """Look for what devices lack on this host; changes nothing.

        :param host_package: look also for the shared libraries of its programs.
        :return: findings by family; each has a result, a reason and what helps.
        """
        from cfctl.hostres import doctor
        from cfctl.hostres.doctor import facts

        package = choose.directory(host_package, "host-package")
        gathered = facts.of_settings(self._settings(), kvm_trial())
        return {str(family): list(found) for family, found in doctor.examine(gathered, host_package=package).items()}

    def devices(self) -> list[dict[str, Any]]:
        """Return every device on this host, whoever started it, and those in this user's containers.

        As ``cfctl ps --json`` does. A container's engine that does not answer is a note for the reporter.
        """
        return [*(device.as_dict() for device in census.everything()), *contained.devices()]


def _state(work: Plan, state: str) -> HostState:
    changes = tuple(Change(change.action, change.object, change.reason) for change in work.changes)
    return HostState(state, work.desired.instances, changes)
