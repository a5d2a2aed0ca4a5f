"""Every method has a rule, and what a role may do is what the table of operations says."""

from __future__ import annotations

import pytest

from cfctl.control.operations import TABLE, Role
from cfctl.errors import UsageError
from cfctl.relay import roles
from cfctl.relay.roles import OPERATIONS, RULES
from cfctl.remote.control import CALLS
from cfctl.v1 import control_pb2, devices_pb2, host_pb2, relay_pb2, tunnel_pb2


def _methods() -> set[str]:
    found = set()
    for module in (control_pb2, devices_pb2, host_pb2, relay_pb2, tunnel_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            found |= {f"/{service.full_name}/{method.name}" for method in service.methods}
    return found


def test_every_method_has_a_rule() -> None:
    ours = {method for method in RULES if method.startswith("/cfctl.")}
    assert ours == _methods()


def test_no_method_reaches_into_the_host() -> None:
    methods = {method.name for method in control_pb2.DESCRIPTOR.services_by_name["Control"].methods}
    assert methods == set(OPERATIONS)
    for name in OPERATIONS.values():
        assert TABLE[name].relayed, name


def test_what_shares_a_method_shares_a_role() -> None:
    methods: dict[str, set[Role]] = {}
    for name, (method, _) in CALLS.items():
        methods.setdefault(method, set()).add(TABLE[name].role)
        assert TABLE[name].role == RULES[f"/cfctl.v1.Control/{method}"].role, name
    assert {method for method, found in methods.items() if len(found) > 1} == set()


def test_what_changes_something_is_an_action() -> None:
    for method, rule in RULES.items():
        assert rule.recorded or rule.role is Role.VIEWER, method


@pytest.mark.parametrize(
    ("method", "least"),
    [("Devices/Launch", Role.ADMIN), ("Devices/Stop", Role.OPERATOR), ("Tunnel/Open", Role.OPERATOR)],
)
def test_who_may_what(method: str, least: Role) -> None:
    assert RULES[f"/cfctl.v1.{method}"].role is least


def test_words() -> None:
    assert [roles.role(roles.word(level)) for level in Role] == list(Role)
    with pytest.raises(UsageError, match="is no role"):
        roles.role("root")


def test_the_table_says_what_the_api_has_calls_for() -> None:
    """So docs/control.md, which is held equal to the table, promises no more and no less than is done."""
    assert {name for name, spec in TABLE.items() if spec.relayed} == set(CALLS)


def test_what_a_role_may_not_do_is_called_as_people_type_it() -> None:
    words = {"/cfctl.v1.Control/GetBalloon": "balloon stats", "/cfctl.v1.Tunnel/Open": "adb and the console"}
    assert {method: roles.named(method) for method in words} == words
    assert roles.named("/cfctl.v1.Devices/Launch") == "launch"
    assert all(roles.named(method).islower() for method in RULES)
