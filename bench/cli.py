"""How long the verbs take that people type most: ``cfctl --help`` and ``cfctl ps`` with 100 devices.

The devices are listed twice: as records alone, and alive. Then their processes are sleeping children with the
environment of a launcher's, because 100 VMs do not fit into a bench.

Beside them, in the same run, the bare interpreter: what no Python program can be faster than. Prints a table and,
as the last line, JSON. Run it with: make bench
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cfctl.launch import registry
from cfctl.launch.registry import Record, Request

_RUNS = 15
_DEVICES = 100

#: Of one device: a supervisor, a VM and helpers. Upstream's has about 35 (launcher.md section 12); a tenth of that
#: keeps the bench small.
_PROCESSES = 4

#: Budgets of the design, in seconds: what must hold, and the goal.
_ALIVE = f"the same, alive ({_DEVICES * _PROCESSES} processes)"
_BUDGETS = {"cfctl --help": (0.15, 0.12), f"cfctl ps, {_DEVICES} devices": (0.25, 0.2), _ALIVE: (0.25, 0.2)}


def _time(argv: list[str], env: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _measure(commands: dict[str, list[str]], env: dict[str, str]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(_RUNS + 1):
        for name, argv in commands.items():
            seconds = _time(argv, env)
            if turn:  # the first one fills caches
                times[name].append(seconds)
    return times


def _alive(home: Path, number: int) -> list[subprocess.Popen[bytes]]:
    """Start what looks like a device's processes, and like a boot that is over."""
    logs = home / "cuttlefish" / "instances" / f"cvd-{number}" / "logs"
    logs.mkdir(parents=True)
    (logs / "launcher.log").write_text("VIRTUAL_DEVICE_BOOT_COMPLETED\n")
    env = {"HOME": str(home), "CUTTLEFISH_INSTANCE": str(number), "CFCTL_DEVICE": str(home)}
    names = ["run_cvd", "qemu-system-x86_64", *["secure_env"] * (_PROCESSES - 2)]
    return [subprocess.Popen([name, "600"], executable="/bin/sleep", env=env, cwd="/") for name in names]


def main() -> None:
    """Measure in turns, so that a machine whose speed drifts hits all alike."""
    with tempfile.TemporaryDirectory() as state:
        os.environ["CFCTL_PATHS_STATE"] = state
        for number in range(1, _DEVICES + 1):
            registry.create(
                Record(
                    name=f"device-{number}",
                    owner="bench",
                    created_at=registry.now(),
                    request=Request(host_package="/opt/cf"),
                    numbers=(number,),
                    gpu_mode="guest_swiftshader",
                    gpu_reason="",
                    started_at=registry.now(),
                )
            )
        env = dict(os.environ)
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "cfctl --help": [sys.executable, "-m", "cfctl", "--help"],
            f"cfctl ps, {_DEVICES} devices": [sys.executable, "-m", "cfctl", "ps"],
        }
        times = _measure(commands, env)
        with contextlib.ExitStack() as stack:
            for number in range(1, _DEVICES + 1):
                for child in _alive(Path(state) / "devices" / f"device-{number}", number):
                    stack.callback(child.wait)
                    stack.callback(child.kill)
            times |= _measure({_ALIVE: [sys.executable, "-m", "cfctl", "ps"]}, env)
    floor = statistics.median(times["python -c pass"])
    rows = {}
    print(f"{'command':<34} {'median s':>9} {'worst s':>9} {'of python':>10} {'must':>6} {'goal':>6}")
    for name, values in times.items():
        median = statistics.median(values)
        must, goal = _BUDGETS.get(name, (None, None))
        print(f"{name:<34} {median:9.3f} {max(values):9.3f} {median / floor:9.1f}x {must or '':>6} {goal or '':>6}")
        rows[name] = {"median_s": round(median, 4), "worst_s": round(max(values), 4), "must_s": must, "goal_s": goal}
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
