"""The names that both sides of a container's wall agree on: labels, places inside, the user.

Imports nothing: the first process of every container reads it.
"""

from __future__ import annotations

from typing import Final

#: Who owns the device inside; upstream's name, of which its launcher derives things.
USER: Final = "vsoc-01"
UID: Final = 1000
HOME: Final = f"/home/{USER}"

#: Upstream's labels (docker.md section 4): people's scripts read them.
INSTANCE: Final = "cf_instance"
COUNT: Final = "n_cf_instances"
VSOCK: Final = "vsock_guest_cid"

#: Ours. ``REQUEST`` is what was asked for, as JSON; every container of ours has it, and nothing else is touched.
REQUEST: Final = "cfctl.request"
OWNER: Final = "cfctl.owner"
VERSION: Final = "cfctl.version"
FLEET: Final = "cfctl.fleet"
VENDOR: Final = "cfctl.gpu-vendor"
IMAGE_KEY: Final = "cfctl.image-key"
#: A container that lives for a moment, to do something on the engine's machine for the container that it names.
HELPER: Final = "cfctl.helper"

#: Places inside a container.
HOST_PACKAGE: Final = "/mnt/host-package"
IMAGES: Final = "/mnt/images"
EMBEDDED: Final = "/opt/cfctl/guest"
PYTHON: Final = "/opt/cfctl/bin/python"
HOST_LOCKS: Final = "/run/host-numbers"
HOST_KEY: Final = "/etc/ssh/ssh_host_ed25519_key"
AUTHORIZED_KEYS: Final = f"/etc/ssh/authorized_keys/{USER}"
READY: Final = "/run/container-ready"
SOCKETS: Final = f"/tmp/cf_avd_{UID}"  # noqa: S108 (upstream's place)
OPERATOR: Final = "/run/cuttlefish"

#: The group that may use taps and sockets of devices, and the variable with its number on the engine's machine.
GROUP: Final = "cvdnetwork"
GROUP_NUMBER: Final = "CVDNETWORK_GID"

#: How the first process ends if the host's other devices have its numbers (sysexits.h, EX_TEMPFAIL).
NUMBER_TAKEN: Final = 75
SSH_PORT: Final = 22
