"""What a relay of sockets costs: cfctl's pump, and its tunnels through TLS and gRPC, beside socat in the same run.

One stream of bytes, and questions with answers of 64 bytes, through each relay to the same program on loopback. socat
is run with several sizes of its buffer: the best one counts. Its TLS pair is what a tunnel would be without gRPC.
In turns, so that a machine whose speed drifts hits all alike; the best turn of each counts: whatever else runs
makes it slower. Prints a table and, as the last line, JSON. Run it with: make bench
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_TURNS = 8
_QUESTIONS = 2000
_QUESTION = b"?" * 64

#: What one stream carries each turn.
_PLAIN = 128 << 20
_TLS = 64 << 20
_PIECE = 1 << 18

#: Budgets of the design against socat's best: the pump's throughput at least, its round trip at most.
_THROUGHPUT, _ROUND_TRIP = 1.0, 1.3

#: socat's own default, and larger ones.
_BUFFERS = (8192, 65536, 262144)

_PUMP = "cfctl pump"
_SOCAT_TLS = "socat, two with TLS between"
_TUNNEL = "cfctl tunnel (TLS, gRPC)"

_ECHO, _SINK = b"e", b"s"
_PATIENCE_S = 30.0


# -- the program behind the relays -------------------------------------------------------------------------


def _answer(client: socket.socket) -> None:
    with client, contextlib.suppress(OSError):
        if client.recv(1) == _ECHO:
            while data := client.recv(1 << 16):
                client.sendall(data)
            return
        buffer, taken = bytearray(1 << 20), 0
        while size := client.recv_into(buffer):
            taken += size
        client.sendall(str(taken).encode())


def _serve(port: int) -> None:
    """Answer questions, or take a stream and say how long it was."""
    with _listener(port) as listener:
        while True:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_answer, args=(client,), daemon=True).start()


def _listener(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port), reuse_port=True)


# -- cfctl's relays ----------------------------------------------------------------------------------------


async def _pump(port: int, to: int) -> None:
    """Lead a port to another with cfctl's pump."""
    from cfctl.wire import pump

    loop = asyncio.get_running_loop()
    tasks = set()

    async def one(client: socket.socket) -> None:
        with client, socket.socket() as there:
            there.settimeout(0)
            await loop.sock_connect(there, ("127.0.0.1", to))
            await pump.join(client, there)

    with _listener(port) as listener:
        listener.settimeout(0)
        while True:
            client, _ = await loop.sock_accept(listener)
            tasks.add(task := asyncio.create_task(one(client)))
            task.add_done_callback(tasks.discard)


class _Way:
    """The way to the program behind the relays: what a relay's way to an adb port is."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def connect(self) -> socket.socket:
        end = socket.socket()
        end.settimeout(0)
        await asyncio.get_running_loop().sock_connect(end, ("127.0.0.1", self._port))
        return end

    async def gone(self) -> str:
        await asyncio.Event().wait()
        return ""


async def _far(port: int, to: int, directory: str) -> None:
    """Be a relay: the daemon's front with TLS, gRPC behind it, and the Tunnel service."""
    import grpc.aio

    from cfctl.relay import certificates
    from cfctl.relay.front import Front
    from cfctl.relay.limits import Limits
    from cfctl.relay.tunnel import Tunnel
    from cfctl.v1 import tunnel_pb2_grpc

    async def resolve(_target: str, _service: object) -> _Way:
        return _Way(to)

    base = Path(directory)
    certificate = certificates.ensure(base / "certificate.pem", base / "key.pem")
    # There is no gate here that would let anybody in.
    limits = Limits(introduce_s=86400, strange_bytes=1 << 62)
    front = Front(base / "inside", limits, lambda _in, _out: None)
    server = grpc.aio.server(options=limits.grpc_options())
    tunnel_pb2_grpc.add_TunnelServicer_to_server(Tunnel(resolve), server)
    server.add_insecure_port(f"unix:{base / 'inside'}")
    await server.start()
    tls = certificate.context()
    front.listen(_listener(port), lambda: tls)
    await asyncio.Event().wait()


async def _near(port: int, far: int, directory: str) -> None:
    """Be `cfctl --relay ... adb`: a port that leads through the relay."""
    from cfctl.remote import certificate, tunnel
    from cfctl.remote.channel import connected
    from cfctl.remote.contexts import Context

    where = f"127.0.0.1:{far}"
    shown = certificate.fetch(where)
    context = Context("bench", where, shown.fingerprint, shown.pem, shown.server_name)
    async with connected(context) as relay:
        listener = tunnel.Listener(relay.channel, "bench", tunnel.ADB, address=where, said=lambda _text: None)
        async with listener:
            (Path(directory) / "near").write_text(str(listener.port))
            await asyncio.sleep(86400)
    del port


# -- what is measured --------------------------------------------------------------------------------------


def _connect(port: int) -> socket.socket:
    end = socket.create_connection(("127.0.0.1", port))
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return end


