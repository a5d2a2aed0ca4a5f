"""Settings: every key once, in one table; where each value came from is kept.

Weakest first: built in, ``/etc/default/cuttlefish-host-resources`` (upstream's file: parsed, never executed),
``config.toml``, environment ``CFCTL_SECTION_KEY``, flags. docs/config.md is made from the table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any

from cfctl import paths
from cfctl.errors import UsageError
from cfctl.instance import MAX_INSTANCES, UPSTREAM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: A TOML value or a string from the environment in, the setting out; ValueError says what is wrong.
Parse = Callable[[Any], Any]


def _integer(low: int, high: int) -> Parse:
    def parse(raw: Any) -> int:
        if isinstance(raw, bool) or not re.fullmatch(r"[+-]?[0-9]{1,9}", str(raw)):
            raise ValueError(f"a whole number from {low} to {high} is needed")
        if not low <= int(raw) <= high:
            raise ValueError(f"it must be {low} to {high}" if low < high else f"it must be {low}")
        return int(raw)

    return parse


def _boolean(raw: Any) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        return words[str(raw).lower()]
    except KeyError:
        raise ValueError("true or false is needed") from None


def _addresses(kind: type[IPv4Address] | type[IPv6Address]) -> Parse:
    def parse(raw: Any) -> tuple[str, ...]:
        items = raw if isinstance(raw, list) else [item for item in str(raw).split(",") if item]
        try:
            return tuple(str(kind(str(item).strip())) for item in items)
        except AddressValueError as exc:
            raise ValueError(f"a list of {kind.__name__[:4]} addresses is needed: {exc}") from exc

    return parse


def _one_of(*words: str) -> Parse:
    def parse(raw: Any) -> str:
        if raw not in words:
            raise ValueError(f"it must be one of: {', '.join(words)}")
        return str(raw)

    return parse


#: Names that the kernel takes and that need no quoting anywhere (15 bytes, linux/if.h IFNAMSIZ).
_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")


def _bridge_name(raw: Any) -> str:
    if raw == "":
        return ""
    if not isinstance(raw, str) or not _INTERFACE.fullmatch(raw):
        raise ValueError("the name of a network interface is needed, or nothing at all")
    if raw.startswith("cvd-"):
        raise ValueError("interfaces called cvd-... are cfctl's own; without the setting it makes its own bridges")
    return raw


def _slash24(raw: Any) -> str:
    try:
        network = IPv4Network(str(raw))
    except ValueError as exc:
        raise ValueError(f"a subnet such as 10.0.98.0/24 is needed: {exc}") from exc
    if network.prefixlen != _SUBNET_PREFIX:
        raise ValueError(f"a /24 is needed, such as 10.0.98.0/24: {network} is a /{network.prefixlen}")
    if network.is_multicast or network.is_loopback or network.is_link_local or any(map(network.subnet_of, _NOWHERE)):
        raise ValueError(f"no interface can have an address in {network}")
    return str(network)


def _ipv6_prefix(raw: Any) -> str:
    if raw == "":
        return ""
    try:
        network = IPv6Network((str(raw), _IPV6_PREFIX))
    except ValueError as exc:
        raise ValueError(f"a prefix such as fd00:98:: is needed, nothing after its first 64 bits: {exc}") from exc
    if network.is_multicast or network.is_link_local or network.overlaps(IPv6Network((0, _IPV6_PREFIX))):
        raise ValueError(f"no bridge can have an address in {network}")
    return str(network.network_address)


def _port_range(raw: Any) -> str:
    first, colon, last = str(raw).partition(":")
    if not (colon and re.fullmatch(r"[0-9]{4,5}", first) and re.fullmatch(r"[0-9]{4,5}", last)):
        raise ValueError("two ports are needed, such as 15550:20669")
    if not 1024 <= int(first) <= int(last) <= 65535:
        raise ValueError("the ports must be 1024 to 65535, the smaller one first")
    if int(last) - int(first) + 1 < MAX_INSTANCES:
        raise ValueError(f"{MAX_INSTANCES} instances need a port each at least")
    return f"{int(first)}:{int(last)}"


def _numbers(raw: Any) -> tuple[int, ...]:
    items = raw if isinstance(raw, list | tuple) else [item for item in str(raw).split(",") if item]
    try:
        numbers = tuple(sorted({int(str(item)) for item in items}))
    except ValueError:
        raise ValueError("instance numbers are needed, such as 3,4") from None
    if numbers and not 1 <= numbers[0] <= numbers[-1] <= MAX_INSTANCES:
        raise ValueError(f"instance numbers are 1 to {MAX_INSTANCES}")
    return numbers


def _listening(raw: Any) -> str:
    host, colon, port = str(raw).rpartition(":")
    if raw == "":
        return ""
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError("an address to listen on is needed, such as 0.0.0.0:7070 or [::]:7070, or nothing at all")
    if (":" in host) != (host.startswith("[") and host.endswith("]")) or not host.strip("[]"):
        raise ValueError("an address must stand before the port; one of IPv6 in brackets, such as [::]:7070")
    return f"{host}:{int(port)}"


def _http(raw: Any) -> str:
    if not isinstance(raw, str) or not re.fullmatch(r"https?://[^\s/]+/?", raw):
        raise ValueError("an address such as http://127.0.0.1:1080 is needed")
    return raw


def _ice(*schemes: str) -> Parse:
    def parse(raw: Any) -> tuple[str, ...]:
        items = raw if isinstance(raw, list | tuple) else [item for item in str(raw).split(",") if item]
        # RFC 7064 and RFC 7065: a scheme, a host, perhaps a port, for TURN perhaps a transport.
        url = re.compile(rf"({'|'.join(schemes)}):[^\s/?@]+(\?transport=(udp|tcp))?")
        found = tuple(str(item).strip() for item in items)
        if not all(url.fullmatch(item) for item in found):
            raise ValueError(f"addresses such as {schemes[0]}:192.0.2.1:3478 are needed")
        return found

    return parse


def _file(raw: Any) -> str:
    if not isinstance(raw, str) or (raw and not raw.startswith("/")):
        raise ValueError("an absolute path is needed, or nothing at all")
    return raw


_SUBNET_PREFIX = 24
#: Guests make their own addresses of 64 bits (RFC 4862 section 5.5.3); dnsmasq takes no other length either.
_IPV6_PREFIX = 64
#: 0.0.0.0/8 (RFC 1122 section 3.2.1.3) and 240.0.0.0/4 (RFC 1112 section 4).
_NOWHERE = (IPv4Network("0.0.0.0/8"), IPv4Network("240.0.0.0/4"))


@dataclass(frozen=True, slots=True)
class Key:
    """One setting.

    :param name: ``section.key`` in config.toml; ``CFCTL_SECTION_KEY`` in the environment.
    :param default: the value that is built in.
    :param parse: from text or TOML to the value.
    :param doc: one sentence for people.
    :param upstream: the variable of upstream's file, if it has one.
    """

    name: str
    default: Any
    parse: Parse
    doc: str
    upstream: str | None = None

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "CFCTL_" + self.name.replace(".", "_").upper()


KEYS: dict[str, Key] = {
    key.name: key
    for key in (
        Key(
            "host.instances",
            10,
            _integer(0, MAX_INSTANCES),
            "How many instances the host serves; 0 builds nothing. With host.lazy it is the highest number that "
            "gets taps, and 0 means 128.",
            upstream="num_cvd_accounts",
        ),
        Key(
            "host.numbers",
            (),
            _numbers,
            "The instances that the host serves, such as 3,4, instead of 1 to host.instances; empty: those. Of no "
            "effect with host.lazy. In a container they are the container's.",
        ),
        Key(
            "host.lazy",
            default=False,
            parse=_boolean,
            doc="Make an instance's taps when a device is launched, and remove them when it is stopped; `cfctl host "
            "run` does it for ordinary users.",
        ),
        Key(
            "host.dns_servers",
            ("8.8.8.8", "8.8.4.4"),
            _addresses(IPv4Address),
            "The DNS servers that guests are told by DHCP; empty: none, and guests find no names.",
            upstream="dns_servers",
        ),
        Key(
            "host.dns6_servers",
            ("2001:4860:4860::8888", "2001:4860:4860::8844"),
            _addresses(IPv6Address),
            "The IPv6 DNS servers that guests are told; empty: none.",
            upstream="dns6_servers",
        ),
        Key(
            "host.dns",
            "servers",
            _one_of("servers", "host"),
            "Which DNS servers guests are told: servers (dns_servers and dns6_servers), or host (those that the host "
            "asks itself, for networks that let nobody ask others).",
        ),
        Key(
            "host.bridge",
            "",
            _bridge_name,
            "An existing bridge that all ethernet and Wi-Fi taps become ports of: their guests are in its network, "
            "which gives them addresses. Empty: cfctl makes two bridges, with DHCP servers.",
            upstream="bridge_interface",
        ),
        Key(
            "host.ipv4_bridge",
            default=True,
            parse=_boolean,
            doc="With host.bridge: pass IPv4 frames on. If not, the host takes them and routes (nftables 1.0.8).",
            upstream="ipv4_bridge",
        ),
        Key(
            "host.ipv6_bridge",
            default=True,
            parse=_boolean,
            doc="With host.bridge: pass IPv6 frames on, likewise.",
            upstream="ipv6_bridge",
        ),
        *(
            key
            for bridge, name in (("ethernet", "cvd-ebr"), ("wifi", "cvd-wbr"))
            for key in (
                Key(
                    f"host.{bridge}_ipv6_prefix",
                    "",
                    _ipv6_prefix,
                    f"The IPv6 prefix of {name}, such as fd00:98::, which is advertised to its guests. Empty: none.",
                    upstream=f"{bridge}_ipv6_prefix",
                ),
                Key(
                    f"host.{bridge}_ipv6_prefix_length",
                    _IPV6_PREFIX,
                    _integer(_IPV6_PREFIX, _IPV6_PREFIX),
                    "Its length: guests choose the other 64 bits themselves.",
                    upstream=f"{bridge}_ipv6_prefix_length",
                ),
            )
        ),
        *(
            Key(f"host.{name}_subnet{half}", str(getattr(UPSTREAM, name + half)), _slash24, doc)
            for name, half, doc in (
                ("ethernet", "", "The /24 behind cvd-ebr; the host has .1."),
                ("wifi", "", "The /24 behind cvd-wbr; the host has .1."),
                ("mobile", "", "The /24 of the mobile networks of instances 1 to 64."),
                ("mobile", "_high", "The /24 of the mobile networks of instances 65 to 128."),
                ("wifi_ap", "", "The /24 of the Wi-Fi access points of instances 1 to 64."),
                ("wifi_ap", "_high", "The /24 of the Wi-Fi access points of instances 65 to 128."),
            )
        ),
        Key(
            "host.guest_isolation",
            default=True,
            parse=_boolean,
            doc="Keep guests from reaching each other, on the bridges and through the host.",
        ),
        Key(
            "host.rules",
            "auto",
            _one_of("auto", "nft", "iptables"),
            "What makes the firewall rules: nft, iptables, or auto (nft where it works, else iptables).",
        ),
        Key(
            "host.firewall",
            "open",
            _one_of("open", "leave"),
            "What to do with other people's firewalls that drop what guests need: open (let DHCP through and what "
            "guests send, see docs/host.md), or leave (the administrator does it; host doctor says how).",
        ),
        Key(
            "launch.timeout",
            600,
            _integer(1, 86400),
            "Seconds that a device may take to boot.",
        ),
        Key(
            "launch.webrtc_ports",
            "15550:20669",
            _port_range,
            "The TCP and UDP ports of WebRTC: each of 128 instances has its own slice of them, the first the first.",
        ),
        Key(
            "launch.scope",
            default=True,
            parse=_boolean,
            doc="Where systemd runs: put each device into a scope of its own, with limits of memory and processors.",
        ),
        Key(
            "launch.numbers",
            (),
            _numbers,
            "The instance numbers that new devices may have, such as 3,4; empty: all that the host serves. In a "
            "container they are the container's.",
        ),
        Key(
            "screen.operator",
            "http://127.0.0.1:1080",
            _http,
            "Where cfctl screen looks for devices: the operator or relay that their streamers register at.",
        ),
        Key(
            "relay.grpc",
            "",
            _listening,
            "Where the relay hears callers from elsewhere, by TLS and with tokens: ADDR:PORT. Empty: nowhere, but on "
            "its unix socket.",
        ),
        Key(
            "relay.metrics",
            "",
            _listening,
            "Where the relay answers Prometheus: ADDR:PORT. On loopback anybody of this host may ask; elsewhere by "
            "TLS and with a token. Empty: nowhere.",
        ),
        Key(
            "relay.web",
            "",
            _listening,
            "Where the relay answers browsers: ADDR:PORT. Beyond loopback by TLS; a token or a link always. Empty: "
            "nowhere, and no device's screen can be seen through it.",
        ),
        Key(
            "relay.control",
            "one",
            _one_of("one", "shared"),
            "Who controls a device that several look at: one of them at a time, or all who may.",
        ),
        Key(
            "relay.stun",
            (),
            _ice("stun", "stuns"),
            "STUN servers that viewers, streamers and the relay ask how they are seen from outside, such as "
            "stun:stun.example.org:3478. Empty: none is asked.",
        ),
        Key(
            "relay.turn_servers",
            (),
            _ice("turn", "turns"),
            "TURN servers of yours, such as turn:turn.example.org:3478?transport=udp.",
        ),
        Key(
            "relay.turn_secret",
            "",
            _file,
            "A file with the secret that those servers have too (coturn's static-auth-secret): each viewer has "
            "credentials of his own that count for six hours.",
        ),
        Key(
            "relay.turn",
            "",
            _listening,
            "Where a TURN server of the relay's own listens (coturn, which the relay starts and looks after): "
            "ADDR:PORT, an address that viewers reach. Empty: none.",
        ),
        Key(
            "relay.turn_ports",
            "49152:50175",
            _port_range,
            "The UDP ports that the relay's own TURN server passes on from.",
        ),
        Key(
            "relay.relay_only",
            default=False,
            parse=_boolean,
            doc="Viewers try no way but TURN: for networks where nothing else is open.",
        ),
        Key(
            "relay.tls_cert",
            "",
            _file,
            "The relay's certificate, a PEM file. Empty: one of its own, which callers pin.",
        ),
        Key("relay.tls_key", "", _file, "The key of relay.tls_cert, without a passphrase."),
        Key(
            "relay.drain_s",
            30,
            _integer(0, 3600),
            "Seconds that launches and stops may go on when the relay is stopped.",
        ),
        Key(
            "relay.connections",
            512,
            _integer(1, 65535),
            "Connections at once, of all callers of the relay.",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Value:
    """A setting and where it came from (``built-in``, a file with its line, a variable, a flag)."""

    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, looked up by name: ``settings["host.instances"]``."""

    values: Mapping[str, Value]

    def __getitem__(self, name: str) -> Any:
        return self.values[name].value

    def origin(self, name: str) -> str:
        """Return where the value of ``name`` came from."""
        return self.values[name].origin


