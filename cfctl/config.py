"""Settings: every key once, in one table; where each value came from is kept.

Weakest first: built in, ``/etc/default/cuttlefish-host-resources`` (upstream's file: parsed, never executed),
``config.toml``, environment ``CFCTL_SECTION_KEY``, flags. docs/config.md is made from the table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

from cfctl import paths
from cfctl.errors import UsageError
from cfctl.instance import MAX_INSTANCES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: A TOML value or a string from the environment in, the setting out; ValueError says what is wrong.
Parse = Callable[[Any], Any]


def _integer(low: int, high: int) -> Parse:
    def parse(raw: Any) -> int:
        if isinstance(raw, bool) or not re.fullmatch(r"[+-]?[0-9]{1,9}", str(raw)):
            raise ValueError(f"a whole number from {low} to {high} is needed")
        if not low <= int(raw) <= high:
            raise ValueError(f"it must be {low} to {high}")
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
            "How many instances the host serves; 0 builds nothing.",
            upstream="num_cvd_accounts",
        ),
        Key(
            "host.dns_servers",
            ("8.8.8.8", "8.8.4.4"),
            _addresses(IPv4Address),
            "The DNS servers that guests are told by DHCP.",
            upstream="dns_servers",
        ),
        Key(
            "host.dns6_servers",
            ("2001:4860:4860::8888", "2001:4860:4860::8844"),
            _addresses(IPv6Address),
            "The IPv6 DNS servers that guests are told.",
            upstream="dns6_servers",
        ),
        Key(
            "host.guest_isolation",
            default=True,
            parse=_boolean,
            doc="Keep guests from reaching each other, on the bridges and through the host.",
        ),
        Key(
            "launch.timeout",
            600,
            _integer(1, 86400),
            "Seconds that a device may take to boot.",
        ),
    )
}

#: Variables of upstream's file that ask for what cfctl cannot do yet. To ignore one would build another network
#: than the administrator asked for.
_UNSUPPORTED = {
    "bridge_interface": "",
    "ipv4_bridge": "1",
    "ipv6_bridge": "1",
    "wifi_ipv6_prefix": "",
    "wifi_ipv6_prefix_length": "",
    "ethernet_ipv6_prefix": "",
    "ethernet_ipv6_prefix_length": "",
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
    :raises UsageError: for a value that makes no sense, an unknown key, or a file that cannot be read or parsed,
        naming the file and line or the variable.
    """
    values = {key.name: Value(key.default, "built-in") for key in KEYS.values()}
    values |= _from_upstream(upstream_file)
    values |= _from_toml(config_file or paths.current().config_file, required=config_file is not None)
    for key in KEYS.values():
        if key.variable in environ:
            values[key.name] = _value(key, environ[key.variable], key.variable)
    for name, raw in (flags or {}).items():
        if raw is not None:
            values[name] = _value(KEYS[name], raw, f"--{name.partition('.')[2].replace('_', '-')}")
    return Settings(values)


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
        elif raw != _UNSUPPORTED.get(name, raw):
            raise UsageError(
                f"{origin}: {name} is not supported yet",
                "This version of cfctl builds its own two bridges, with IPv4 only.",
                f"Take the line {name}={raw} out of the file, or keep upstream's script for this host.",
            )
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
                raise UsageError(f"{file}: there is no setting {full}", f"Settings: {', '.join(sorted(KEYS))}.")
            values[full] = _value(KEYS[full], value, str(file))
    return values
