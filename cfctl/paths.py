"""Where everything lives: nothing else in cfctl builds a path from a literal.

As root the system's directories are used, as an ordinary user the XDG ones (XDG Base Directory Specification 0.8).
``CFCTL_PATHS_STATE``, ``CFCTL_PATHS_CACHE``, ``CFCTL_PATHS_RUNTIME`` and ``CFCTL_PATHS_CONFIG`` override each.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cfctl.errors import UsageError

#: Read by every user: packages and images that root has unpacked or built.
SYSTEM_CACHE = Path("/var/cache/cfctl")

#: root's locks and sockets, and what `host setup` must remember.
SYSTEM_RUNTIME = Path("/run/cfctl")

#: Where a distribution package puts a guest image that was built beforehand.
PREBUILT_GUEST = Path("/usr/share/cfctl/guest")

#: Where upstream's Debian package keeps its launcher; a host package as good as any.
DEBIAN_PACKAGE = Path("/usr/lib/cuttlefish-common")

#: A copy of one of them is what a launcher sees as its parent (launcher.md T1).
SHELLS = (Path("/bin/dash"), Path("/bin/bash"), Path("/bin/sh"))

#: The settings file of upstream's script; parsed, never executed.
UPSTREAM_DEFAULTS = Path("/etc/default/cuttlefish-host-resources")

#: The settings that root reads without being told which.
ROOTS_SETTINGS = Path("/etc/cfctl/config.toml")

#: Which DNS servers the host asks (resolv.conf(5)). The first may name no more than a server on loopback, of
#: systemd-resolved or NetworkManager, which write down in the others whom it asks.
RESOLVERS = (
    Path("/etc/resolv.conf"),
    Path("/run/systemd/resolve/resolv.conf"),
    Path("/run/NetworkManager/no-stub-resolv.conf"),
)

#: Where cvd keeps the locks of the instance numbers, newest place first (launcher.md section 16): cvd's own
#: before 2025-11, and acloud's, which follows TMPDIR.
UPSTREAM_LOCKS = (Path("/var/tmp/cvd/lock"), Path("/tmp/cvd/lock"))  # noqa: S108

#: Programs of upstream's Debian packages.
UPSTREAM_PROGRAMS = Path("/usr/lib/cuttlefish-common/bin")
#: Where cvd keeps its groups and their homes, newest place first (launcher.md section 4).
UPSTREAM_STATE = (Path("/var/tmp/cvd"), Path("/tmp/cvd"))  # noqa: S108

#: Where upstream's own operator has streamers register, and where one looks that was told nothing.
UPSTREAM_OPERATOR = Path("/run/cuttlefish/operator")

#: The tun driver's control node.
TUN = Path("/dev/net/tun")
KVM = Path("/dev/kvm")


@dataclass(frozen=True, slots=True)
class Paths:
    """The roots of one user's files.

    :param config: ``config.toml`` lies here.
    :param state: devices, keys and tokens; kept over reboots.
    :param cache: packages and images by content hash; may be deleted when no device uses them.
    :param runtime: locks and sockets; gone after a reboot.
    """

    config: Path
    state: Path
    cache: Path
    runtime: Path

    @property
    def config_file(self) -> Path:
        """The settings of this user (as root: of the host)."""
        return self.config / "config.toml"

    @property
    def contexts(self) -> Path:
        """The relays that this user knows, with their tokens; nobody else may read it."""
        return self.config / "contexts.json"

    @property
    def devices(self) -> Path:
        """One marked directory per device: the launcher's HOME, with a ``device.json`` in it."""
        return self.state / "devices"

    @property
    def host_packages(self) -> Path:
        """Host packages, one directory per content hash."""
        return self.cache / "host-packages"

    @property
    def artifacts(self) -> Path:
        """What archives were unpacked to, one directory per content hash."""
        return self.cache / "artifacts"

    @property
    def flag_listings(self) -> Path:
        """What launchers said about their flags, one file per launcher."""
        return self.cache / "flags"

    @property
    def guest_images(self) -> Path:
        """Kernel and initramfs of the embedded guest, one directory per content hash."""
        return self.cache / "guest"

    @property
    def boot_times(self) -> Path:
        """How long boots took, one file per host package and images."""
        return self.cache / "boot-times"

    @property
    def host_lock(self) -> Path:
        """Held by whoever changes the host's network."""
        return self.runtime / "host.lock"

    @property
    def watcher_lock(self) -> Path:
        """Held by the one ``cfctl host run`` that watches this host."""
        return self.runtime / "watcher.lock"

    @property
    def lazy_record(self) -> Path:
        """Says that taps are made when a device is launched, and how; everybody may read it."""
        return self.runtime / "lazy.json"

    @property
    def tap_socket(self) -> Path:
        """Where root's service makes the taps of one instance for the members of cvdnetwork."""
        return self.runtime / "taps.sock"

    @property
    def host_runtime(self) -> Path:
        """What ``host setup`` must remember until ``host teardown``; root's alone."""
        return self.runtime / "host"

    @property
    def relay(self) -> Path:
        """Tokens, certificate and audit log of the relay; nobody else's."""
        return self.state / "relay"

    @property
    def relay_tokens(self) -> Path:
        """Who may call the relay over the network, and what for: hashes, never secrets."""
        return self.relay / "tokens.json"

    @property
    def relay_sessions(self) -> Path:
        """The browsers that the relay has let in: hashes of their cookies."""
        return self.relay / "sessions.json"

    @property
    def relay_certificate(self) -> Path:
        """The relay's own certificate, which its callers pin."""
        return self.relay / "certificate.pem"

    @property
    def relay_key(self) -> Path:
        """The key of the relay's own certificate."""
        return self.relay / "key.pem"

    @property
    def relay_audit(self) -> Path:
        """What was done through the relay: a line of JSON each."""
        return self.relay / "audit.log"

    @property
    def relay_socket(self) -> Path:
        """Where the relay hears callers of its own host."""
        return self.runtime / "relay.sock"

    @property
    def relay_streamers(self) -> Path:
        """Where the streamers of devices register, as at the stock operator's socket."""
        return self.runtime / "streamers.sock"

    @property
    def relay_expected(self) -> Path:
        """Where a launcher says beforehand which devices will register."""
        return self.runtime / "expected.sock"

    @property
    def relay_lock(self) -> Path:
        """Held by the one relay of this user (as root: of the host)."""
        return self.runtime / "relay.lock"

    @property
    def relay_inside(self) -> Path:
        """A directory that nobody else may enter: the relay's API behind its front."""
        return self.runtime / "relay"

    @property
    def relay_nowhere(self) -> Path:
        """An empty directory that the relay's children work in: no name means a file there."""
        return self.runtime / "relay-nowhere"

    @property
    def opened(self) -> Path:
        """The page that leads a browser to a link, of which it must not be told on a command line."""
        return self.runtime / "open.html"