def load(
    *,
    config_file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
    upstream_file: Path = paths.UPSTREAM_DEFAULTS,
) -> Settings:
    """Read all settings.

    :param config_file: another file than this user's ``config.toml``; it must exist.
    :param flags: name -> value from the command line; None means that the flag was not given.
    :raises UsageError: for a value that makes no sense, an unknown key or variable, or a file that cannot be read or
        parsed, naming the file and line or the variable.
    """
    values = {key.name: Value(key.default, "built-in") for key in KEYS.values()}
    values |= _from_upstream(upstream_file)
    values |= _from_toml(config_file or paths.current().config_file, required=config_file is not None)
    _require_known(environ)
    for key in KEYS.values():
        if key.variable in environ:
            values[key.name] = _value(key, environ[key.variable], key.variable)
    for name, raw in (flags or {}).items():
        if raw is not None:
            values[name] = _value(KEYS[name], raw, f"--{name.partition('.')[2].replace('_', '-')}")
    settings = Settings(values)
    _require_apart(settings)
    return settings


def restored(raw: Mapping[str, Any], origin: str) -> Settings:
    """Return settings that were written down: what is not among them is as it is built in.

    :param raw: name -> value, as JSON has it.
    :raises UsageError: for a value that makes no sense, or an unknown name.
    """
    values = {key.name: Value(key.default, "built-in") for key in KEYS.values()}
    for name, value in raw.items():
        if name not in KEYS:
            raise UsageError(f"{origin}: there is no setting {name}")
        values[name] = _value(KEYS[name], value, origin)
    return Settings(values)


