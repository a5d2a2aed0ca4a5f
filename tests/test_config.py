"""Settings: who wins, where a value came from, and that no file can make cfctl fall over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl import config
from cfctl.config import KEYS, Settings
from cfctl.errors import UsageError

NOWHERE = Path("/nonexistent/file")


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep this user's config.toml out of the tests."""
    monkeypatch.setenv("CFCTL_PATHS_CONFIG", str(tmp_path / "config"))


def write(directory: Path, *, toml: str = "", upstream: str = "") -> tuple[Path, Path]:
    """Write the two files that settings come from."""
    directory.mkdir(exist_ok=True)
    (directory / "config.toml").write_text(toml)
    (directory / "upstream").write_text(upstream)
    return directory / "config.toml", directory / "upstream"


def load(directory: Path, *, toml: str = "", upstream: str = "", **kwargs: object) -> Settings:
    config_file, upstream_file = write(directory, toml=toml, upstream=upstream)
    return config.load(config_file=config_file, upstream_file=upstream_file, **{"environ": {}, **kwargs})  # type: ignore[arg-type]


def refused(directory: Path, **kwargs: object) -> UsageError:
    """Load what makes no sense and return the error."""
    with pytest.raises(UsageError) as caught:
        load(directory, **kwargs)  # type: ignore[arg-type]
    return caught.value


# -- who wins ----------------------------------------------------------------------------------------------


def test_built_in() -> None:
    settings = config.load(environ={}, upstream_file=NOWHERE)
    assert {name: settings[name] for name in KEYS} == {name: key.default for name, key in KEYS.items()}
    assert {settings.origin(name) for name in KEYS} == {"built-in"}


def test_weakest_first(tmp_path: Path) -> None:
    toml, upstream = "[host]\ninstances = 3\n", "# of the package\nnum_cvd_accounts=2\n"
    environ, flags = {"CFCTL_HOST_INSTANCES": "4"}, {"host.instances": 5}
    layers = [
        (load(tmp_path), 10, "built-in"),
        (load(tmp_path, upstream=upstream), 2, f"{tmp_path}/upstream:2"),
        (load(tmp_path, upstream=upstream, toml=toml), 3, f"{tmp_path}/config.toml"),
        (load(tmp_path, upstream=upstream, toml=toml, environ=environ), 4, "CFCTL_HOST_INSTANCES"),
        (load(tmp_path, upstream=upstream, toml=toml, environ=environ, flags=flags), 5, "--instances"),
    ]
    for settings, value, origin in layers:
        assert (settings["host.instances"], settings.origin("host.instances")) == (value, origin)


def test_a_flag_that_was_not_given_does_not_count(tmp_path: Path) -> None:
    settings = load(tmp_path, toml="[host]\ninstances = 3\n", flags={"host.instances": None})
    assert settings["host.instances"] == 3


def test_every_key_has_a_variable_of_its_own() -> None:
    assert KEYS["host.dns_servers"].variable == "CFCTL_HOST_DNS_SERVERS"
    assert len({key.variable for key in KEYS.values()}) == len(KEYS)


def test_every_built_in_value_would_be_accepted() -> None:
    for key in KEYS.values():
        text = ",".join(key.default) if isinstance(key.default, tuple) else str(key.default)
        assert key.parse(text) == key.default, key.name


# -- values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", ["129", "-1", "many", "1.5", "", "0x10", "9" * 30, "١"])
def test_numbers_that_make_no_sense(tmp_path: Path, raw: str) -> None:
    error = refused(tmp_path, environ={"CFCTL_HOST_INSTANCES": raw})
    assert error.brief == f"CFCTL_HOST_INSTANCES: {raw!r} is not a value for host.instances"
    assert "128" in (error.details or "")
    assert error.resolution == KEYS["host.instances"].doc


@pytest.mark.parametrize("toml", ["instances = true", "instances = 1.0", "instances = [1]", "instances = {}"])
def test_other_kinds_are_no_numbers(tmp_path: Path, toml: str) -> None:
    refused(tmp_path, toml=f"[host]\n{toml}\n")


@pytest.mark.parametrize(
    ("raw", "value"), [("true", True), ("YES", True), ("1", True), ("false", False), ("no", False), ("0", False)]
)
def test_truth(tmp_path: Path, raw: str, *, value: bool) -> None:
    assert load(tmp_path, environ={"CFCTL_HOST_GUEST_ISOLATION": raw})["host.guest_isolation"] is value


