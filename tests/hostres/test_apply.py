"""The order of the work, and what its failures say."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cfctl import config, process
from cfctl.errors import CfctlError, CommandFailed, DevicesUp, ForeignObject, HostLacks
from cfctl.hostres import apply, desired, dnsmasq, host, nft, observed, plan, rtnetlink, safety, tap
from cfctl.hostres.desired import State
from cfctl.hostres.observed import Observed
from tests.hostres import hosts

EMPTY = Observed(sysctls={"net.ipv4.ip_forward": "0", "net.ipv6.conf.all.forwarding": "0"})


def titles(state: State, observed_: Observed) -> list[str]:
    return [piece.title for piece in apply.steps(plan.compute(state, observed_))]


def test_order_of_a_setup() -> None:
    assert titles(desired.build(2), EMPTY) == [
        "change the firewall rules",
        "make 2 bridges",
        "make 8 taps",
        "bring 8 taps up",
        "set IPv6 of the bridges",
        "start 2 DHCP servers",
        "switch forwarding on",
    ]


def test_order_of_a_teardown() -> None:
    assert titles(State(), hosts.ready(desired.build(1))) == [
        "put 6 interfaces aside",
        "delete 6 interfaces",
        "end 2 DHCP servers",
        "change the firewall rules",
        "remove what the DHCP servers left",
    ]


def test_a_multi_queue_tap_is_made_anew() -> None:
    ready = hosts.ready(desired.build(1))
    options = tuple((name, True if name == "multi_queue" else value) for name, value in desired.TAP_OPTIONS)
    found = ready.links["cvd-etap-01"]
    wrong = replace(found, link=replace(found.link, options=options))
    made = titles(desired.build(1), replace(ready, links={**ready.links, "cvd-etap-01": wrong}))
    assert made == ["put 1 interface aside", "delete 1 interface", "make 1 tap", "bring 1 tap up"]


def test_rules_change_in_one_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(nft, "transaction", lambda lines: written.extend(lines))
    one, two = desired.build(1), desired.build(2)
    for state, ready in ((two, hosts.ready(one)), (one, hosts.ready(two))):
        work = apply.steps(plan.compute(state, ready))
        next(piece for piece in work if piece.title == "change the firewall rules").run()
    nat = "rule ip cuttlefish_nat postrouting"
    assert written == [
        f'add {nat} ip saddr 192.168.97.4/30 masquerade comment "cfctl"',
        f'add {nat} ip saddr 192.168.94.4/30 masquerade comment "cfctl"',
        f"delete {nat} handle 4",
        f"delete {nat} handle 7",
    ]


def _fails(output: str) -> Callable[..., None]:
    def run(argv: list[str], **_: object) -> None:
        raise CommandFailed(argv, 1, output)

    return run


def _step(state: State, title: str) -> apply.Step:
    return next(piece for piece in apply.steps(plan.compute(state, EMPTY)) if piece.title == title)


def test_a_failed_line_of_ip_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "run", _fails("RTNETLINK answers: File exists\nCommand failed -:2\n"))
    with pytest.raises(CfctlError) as caught:
        _step(desired.build(1), "make 2 bridges").run()
    assert str(caught.value) == (
        "the network interfaces could not be changed\n"
        "RTNETLINK answers: File exists\n"
        "Command failed -:2\n"
        "  ip link set dev cvd-new-ebr alias cfctl\n"
        "Run it again to go on, or take everything down: cfctl host teardown"
    )


def test_a_kernel_without_bridges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "run", _fails("RTNETLINK answers: Operation not supported\nCommand failed -:1\n"))
    with pytest.raises(HostLacks, match="the kernel knows no bridges") as caught:
        _step(desired.build(1), "make 2 bridges").run()
    assert caught.value.resolution == "Load the module: modprobe bridge"


def test_a_link_group_with_a_stranger_is_not_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = hosts.ready(desired.build(1))
    there = {name: (found.index, found.link.alias) for name, found in ready.links.items()}
    ran: list[object] = []
    monkeypatch.setattr(rtnetlink, "set_group", lambda *_: None)
    monkeypatch.setattr(rtnetlink, "delete_group", ran.append)
    delete = apply.steps(plan.compute(State(), ready))[1]
    strangers: list[dict[str, tuple[int, str | None]]] = [
        {"eth0": (99, None)},
        {"cvd-ebr": (99, "cfctl")},  # deleted and made again by somebody, in the meantime
        {"cvd-ebr": (2, None)},
    ]
    for stranger in strangers:
        monkeypatch.setattr(rtnetlink, "group_members", lambda _, stranger=stranger: {**there, **stranger})
        with pytest.raises(ForeignObject, match=r"holds interfaces that are not ours: (eth0|cvd-ebr)") as caught:
            delete.run()
        assert caught.value.resolution == "Run it again: another group will be chosen."
    assert ran == []
    monkeypatch.setattr(rtnetlink, "group_members", lambda _: there)
    delete.run()
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("function", "brief"),
    [
        ("group_members", "the interfaces could not be read back"),
        ("delete_group", "the interfaces could not be deleted"),
    ],
)
def test_deleting_fails(monkeypatch: pytest.MonkeyPatch, function: str, brief: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    ready = hosts.ready(desired.build(1))
    there = {name: (found.index, found.link.alias) for name, found in ready.links.items()}
    monkeypatch.setattr(rtnetlink, "group_members", lambda _: there)
    monkeypatch.setattr(rtnetlink, function, refuse)
    with pytest.raises(CfctlError, match=brief) as caught:
        apply.steps(plan.compute(State(), ready))[1].run()
    assert caught.value.details == "Operation not permitted"


def test_putting_aside_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(rtnetlink, "set_group", refuse)
    with pytest.raises(CfctlError, match="the interfaces could not be put aside") as caught:
        apply.steps(plan.compute(State(), hosts.ready(desired.build(1))))[0].run()
    assert caught.value.details == "Operation not permitted"


def test_sysctls_that_are_read_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(observed, "sysctl_path", lambda _: tmp_path / "missing" / "ip_forward")
    with pytest.raises(HostLacks) as caught:
        _step(desired.build(1), "switch forwarding on").run()
    assert caught.value.brief == "net.ipv4.ip_forward cannot be set to 1"
    assert "--sysctl net.ipv4.ip_forward=1" in (caught.value.resolution or "")
    # What is right already need not be written.
    (tmp_path / "ip_forward").write_text("1\n")
    monkeypatch.setattr(observed, "sysctl_path", lambda _: tmp_path / "ip_forward")
    monkeypatch.setattr(Path, "write_text", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "read-only")))
    _step(desired.build(1), "switch forwarding on").run()


def test_a_server_that_cannot_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "end", lambda pids, **_: list(pids))
    with pytest.raises(CfctlError) as caught:
        dnsmasq.stop([dnsmasq.Running("cvd-ebr", 77, (), marked=True)])
    assert caught.value.brief == "dnsmasq 77 does not end, not even by SIGKILL"
    assert caught.value.resolution == "Look at it: cat /proc/77/stack"


@pytest.mark.parametrize(
    ("number", "kind", "brief"),
    [
        (errno.ENOENT, HostLacks, "there is no /dev/net/tun"),
        (errno.EPERM, HostLacks, "cvd-etap-01 cannot be made: Operation not permitted"),
        (errno.EBUSY, DevicesUp, "cvd-etap-01 is in use"),
        (errno.EINVAL, CfctlError, "cvd-etap-01 cannot be made: Invalid argument"),
    ],
)
def test_what_the_tun_driver_refuses(
    number: int, kind: type[CfctlError], brief: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(kind) as caught, tap.opened(["cvd-etap-01"], 0, lambda names: pytest.fail(f"{names}")):
        pass
    assert (type(caught.value), caught.value.brief) == (kind, brief)


def test_a_failed_setup_of_an_empty_host_is_taken_down_and_of_others_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    carried_out: list[plan.Plan] = []

    def fail_once(work: plan.Plan) -> None:
        carried_out.append(work)
        if len(carried_out) == 1:
            raise CfctlError("no")

    monkeypatch.setattr(apply, "run", fail_once)
    monkeypatch.setattr(host, "_require_root", lambda _: None)
    monkeypatch.setattr(host, "_locked", contextlib.nullcontext)
    monkeypatch.setattr(process, "require", lambda name: name)
    monkeypatch.setattr(safety, "require_free", lambda *_, **__: None)
    settings = config.load(flags={"host.instances": 1}, environ={}, upstream_file=Path("/none"))
    for there, adopt, runs in (
        (EMPTY, False, 2),
        (hosts.upstream(1), True, 1),
        (hosts.ready(desired.build(2)), False, 1),
    ):
        carried_out.clear()
        monkeypatch.setattr(observed, "read", lambda *_, there=there: there)
        with pytest.raises(CfctlError, match="no"):
            host.setup(settings, adopt=adopt)
        assert len(carried_out) == runs