#: Settings of which no two may name the same network.
NETWORKS = tuple(name for name in KEYS if name.endswith(("_subnet", "_subnet_high", "_ipv6_prefix")))


def _require_apart(settings: Settings) -> None:
    """Make sure that no two networks are the same; all are equally long, so they cannot overlap otherwise."""
    seen: dict[str, str] = {}
    for name in NETWORKS:
        other = seen.setdefault(settings[name], name)
        if settings[name] and other != name:
            raise UsageError(
                f"{name} and {other} are the same network, {settings[name]}",
                f"From {settings.origin(name)} and {settings.origin(other)}.",
                "Give each a network of its own.",
            )


def _require_known(environ: Mapping[str, str]) -> None:
    """Make sure that what is called as a setting in the environment is one; other variables of cfctl are not."""
    known = {key.variable: key.name for key in KEYS.values()}
    sections = tuple({f"CFCTL_{name.partition('.')[0].upper()}_" for name in KEYS})
    for name in environ:
        if name.startswith(sections) and name not in known:
            raise _unknown(f"{name}: there is no such setting", name, list(known))


def _unknown(brief: str, name: str, known: Sequence[str]) -> UsageError:
    """Return the error for a name that no setting has, with those that it is nearest to."""
    # Imported here: hardly anybody mistypes, and it costs 2 ms.
    import difflib

    if near := difflib.get_close_matches(name, known):
        return UsageError(brief, f"Nearest to it: {', '.join(near)}.", f"Write {near[0]}, or take it out.")
    return UsageError(brief, f"Settings: {', '.join(known)}.", "Write one of them, or take it out.")


