"""Relative paths in flags: the launcher runs in ``/``, so they are made absolute here, where they mean something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: The flags of upstream's launcher that name a file or directory of the host, or one for each instance.
_PATH_FLAGS = """\
android_efi_loader ap_kernel_image ap_rootfs_image boot_image bootloader chromeos_disk chromeos_kernel_path
chromeos_root_image crosvm_binary custom_action_config custom_partition_path default_target_zip early_tmp_dir
fixed_location_file_path flagfile fuchsia_multiboot_bin_path fuchsia_root_image fuchsia_zedboot_path
gem5_binary_dir gem5_checkpoint_dir gnss_file_path gpu_capture_binary initramfs_path kernel_path kvm_path
linux_initramfs_path linux_kernel_path linux_root_image mcu_config_path qemu_binary_dir seccomp_policy_dir
snapshot_path super_image system_image_dir system_target_zip vbmeta_image vbmeta_system_dlkm_image
vbmeta_system_image vbmeta_vendor_dlkm_image vcpu_config_path vendor_boot_image vhost_vsock_path
vvmtruststore_path webrtc_assets_dir wmediumd_config
"""


def absolute(flags: Iterable[str], directory: Path) -> list[str]:
    """Return flags in which no value is a path relative to ``directory``.

    :raises UsageError: for a relative path where no file is.
    """
    return [_absolute(flag, directory) for flag in flags]


def _absolute(flag: str, directory: Path) -> str:
    name, equals, value = flag.partition("=")
    if name.lstrip("-") not in _PATH_FLAGS.split():
        return flag
    # One value per instance, separated by commas.
    return f"{name}{equals}{','.join(_part(flag, part, directory) for part in value.split(','))}"


def _part(flag: str, part: str, directory: Path) -> str:
    # "unset" is the launcher's word for the default.
    if not part or part == "unset" or part.startswith("/"):
        return part
    place = directory / part
    if place.exists():
        return str(place)
    raise UsageError(
        f"{flag}: there is no {part} in {directory}",
        "A relative path is looked for where cfctl was called.",
        "Give the whole path.",
    )
