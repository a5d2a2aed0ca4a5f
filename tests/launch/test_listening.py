"""Which ports a device listens on: those of its own processes, not those that have a number of its range."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from cfctl.instance import Instance
from cfctl.launch import procs
from cfctl.launch.observe import open_ports

_LISTEN = """
import socket, sys
to = socket.create_server(("127.0.0.1", 0))
print(to.getsockname()[1], flush=True)
sys.stdin.read()
"""


def test_ports_are_of_whoever_listens_on_them() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as mine,
        subprocess.Popen(
            [sys.executable, "-c", _LISTEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other,
    ):
        assert other.stdout is not None
        here, there = mine.getsockname()[1], int(other.stdout.readline())
        listening = procs.Look().ports
        assert {here, there} <= set(listening.values())
        assert here in procs.ports_of([os.getpid()], listening)
        assert there not in procs.ports_of([os.getpid()], listening)
        assert procs.ports_of([other.pid], listening) == {there}
        assert {here, there} <= procs.ports_of([os.getpid(), other.pid], listening)
        other.communicate("")
        # It has ended, and a device without processes listens nowhere.
        assert procs.ports_of([other.pid], listening) == frozenset()
        assert procs.ports_of([], listening) == frozenset()


def test_a_relay_on_an_instance_s_port_is_not_the_instance() -> None:
    assert open_ports(Instance(1), procs.ports_of([os.getpid()], {0: 8443})) == {}


def test_processes_that_may_not_be_asked_may_listen_on_any() -> None:
    child = os.fork()
    if not child:
        if os.geteuid() == 0:
            os.setuid(65534)
        os._exit(procs.ports_of([1], {7: 6520}) != {6520})
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
