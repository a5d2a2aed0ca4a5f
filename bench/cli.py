"""How long the verbs take that people type most: ``cfctl --help`` and ``cfctl ps`` with 100 devices.

Beside them, in the same run, the bare interpreter: what no Python program can be faster than. Prints a table and,
as the last line, JSON. Run it with: make bench
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from cfctl.launch import registry
from cfctl.launch.registry import Record, Request

_RUNS = 15
_DEVICES = 100

#: Budgets of the design, in seconds: what must hold, and the goal.
_BUDGETS = {"cfctl --help": (0.15, 0.12), f"cfctl ps, {_DEVICES} devices": (0.25, 0.2)}


def _time(argv: list[str], env: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


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
        times: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(_RUNS + 1):
            for name, argv in commands.items():
                seconds = _time(argv, env)
                if turn:  # the first one fills caches
                    times[name].append(seconds)
    floor = statistics.median(times["python -c pass"])
    rows = {}
    print(f"{'command':<24} {'median s':>9} {'worst s':>9} {'of python':>10} {'must':>6} {'goal':>6}")
    for name, values in times.items():
        median = statistics.median(values)
        must, goal = _BUDGETS.get(name, (None, None))
        print(f"{name:<24} {median:9.3f} {max(values):9.3f} {median / floor:9.1f}x {must or '':>6} {goal or '':>6}")
        rows[name] = {"median_s": round(median, 4), "worst_s": round(max(values), 4), "must_s": must, "goal_s": goal}
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