def _value(key: Key, raw: Any, origin: str) -> Value:
    try:
        return Value(key.parse(raw), origin)
    except ValueError as exc:
        raise UsageError(f"{origin}: {raw!r} is not a value for {key.name}", str(exc), key.doc) from exc


#: name=value with the quoting that needs no shell to understand.
_ASSIGNMENT = re.compile(
    r"""(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)=
        (?: "(?P<double>[^"$`\\]*)" | '(?P<single>[^']*)' | (?P<bare>[^\s"'$`\\;&|<>()*?\[#~]*) )
        \s*(?:\#.*)?""",
    re.VERBOSE,
)


def parse_shell_assignments(text: str, source: str) -> dict[str, tuple[str, int]]:
    """Read a file of ``name=value`` lines without a shell.

    :param text: the file.
    :param source: its name, for messages.
    :return: name -> (value, line number); the last line of a name wins, as in a shell.
    :raises UsageError: for a line that only a shell understands.
    """
    found: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _ASSIGNMENT.fullmatch(stripped)
        if match is None:
            raise UsageError(
                f"{source}, line {number}: only a shell understands this line",
                f"    {stripped}\ncfctl reads the file, it never executes it.",
                "Write it as name=value, with the value as plain text or in quotes.",
            )
        value = next(group for group in match.group("double", "single", "bare") if group is not None)
        found[match["name"]] = (value, number)
    return found