def test_neither_true_nor_false(tmp_path: Path) -> None:
    error = refused(tmp_path, environ={"CFCTL_HOST_GUEST_ISOLATION": "perhaps"})
    assert error.details == "true or false is needed"


def test_addresses(tmp_path: Path) -> None:
    toml = '[host]\ndns_servers = ["1.1.1.1", "9.9.9.9"]\n'
    assert load(tmp_path, toml=toml)["host.dns_servers"] == ("1.1.1.1", "9.9.9.9")
    environ = {"CFCTL_HOST_DNS6_SERVERS": "2606:4700:4700::1111, ::1"}
    assert load(tmp_path, environ=environ)["host.dns6_servers"] == ("2606:4700:4700::1111", "::1")
    assert "a list of IPv4 addresses is needed" in str(
        refused(tmp_path, environ={"CFCTL_HOST_DNS_SERVERS": "1.2.3.400"})
    )


# -- config.toml -------------------------------------------------------------------------------------------


def test_the_users_file_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CFCTL_PATHS_CONFIG", str(tmp_path))
    write(tmp_path, toml="[launch]\ntimeout = 7\n")
    assert config.load(environ={}, upstream_file=NOWHERE)["launch.timeout"] == 7


def test_a_named_file_must_be_there() -> None:
    with pytest.raises(UsageError, match="/nonexistent/file does not exist"):
        config.load(config_file=NOWHERE, environ={}, upstream_file=NOWHERE)


@pytest.mark.parametrize(
    ("toml", "brief"),
    [
        ("[host]\ninstance = 3\n", "there is no setting host.instance"),
        ("[guest]\nx = 3\n", "there is no setting guest.x"),
        ("instances = 3\n", "there is no setting instances"),
        ("[host\n", "is not a TOML file"),
        ("[host]\ninstances = 200\n", "200 is not a value for host.instances"),
    ],
)
def test_what_a_file_may_not_say(tmp_path: Path, toml: str, brief: str) -> None:
    error = refused(tmp_path, toml=toml)
    assert error.brief.startswith(f"{tmp_path}/config.toml")
    assert brief in error.brief


def test_an_unknown_setting_names_the_nearest(tmp_path: Path) -> None:
    error = refused(tmp_path, toml="[host]\ninstance = 3\n")
    assert (error.details or "").startswith("Nearest to it: host.instances")
    assert error.resolution == "Write host.instances, or take it out."
    assert all(name in (refused(tmp_path, toml="[guest]\nx = 3\n").details or "") for name in KEYS)


@pytest.mark.parametrize(
    ("variable", "near"),
    [
        ("CFCTL_HOST_INSTANCE", "CFCTL_HOST_INSTANCES"),
        ("CFCTL_HOST_DNSSERVERS", "CFCTL_HOST_DNS_SERVERS"),
        ("CFCTL_LAUNCH_TIMEOUT_S", "CFCTL_LAUNCH_TIMEOUT"),
    ],
)
def test_an_unknown_variable_names_the_nearest(tmp_path: Path, variable: str, near: str) -> None:
    error = refused(tmp_path, environ={variable: "3"})
    assert error.brief == f"{variable}: there is no such setting"
    assert (error.details or "").startswith(f"Nearest to it: {near}")


def test_variables_that_are_no_settings(tmp_path: Path) -> None:
    environ = {"CFCTL_PATHS_CONFIG": "/x", "CFCTL_DEVICE": "phone", "CFCTL_HOSTNAME": "x", "PATH": "/bin"}
    assert load(tmp_path, environ=environ)["host.instances"] == 10


def test_a_file_that_is_a_directory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        config.load(config_file=tmp_path, environ={}, upstream_file=NOWHERE)
    with pytest.raises(UsageError, match="cannot be read"):
        config.load(environ={}, upstream_file=tmp_path)


# -- upstream's file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("num_cvd_accounts=7", "7"),
        ('num_cvd_accounts="7"', "7"),
        ("num_cvd_accounts='7'", "7"),
        ("  num_cvd_accounts=7   # seven", "7"),
        ("export num_cvd_accounts=7", "7"),
        ("num_cvd_accounts=", ""),
        ("num_cvd_accounts=1\nnum_cvd_accounts=7", "7"),
        ("# num_cvd_accounts=1\n\nnum_cvd_accounts=7\r\n", "7"),
    ],
)
def test_lines_that_need_no_shell(text: str, value: str) -> None:
    found, _ = config.parse_shell_assignments(text, "f")["num_cvd_accounts"]
    assert found == value


