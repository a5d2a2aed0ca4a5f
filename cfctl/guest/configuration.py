"""The launch as ``cuttlefish_config.json``: what upstream's tools, and our own run_cvd, read (launcher.md 4.1)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfctl.errors import CfctlError, NotRunning
from cfctl.guest.layout import Places
from cfctl.instance import Instance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cfctl.guest.options import InstanceOptions

VM_MANAGER = "qemu_cli"


def document(
    places: Places,
    options: Sequence[InstanceOptions],
    *,
    daemon: bool,
    accelerator: str,
    operator: str,
    snapshot: str = "",
) -> dict[str, Any]:
    """Return the config of a launch.

    :param accelerator: ``kvm`` or ``tcg``; ours, upstream has no such key.
    :param operator: the socket of the host's operator.
    :param snapshot: the directory of the snapshot that it begins with.
    """
    first = options[0].instance
    return {
        "root_dir": os.fspath(places.root),
        "instances_uds_dir": os.fspath(places.sockets),
        "environments_uds_dir": os.fspath(places.environments),
        "instance_names": [entry.instance.id for entry in options],
        "vm_manager": VM_MANAGER,
        "ap_vm_manager": "",
        "webrtc_sig_server_addr": operator,
        "cfctl_accelerator": accelerator,
        "snapshot_path": snapshot,
        "instances": {
            str(entry.instance.number): _instance(places, entry, first, daemon=daemon) for entry in options
        },
        "environments": {f"env-{first.number}": {"enable_wifi": False}},
    }


def _instance(places: Places, entry: InstanceOptions, first: Instance, *, daemon: bool) -> dict[str, Any]:
    instance = entry.instance
    directory = places.instance(instance)
    return {
        "instance_dir": os.fspath(directory),
        "adb_host_port": instance.adb_port,
        "adb_ip_and_port": instance.adb,
        "fastboot_host_port": instance.adb_port,
        "webrtc_device_id": entry.webrtc_device_id,
        "vsock_guest_cid": entry.vsock_cid,
        "serial_number": entry.serial_number,
        "uuid": entry.uuid,
        "run_as_daemon": daemon,
        "fail_fast": entry.fail_fast,
        "gpu_mode": entry.gpu_mode,
        "hwcomposer": "none",
        "display_configs": [
            {
                "x_res": display.width,
                "y_res": display.height,
                "dpi": display.dpi,
                "refresh_rate_hz": display.refresh_rate_hz,
                "overlays": "",
            }
            for display in entry.displays
        ],
        "cpus": entry.cpus,
        "memory_mb": entry.memory_mb,
        "console": entry.console,
        "console_path": os.fspath(directory / "console"),
        "kernel_path": entry.kernel,
        "initramfs_path": entry.initramfs,
        "extra_kernel_cmdline": entry.extra_kernel_cmdline,
        "virtual_disk_paths": [os.fspath(places.disk(instance))],
        "environment_name": f"env-{first.number}",
        "mobile_tap_name": instance.mobile.tap,
        "wifi_tap_name": instance.wifi_tap,
        "ethernet_tap_name": instance.ethernet_tap,
        "mobile_mac": instance.mobile_mac,
        "wifi_mac": instance.wifi_mac,
        "ethernet_mac": instance.ethernet_mac,
        "use_cvdalloc": False,
        "ap_boot_flow": 0,
        "start_wmediumd_instance": False,
        "enable_webrtc": True,
    }


@dataclass(frozen=True, slots=True)
class Configuration:
    """A config that was read back; only what this launcher's own commands need."""

    path: Path
    document: Mapping[str, Any]

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Configuration:
        """Read the config that the environment points to.

        :raises NotRunning: if there is none.
        :raises CfctlError: if it cannot be understood.
        """
        default = Path(environ.get("HOME", "/")) / ".cuttlefish_config.json"
        path = Path(environ.get("CUTTLEFISH_CONFIG_FILE") or default)
        try:
            loaded = json.loads(path.read_text())
            numbers = [int(number) for number in loaded["instances"]]
            loaded["root_dir"] + loaded["instances_uds_dir"]
        except FileNotFoundError as exc:
            raise NotRunning(f"{path} does not exist", "No device was launched with this HOME.") from exc
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise CfctlError(f"{path} is not a launcher's config", str(exc)) from exc
        if not numbers:
            raise CfctlError(f"{path} names no instance")
        return cls(path, loaded)

    @property
    def instances(self) -> list[Instance]:
        """The instances of the launch, in the order of their numbers."""
        return [Instance(number) for number in sorted(map(int, self.document["instances"]))]

    @property
    def places(self) -> Places:
        """The directories of the launch."""
        return Places(
            home=self.path.parent,
            root=Path(self.document["root_dir"]),
            sockets=Path(self.document["instances_uds_dir"]),
            environments=Path(self.document.get("environments_uds_dir", "/nonexistent")),
        )

    def instance(self, instance: Instance) -> Mapping[str, Any]:
        """Return the part of one instance."""
        part: Mapping[str, Any] = self.document["instances"][str(instance.number)]
        return part
