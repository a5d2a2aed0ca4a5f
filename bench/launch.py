"""What ``cfctl launch`` adds over the bare launcher, and how long the embedded guest takes until ADB answers.

The bare launcher and cfctl boot the same guest in turns, in one run, on a network of their own. Prints a table and,
as the last line, JSON. Run it as root with: make bench
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import namespace
from cfctl.guest import package

_RUNS = 5

#: Budgets of the design, in seconds: what must hold, and the goal.
_ADDED = (0.3, 0.2)
_TO_ADB = (10.0, 5.0)

_CFCTL = [sys.executable, "-m", "cfctl"]


def _run(argv: list[str], env: dict[str, str] | None = None) -> float:
    started = time.perf_counter()
    subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _bare(host_package: Path) -> float:
    """Boot and stop with nothing but the package's own tools."""
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "HOME": home, "ANDROID_HOST_OUT": str(host_package)}
        flags = ["--daemon=true", "--gpu_mode=guest_swiftshader", "--base_instance_num=1", "--num_instances=1"]
        seconds = _run([str(host_package / "bin/launch_cvd"), *flags], env)
        _run([str(host_package / "bin/stop_cvd"), "--wait_for_launcher=30"], env)
    return seconds


def _ours(host_package: Path) -> tuple[float, float]:
    """Boot with cfctl, ask over ADB, remove; return the time of the launch and the time until ADB answers."""
    started = time.perf_counter()
    seconds = _run([*_CFCTL, "launch", "bench", "--host-package", str(host_package), "--gpu", "guest_swiftshader"])
    _run([*_CFCTL, "adb", "bench", "shell", "true"])
    to_adb = time.perf_counter() - started
    _run([*_CFCTL, "rm", "--force", "bench"])
    return seconds, to_adb


def main() -> None:
    """Measure in turns, so that a machine whose speed drifts hits both alike."""
    host_package = package.ensure()
    namespace.enter("bench.launch")
    _run([*_CFCTL, "host", "setup", "--instances", "1"])
    bare, ours, to_adb = [], [], []
    for turn in range(_RUNS + 1):
        alone = _bare(host_package)
        with_cfctl, answer = _ours(host_package)
        if turn:  # the first one fills caches
            bare.append(alone)
            ours.append(with_cfctl)
            to_adb.append(answer)
    added = statistics.median(mine - other for mine, other in zip(ours, bare, strict=True))
    rows = {
        "bare launch_cvd": (statistics.median(bare), None),
        "cfctl launch": (statistics.median(ours), None),
        "added, pair by pair": (added, _ADDED),
        "launch until ADB answers": (statistics.median(to_adb), _TO_ADB),
    }
    print(f"{'what':<26} {'median s':>9} {'must':>6} {'goal':>6}")
    for name, (seconds, budget) in rows.items():
        must, goal = budget or ("", "")
        print(f"{name:<26} {seconds:9.3f} {must:>6} {goal:>6}")
    print(json.dumps({name: round(seconds, 4) for name, (seconds, _) in rows.items()}))


if __name__ == "__main__":
    main()