def current() -> Paths:
    """Return the paths of the user that runs this process."""
    if os.geteuid() == 0:
        roots = {
            "config": Path("/etc/cfctl"),
            "state": Path("/var/lib/cfctl"),
            "cache": SYSTEM_CACHE,
            "runtime": SYSTEM_RUNTIME,
        }
    else:
        home = Path.home()
        roots = {
            "config": _xdg("XDG_CONFIG_HOME", home / ".config"),
            "state": _xdg("XDG_STATE_HOME", home / ".local/state"),
            "cache": _xdg("XDG_CACHE_HOME", home / ".cache"),
            # Without a login session there is no XDG_RUNTIME_DIR; the cache directory is at least private.
            "runtime": _xdg("XDG_RUNTIME_DIR", home / ".cache"),
        }
    for name in roots:
        if override := os.environ.get(f"CFCTL_PATHS_{name.upper()}"):
            if not override.startswith("/"):
                raise UsageError(f"CFCTL_PATHS_{name.upper()} must be an absolute path, not {override!r}")
            roots[name] = Path(override)
    return Paths(**roots)


def system() -> Paths:
    """Return root's paths, whoever asks: an ordinary user looks there for what root has set up."""
    if os.geteuid() == 0:
        return current()
    return Paths(Path("/etc/cfctl"), Path("/var/lib/cfctl"), SYSTEM_CACHE, SYSTEM_RUNTIME)


def devices_of(home: Path) -> Path:
    """Return where an ordinary user keeps devices, unless the user's environment says otherwise."""
    return home / ".local/state/cfctl/devices"


def containers_of(home: Path) -> Path:
    """Return where an ordinary user keeps what is known of containers, likewise."""
    return home / ".local/state/cfctl/docker"


def _xdg(variable: str, default: Path) -> Path:
    value = os.environ.get(variable, "")
    # The specification says that a relative path is to be ignored.
    return (Path(value) if value.startswith("/") else default) / "cfctl"


def instance_lock_directories() -> list[Path]:
    """Return every directory whose lock files decide about instance numbers, today's place first."""
    acloud = Path(os.environ.get("TMPDIR") or tempfile.gettempdir()) / "acloud_cvd_temp"
    return [*UPSTREAM_LOCKS, acloud]


def cvd_state_directories() -> list[Path]:
    """Return every directory in which cvd may keep its groups, today's place first."""
    return list(UPSTREAM_STATE)


def sockets_root() -> Path:
    """Return where launchers put ``cf_avd_UID``, ``cf_env_UID`` and ``vsock_CID_UID`` (launcher.md section 4)."""
    return Path("/tmp")  # noqa: S108


def dnsmasq_pid_file(bridge: str) -> Path:
    """Return upstream's pid file of the bridge's DHCP server."""
    return Path(f"/run/cuttlefish-dnsmasq-{bridge}.pid")


def dnsmasq_lease_file(bridge: str) -> Path:
    """Return upstream's lease file of the bridge's DHCP server."""
    return Path(f"/run/cuttlefish-dnsmasq-{bridge}.leases")