@pytest.mark.parametrize(
    "line",
    [
        "num_cvd_accounts=$(nproc)",
        "num_cvd_accounts=`nproc`",
        "num_cvd_accounts=$N",
        'num_cvd_accounts="$N"',
        "num_cvd_accounts=7; rm -rf /",
        "num_cvd_accounts=7 && true",
        "num_cvd_accounts = 7",
        "if true; then",
        ". /etc/other",
        "num_cvd_accounts='7",
        "num_cvd_accounts=7\\",
        "num_cvd_accounts=~",
        "num_cvd_accounts=1'2'",
    ],
)
def test_lines_that_only_a_shell_understands(tmp_path: Path, line: str) -> None:
    error = refused(tmp_path, upstream=f"# first\n{line}\n")
    assert error.brief == f"{tmp_path}/upstream, line 2: only a shell understands this line"
    assert line.strip() in (error.details or "")


def test_an_empty_value_is_none(tmp_path: Path) -> None:
    assert load(tmp_path, upstream="num_cvd_accounts=\n")["host.instances"] == 10


def test_wrong_values_name_file_and_line(tmp_path: Path) -> None:
    error = refused(tmp_path, upstream="\nnum_cvd_accounts=1000\n")
    assert error.brief.startswith(f"{tmp_path}/upstream:2: '1000' is not a value")


def test_every_variable_of_upstream(tmp_path: Path) -> None:
    text = """\
num_cvd_accounts=4
bridge_interface=br0
ipv4_bridge=0
ipv6_bridge=1
dns_servers=192.0.2.1,192.0.2.2
dns6_servers="2001:db8::1"
wifi_ipv6_prefix=fd00:96::
wifi_ipv6_prefix_length=64
ethernet_ipv6_prefix=fd00:98::
ethernet_ipv6_prefix_length=64
of_a_later_version=1
"""
    settings = load(tmp_path, upstream=text)
    by_upstream = {key.upstream: key.name for key in KEYS.values() if key.upstream}
    found = {variable: settings[name] for variable, name in by_upstream.items()}
    assert found == {
        "num_cvd_accounts": 4,
        "bridge_interface": "br0",
        "ipv4_bridge": False,
        "ipv6_bridge": True,
        "dns_servers": ("192.0.2.1", "192.0.2.2"),
        "dns6_servers": ("2001:db8::1",),
        "wifi_ipv6_prefix": "fd00:96::",
        "wifi_ipv6_prefix_length": 64,
        "ethernet_ipv6_prefix": "fd00:98::",
        "ethernet_ipv6_prefix_length": 64,
    }
    assert settings.origin("host.bridge") == f"{tmp_path}/upstream:2"
    # As upstream ships it: all lines there, some without a value.
    empty = load(tmp_path, upstream="bridge_interface=\nipv4_bridge=\nwifi_ipv6_prefix=\n")
    assert (empty["host.bridge"], empty["host.ipv4_bridge"], empty["host.wifi_ipv6_prefix"]) == ("", True, "")


@pytest.mark.parametrize(
    ("name", "raw", "why"),
    [
        ("host.bridge", "br 0", "the name of a network interface is needed, or nothing at all"),
        ("host.bridge", "a-name-that-is-too-long", "the name of a network interface is needed"),
        ("host.bridge", "-br", "the name of a network interface is needed"),
        ("host.bridge", "cvd-ebr", "interfaces called cvd-... are cfctl's own"),
        ("host.dns", "both", "it must be one of: servers, host"),
        ("host.wifi_subnet", "10.0.98.1/24", "a subnet such as 10.0.98.0/24 is needed: 10.0.98.1/24 has host bits"),
        ("host.wifi_subnet", "many", "a subnet such as 10.0.98.0/24 is needed"),
        ("host.wifi_subnet", "10.0.0.0/16", "a /24 is needed, such as 10.0.98.0/24: 10.0.0.0/16 is a /16"),
        ("host.wifi_subnet", "10.0.98.0", "a /24 is needed, such as 10.0.98.0/24: 10.0.98.0/32 is a /32"),
        ("host.wifi_subnet", "127.0.0.0/24", "no interface can have an address in 127.0.0.0/24"),
        ("host.wifi_subnet", "224.0.0.0/24", "no interface can have an address"),
        ("host.wifi_subnet", "169.254.0.0/24", "no interface can have an address"),
        ("host.wifi_subnet", "0.0.1.0/24", "no interface can have an address"),
        ("host.wifi_subnet", "255.255.255.0/24", "no interface can have an address"),
        ("host.wifi_ipv6_prefix", "fd00:96::1", "a prefix such as fd00:98:: is needed, nothing after its first 64"),
        ("host.wifi_ipv6_prefix", "192.168.1.0", "a prefix such as fd00:98:: is needed"),
        ("host.wifi_ipv6_prefix", "fd00:96::/64", "a prefix such as fd00:98:: is needed"),
        ("host.wifi_ipv6_prefix", "fe80::", "no bridge can have an address in fe80::/64"),
        ("host.wifi_ipv6_prefix", "ff02::", "no bridge can have an address"),
        ("host.wifi_ipv6_prefix", "::", "no bridge can have an address"),
        ("host.wifi_ipv6_prefix_length", "48", "it must be 64"),
    ],
)
def test_networks_that_make_no_sense(tmp_path: Path, name: str, raw: str, why: str) -> None:
    error = refused(tmp_path, environ={KEYS[name].variable: raw})
    assert error.brief == f"{KEYS[name].variable}: {raw!r} is not a value for {name}"
    assert why in (error.details or "")
    assert "64 to 64" not in (error.details or "")