def _from_upstream(file: Path) -> dict[str, Value]:
    try:
        text = file.read_text()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"{file} cannot be read", str(exc)) from exc
    by_variable = {key.upstream: key for key in KEYS.values() if key.upstream}
    values = {}
    for name, (raw, line) in parse_shell_assignments(text, str(file)).items():
        origin = f"{file}:{line}"
        if name in by_variable and raw:
            values[by_variable[name].name] = _value(by_variable[name], raw, origin)
    return values


def _from_toml(file: Path, *, required: bool) -> dict[str, Value]:
    try:
        raw = file.read_bytes()
    except FileNotFoundError as exc:
        if not required:
            return {}
        raise UsageError(f"{file} does not exist") from exc
    except OSError as exc:
        raise UsageError(f"{file} cannot be read", str(exc)) from exc
    # Imported here: most hosts have no such file, and the parser costs 6 ms.
    import tomllib

    try:
        sections = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UsageError(f"{file} is not a TOML file", str(exc)) from exc
    values = {}
    for section, keys in sections.items():
        for name, value in keys.items() if isinstance(keys, dict) else [("", keys)]:
            full = f"{section}.{name}".rstrip(".")
            if full not in KEYS:
                raise _unknown(f"{file}: there is no setting {full}", full, sorted(KEYS))
            values[full] = _value(KEYS[full], value, str(file))
    return values
