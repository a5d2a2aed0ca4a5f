"""Who calls, and how far he may go: tokens, roles, and the reasons that a caller is told."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cfctl.v1 import (
    devices_pb2,
    devices_pb2_grpc,
    host_pb2,
    host_pb2_grpc,
    relay_pb2,
    relay_pb2_grpc,
    tunnel_pb2,
    tunnel_pb2_grpc,
)
from tests.relay.relays import PATIENCE_S, Relay, bearer, told, wait

Code = grpc.StatusCode


@pytest.fixture
def devices(relay: Relay) -> Iterator[devices_pb2_grpc.DevicesStub]:
    """Give the service over TLS."""
    with relay.elsewhere() as channel:
        yield devices_pb2_grpc.DevicesStub(channel)


def refused(call: Any, request: Any, secret: str | None) -> tuple[grpc.StatusCode, str]:
    """Make a call that must be refused; return the status, and the word for programs."""
    with pytest.raises(grpc.RpcError) as caught:
        list(call(request, metadata=bearer(secret) if secret else None, timeout=PATIENCE_S))
    return caught.value.code(), told(caught.value).code


def test_no_token_a_wrong_one_and_one_that_has_expired(relay: Relay, devices: devices_pb2_grpc.DevicesStub) -> None:
    secret = relay.token(ttl="1s")
    nobody = (Code.UNAUTHENTICATED, "token-refused")
    assert refused(devices.List, devices_pb2.ListRequest(), None) == nobody
    assert refused(devices.List, devices_pb2.ListRequest(), "cfctl_00000000_" + "A" * 43) == nobody
    assert (
        refused(devices.List, devices_pb2.ListRequest(), secret[:-1] + ("A" if secret[-1] != "A" else "B")) == nobody
    )
    wait(lambda: all(token.expired for token in relay.store.all() if token.id in secret), "the token's end")
    assert refused(devices.List, devices_pb2.ListRequest(), secret) == nobody
    log = relay.audit()
    assert {line["result"] for line in log if line["user"] is None} == {"token-refused"}
    assert secret not in json.dumps(log)


def test_what_is_wrong_with_our_files_is_not_told_to_strangers(relay: Relay) -> None:
    secret = relay.token()
    path = relay.root / "state/relay/tokens.json"
    good = path.read_text()
    path.write_text("damaged")
    try:
        with relay.elsewhere() as channel:
            call = devices_pb2_grpc.DevicesStub(channel).List
            assert refused(call, devices_pb2.ListRequest(), secret) == (Code.UNAUTHENTICATED, "token-refused")
    finally:
        path.write_text(good)


def test_a_connection_that_shows_wrong_tokens_is_closed(relay: Relay) -> None:
    with relay.elsewhere() as channel:
        stub = devices_pb2_grpc.DevicesStub(channel)
        # Not a stranger's, which would be closed anyway.
        stub.List(devices_pb2.ListRequest(), metadata=bearer(relay.token()), timeout=PATIENCE_S)
        for _ in range(5):
            refused(stub.List, devices_pb2.ListRequest(), "wrong")
        assert wait(lambda: relay.status().connections == 1, "the connection's end") is True


def test_a_viewer_looks_and_does_nothing(relay: Relay, devices: devices_pb2_grpc.DevicesStub) -> None:
    secret = relay.token("viewer")
    assert list(devices.List(devices_pb2.ListRequest(), metadata=bearer(secret)).devices) is not None
    for call, request in (
        (devices.Stop, devices_pb2.StopRequest(name="phone")),
        (devices.Restart, devices_pb2.RestartRequest(name="phone")),
        (devices.Launch, devices_pb2.LaunchRequest(name="phone")),
    ):
        assert refused(call, request, secret) == (Code.PERMISSION_DENIED, "not-allowed")
    line = relay.audit()[-1]
    assert (line["method"], line["device"], line["result"]) == ("/cfctl.v1.Devices/Launch", "phone", "not-allowed")
    assert line["token"] in secret


def test_an_operator_launches_nothing(relay: Relay, devices: devices_pb2_grpc.DevicesStub) -> None:
    secret = relay.token("operator")
    denied = refused(devices.Launch, devices_pb2.LaunchRequest(name="phone"), secret)
    assert denied == (Code.PERMISSION_DENIED, "not-allowed")
    missing = refused(devices.Stop, devices_pb2.StopRequest(name="no-such-phone"), secret)
    assert missing == (Code.NOT_FOUND, "no-such-device")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's token could launch as root")
def test_roots_token_launches_nothing(relay: Relay, devices: devices_pb2_grpc.DevicesStub) -> None:
    request = devices_pb2.LaunchRequest(name="phone")
    assert refused(devices.Launch, request, relay.token("admin")) == (Code.PERMISSION_DENIED, "not-allowed")


def test_a_local_caller_needs_no_token(relay: Relay) -> None:
    with relay.here() as channel:
        devices_pb2_grpc.DevicesStub(channel).List(devices_pb2.ListRequest(), timeout=PATIENCE_S)
        answer = host_pb2_grpc.HostStub(channel).Status(host_pb2.HostStatusRequest(), timeout=PATIENCE_S)
        assert answer.state in ("ready", "absent", "drift")
        checked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="cfctl.v1.Devices"))
        assert checked.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            devices_pb2_grpc.DevicesStub(channel).Get(devices_pb2.GetRequest(name="nobody's"), timeout=PATIENCE_S)
        assert caught.value.code() is Code.NOT_FOUND
        assert told(caught.value).exit_code == 1


def test_reflection_names_the_services(relay: Relay) -> None:
    with relay.here() as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        (answer,) = stub.ServerReflectionInfo(asked, timeout=PATIENCE_S)
        names = {service.name for service in answer.list_services_response.service}
        assert {"cfctl.v1.Devices", "cfctl.v1.Control", "cfctl.v1.Host", "grpc.health.v1.Health"} <= names


def test_what_is_for_this_host_alone_is_not_for_tokens(relay: Relay) -> None:
    secret = relay.token("admin")
    with relay.elsewhere() as channel:
        stub = relay_pb2_grpc.RelayStub(channel)
        for call, request in (
            (stub.Status, relay_pb2.RelayStatusRequest()),
            (stub.ListTokens, relay_pb2.ListTokensRequest()),
            (stub.CreateToken, relay_pb2.CreateTokenRequest(role="admin", devices="*", ttl="1d")),
            (stub.RevokeToken, relay_pb2.RevokeTokenRequest(id=secret.split("_")[1])),
        ):
            assert refused(call, request, secret) == (Code.PERMISSION_DENIED, "not-allowed")


def test_a_method_that_there_is_not(relay: Relay) -> None:
    with relay.elsewhere() as channel:
        call: Any = channel.unary_unary("/cfctl.v1.Devices/Reboot")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", metadata=None, timeout=PATIENCE_S)
        assert caught.value.code() is Code.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", metadata=bearer(relay.token()), timeout=PATIENCE_S)
        assert caught.value.code() is Code.PERMISSION_DENIED


def test_a_tunnel_to_nowhere(relay: Relay) -> None:
    """What a handler says by itself has its word in the log too, and so has the device."""
    opened = tunnel_pb2.TunnelRequest(
        open=tunnel_pb2.TunnelTarget(target="no-such-phone", service=tunnel_pb2.TunnelTarget.SERVICE_ADB)
    )
    with relay.here() as channel:
        stream = tunnel_pb2_grpc.TunnelStub(channel).Open(iter([opened]), timeout=PATIENCE_S)
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
    assert (caught.value.code(), told(caught.value).code) == (Code.NOT_FOUND, "no-such-device")
    # The handler ends the call, and the line is written after that.
    expected = ("/cfctl.v1.Tunnel/Open", "no-such-phone", "not-found")
    wait(
        lambda: expected in [(line["method"], line["device"], line["result"]) for line in relay.audit()],
        "the line in the log",
    )


def test_a_token_that_is_revoked_ends_its_calls(relay: Relay, devices: devices_pb2_grpc.DevicesStub) -> None:
    secret = relay.token("viewer")
    stream = devices.Watch(devices_pb2.WatchRequest(), metadata=bearer(secret), timeout=PATIENCE_S)
    wait(lambda: any("--watch" in child for child in relay.children()), "the watch to begin")
    relay.store.revoke(secret.split("_")[1])
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    assert caught.value.code() is Code.UNAUTHENTICATED
    assert told(caught.value).details == "The token has expired, or was revoked."
