"""Waits for an IPv6 address: ``python -m tests.system.wait6 INTERFACE PREFIX``; fails after 15 s without one."""

from __future__ import annotations

import json
import subprocess
import sys
import time

if __name__ == "__main__":
    interface, prefix = sys.argv[1:]
    deadline = time.monotonic() + 15
    while True:
        shown = subprocess.run(
            ["ip", "-6", "-j", "addr", "show", "dev", interface], capture_output=True, text=True, check=True
        )
        addresses = [info["local"] for link in json.loads(shown.stdout) for info in link.get("addr_info", [])]
        if any(address.startswith(prefix) for address in addresses):
            break
        if time.monotonic() > deadline:
            sys.exit(f"{interface} has only {addresses}")
        time.sleep(0.05)