def test_networks_are_written_as_everybody_writes_them(tmp_path: Path) -> None:
    environ = {"CFCTL_HOST_WIFI_IPV6_PREFIX": "FD00:0096:0:0::", "CFCTL_HOST_WIFI_SUBNET": "10.0.96.0/255.255.255.0"}
    settings = load(tmp_path, environ=environ)
    assert settings["host.wifi_ipv6_prefix"] == "fd00:96::"
    assert settings["host.wifi_subnet"] == "10.0.96.0/24"


def test_two_networks_must_not_be_the_same(tmp_path: Path) -> None:
    error = refused(tmp_path, toml='[host]\nwifi_subnet = "192.168.98.0/24"\n')
    assert str(error) == (
        "host.wifi_subnet and host.ethernet_subnet are the same network, 192.168.98.0/24\n"
        f"From {tmp_path}/config.toml and built-in.\n"
        "Give each a network of its own."
    )
    environ = {"CFCTL_HOST_WIFI_IPV6_PREFIX": "fd00::", "CFCTL_HOST_ETHERNET_IPV6_PREFIX": "fd00::"}
    assert (
        "host.wifi_ipv6_prefix and host.ethernet_ipv6_prefix are the same" in refused(tmp_path, environ=environ).brief
    )


def outcome(call: Callable[[], object]) -> UsageError | None:
    """Return the error of a call, None if it went well; anything else than a UsageError is a bug."""
    try:
        call()
    except UsageError as error:
        return error
    return None


# -- fuzz --------------------------------------------------------------------------------------------------

lines = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.builds(
            "{}={}".format,
            st.sampled_from(["num_cvd_accounts", "dns_servers", "bridge_interface", "x", "export y"]),
            st.text(max_size=20),
        ),
    ),
    max_size=8,
)


@given(lines.map("\n".join))
def test_no_shell_file_makes_it_fall_over(text: str) -> None:
    error = outcome(lambda: config.parse_shell_assignments(text, "f"))
    if error is not None:
        assert "f, line " in error.brief
        return
    for value, line in config.parse_shell_assignments(text, "f").values():
        assert "\n" not in value
        assert 1 <= line <= len(text.splitlines())


@given(st.one_of(st.binary(max_size=60), lines.map(lambda text: "\n".join(text).encode(errors="ignore"))))
def test_no_upstream_file_makes_it_fall_over(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("fuzz", numbered=True) / "f"
    file.write_bytes(content)
    error = outcome(lambda: config.load(environ={}, upstream_file=file))
    assert error is None or str(file) in error.brief


values = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)),
    max_leaves=4,
)


@given(st.sampled_from(sorted(KEYS)), values)
def test_no_value_makes_it_fall_over(name: str, value: object) -> None:
    error = outcome(lambda: config.load(environ={}, upstream_file=NOWHERE, flags={name: value}))
    assert error is None or name in error.brief


@given(st.binary(max_size=80))
def test_no_toml_file_makes_it_fall_over(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("fuzz", numbered=True) / "config.toml"
    file.write_bytes(content)
    error = outcome(lambda: config.load(config_file=file, environ={}, upstream_file=NOWHERE))
    assert error is None or str(file) in error.brief