def _throughput(port: int, size: int) -> float:
    """Return MB/s of one stream."""
    piece = os.urandom(_PIECE)
    with _connect(port) as end:
        end.sendall(_SINK)
        started = time.perf_counter()
        for _ in range(size // _PIECE):
            end.sendall(piece)
        end.shutdown(socket.SHUT_WR)
        taken = int(end.recv(100))
        seconds = time.perf_counter() - started
    if taken != size:
        raise SystemExit(f"{taken} of {size} bytes arrived")
    return size / seconds / 1e6


def _round_trip(port: int) -> float:
    """Return the median of the times of questions with their answers, in microseconds."""
    times = []
    with _connect(port) as end:
        end.sendall(_ECHO)
        for _ in range(_QUESTIONS):
            started = time.perf_counter()
            end.sendall(_QUESTION)
            left = len(_QUESTION)
            while left:
                left -= len(end.recv(left))
            times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


# -- everything at once ------------------------------------------------------------------------------------


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _socat(*addresses: str, buffer: int) -> list[str]:
    return ["socat", "-b", str(buffer), *addresses]


@contextlib.contextmanager
def _running(*commands: list[str]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for argv in commands:
            program = stack.enter_context(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            stack.callback(program.terminate)
        yield


def _wait(what: Callable[..., object], *about: object) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        with contextlib.suppress(OSError, ValueError):
            if what(*about):
                return
        if time.monotonic() > deadline:
            raise SystemExit("a relay did not come up")
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with _connect(port):
        return True


@contextlib.contextmanager
def _relays(directory: Path) -> Iterator[dict[str, tuple[int, int]]]:
    """Run all relays for the block; give the port of each, and how much to send through it."""
    sink = _free()
    ports: dict[str, tuple[int, int]] = {}
    commands = [_own("serve", sink)]
    for buffer in _BUFFERS:
        port = _free()
        listen = f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,nodelay"
        commands.append(_socat(listen, f"TCP:127.0.0.1:{sink},nodelay", buffer=buffer))
        ports[f"socat -b {buffer}"] = port, _PLAIN
    port = _free()
    commands.append(_own("pump", port, sink))
    ports[_PUMP] = port, _PLAIN

    port, far = _free(), _free()
    pem = directory / "socat.pem"
    subject = ["-subj", "/CN=bench", "-addext", "subjectAltName=DNS:bench", "-days", "1", "-nodes"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", str(pem), "-out", f"{pem}.crt"]
    subprocess.run(["openssl", "req", "-x509", *key, *subject], check=True, stderr=subprocess.DEVNULL)
    pem.write_text(pem.read_text() + Path(f"{pem}.crt").read_text())
    listen = f"OPENSSL-LISTEN:{far},bind=127.0.0.1,fork,reuseaddr,cert={pem},verify=0,nodelay"
    commands.append(_socat(listen, f"TCP:127.0.0.1:{sink},nodelay", buffer=65536))
    there = f"OPENSSL:127.0.0.1:{far},cafile={pem}.crt,commonname=bench,nodelay"
    listen = f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,nodelay"
    commands.append(_socat(listen, there, buffer=65536))
    ports[_SOCAT_TLS] = port, _TLS

    far = _free()
    commands.append(_own("far", far, sink, str(directory)))
    with _running(*commands):
        for waited in (sink, far, *(port for port, _ in ports.values())):
            _wait(_listens, waited)
        with _running(_own("near", 0, far, str(directory))):
            near = directory / "near"
            _wait(near.read_text)
            ports[_TUNNEL] = int(near.read_text()), _TLS
            yield ports


def _own(*words: str | int) -> list[str]:
    return [sys.executable, "-m", "bench.relay", *map(str, words)]


def main() -> None:
    """Measure all of them in turns."""
    streams: dict[str, list[float]] = {}
    trips: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory, _relays(Path(directory)) as relays:
        for _ in range(_TURNS):
            for name, (port, size) in relays.items():
                streams.setdefault(name, []).append(_throughput(port, size))
                trips.setdefault(name, []).append(_round_trip(port))
    stream = {name: max(found) for name, found in streams.items()}
    trip = {name: min(found) for name, found in trips.items()}
    socats = [name for name in streams if name.startswith("socat -b")]
    best_stream, best_trip = max(stream[name] for name in socats), min(trip[name] for name in socats)
    document: dict[str, dict[str, float]] = {}
    print(f"{'relay':<28} {'MB/s':>7} {'of socat':>9} {'p50 us':>8} {'of socat':>9}")
    for name in streams:
        row = {
            "mb_per_s": round(stream[name], 1),
            "throughput_of_socat": round(stream[name] / best_stream, 3),
            "round_trip_us": round(trip[name], 1),
            "round_trip_of_socat": round(trip[name] / best_trip, 3),
        }
        document[name] = row
        numbers = row.values()
        print(f"{name:<28} {{:7.0f}} {{:9.2f}} {{:8.1f}} {{:9.2f}}".format(*numbers))
    print(f"must: {_PUMP} at least {_THROUGHPUT} of socat's best throughput, at most {_ROUND_TRIP} of its round trip")
    print(json.dumps(document))


def _part(words: list[str]) -> None:
    """Be one of the programs of this bench."""
    match words:
        case ["serve", port]:
            _serve(int(port))
        case ["pump", port, to]:
            asyncio.run(_pump(int(port), int(to)))
        case ["far", port, to, directory]:
            asyncio.run(_far(int(port), int(to), directory))
        case ["near", port, far, directory]:
            asyncio.run(_near(int(port), int(far), directory))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _part(sys.argv[1:])
    else:
        main()
