"""Host packages that misbehave: real programs with upstream's names, layout and protocol, and one fault each.

They are the launchers that the embedded guest cannot play: one that crashes, one that says it has booted and has
not, one whose run_cvd never answers. Written from launcher.md sections 4, 5 and 13.
"""

from __future__ import annotations

import sys
from pathlib import Path

_LAUNCHER = r"""#!{python} -I
import json, os, signal, socket, sys, time

FAULT = {fault!r}
home = os.environ["HOME"]
if "--helpxml" in sys.argv:
    if FAULT == "mute":
        sys.exit(134)
    print('<?xml version="1.0"?>\n<AllFlags>\n<program>launch_cvd</program>')
    for name in ("base_instance_num", "cpus", "daemon", "gpu_mode", "instance_nums", "memory_mb", "num_instances",
                 "system_image_dir", "x_res"):
        print(f"<flag><file>main.cc</file><name>{{name}}</name><meaning>what &lt;{{name}}&gt; means</meaning>"
              f"<default>1</default><current>1</current><type>string</type></flag>")
    print("</AllFlags>")
    sys.exit(1)
if "--help" in sys.argv:
    sys.exit(1)
try:
    parent = os.readlink(f"/proc/{{os.getppid()}}/exe")
except OSError:
    parent = "one that cannot be seen"
with open(f"{{home}}/argv", "a") as f:
    print(*sys.argv[1:], parent, file=f)
flags = dict(arg.lstrip("-").partition("=")[::2] for arg in sys.argv[1:])
first, count = int(flags.get("base_instance_num", 1)), int(flags.get("num_instances", 1))
numbers = list(range(first, first + count))
if "instance_nums" in flags:
    numbers = [int(n) for n in flags["instance_nums"].split(",")]

if FAULT == "crash":
    print("assemble_cvd: no images found in", home, file=sys.stderr)
    sys.exit(134)
if FAULT == "garbage":
    sys.stdout.buffer.write(bytes(range(256)) * 40)
    sys.exit(0)
if FAULT == "hang-assemble":
    time.sleep(600)
if FAULT == "kill":
    os.kill(os.getpid(), signal.SIGKILL)

uds = f"/tmp/cf_avd_{{os.getuid()}}"
children = []
for n in numbers:
    logs = f"{{home}}/cuttlefish/instances/cvd-{{n}}/logs"
    os.makedirs(logs, exist_ok=True)
    with open(f"{{home}}/.cuttlefish_config.json", "w") as f:
        json.dump({{"root_dir": f"{{home}}/cuttlefish", "instances_uds_dir": uds, "instances": {{str(n): {{}}}}}}, f)
    pid = os.fork()
    if pid:
        children.append(pid)
        continue
    os.setsid()
    os.environ["CUTTLEFISH_INSTANCE"] = str(n)
    os.execv(sys.executable, [sys.executable, "-I", os.path.dirname(os.path.abspath(__file__)) + "/run_cvd",
                              FAULT, logs, f"{{uds}}/cvd-{{n}}", str(n)])

def booted(n):
    log = f"{{home}}/cuttlefish/instances/cvd-{{n}}/logs/kernel.log"
    try:
        return "VIRTUAL_DEVICE_BOOT_COMPLETED" in open(log, errors="replace").read()
    except OSError:
        return False

if FAULT == "liar":
    time.sleep(0.2)
    sys.exit(0)
while not all(booted(n) for n in numbers):
    time.sleep(0.02)
    for pid in children:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            print("run_cvd returned", os.waitstatus_to_exitcode(status), file=sys.stderr)
            sys.exit(255)
"""

_RUN_CVD = r"""#!{python} -I
import os, signal, socket, subprocess, sys, time

fault, logs, uds, number = sys.argv[1:]
log = open(f"{{logs}}/kernel.log", "a", buffering=1)

if fault == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
if fault == "orphan":
    # A helper in a session of its own, which nobody tells to stop.
    subprocess.Popen(["sleep", "600"], start_new_session=True)

os.makedirs(uds, exist_ok=True)
server = socket.socket(socket.AF_UNIX)
path = f"{{uds}}/launcher_monitor.sock"
if os.path.exists(path):
    os.unlink(path)
server.bind(path)
server.listen(4)

if fault == "full":
    # As a device does that writes its disk: until there is no room, in the middle of a boot.
    log.write("[    0.000000] Linux version 6.6.0\n")
    with open(f"{{logs}}/disk", "wb") as disk:
        while True:
            disk.write(bytes(65536))
            disk.flush()
if fault == "garbage-log":
    with open(f"{{logs}}/kernel.log", "ab") as raw:
        raw.write(bytes(range(256)) * 40 + b"\x1b[2J\n")
while fault == "loop":
    log.write("U-Boot 2026.01\n[    0.000000] Linux version 6.6.0\nVIRTUAL_DEVICE_BOOT_STARTED\n")
    time.sleep(0.05)

#: What a guest says on its way up; "hang-PHASE" is silent once it has come so far.
STORY = {{
    "vm": "console attached",
    "bootloader": "U-Boot 2026.01",
    "kernel": "[    0.000000] Linux version 6.6.0",
    "userspace": "VIRTUAL_DEVICE_BOOT_STARTED",
    "network": "VIRTUAL_DEVICE_NETWORK_ETHERNET_CONNECTED",
    "adb": "init: starting service 'adbd'...",
    "booted": "VIRTUAL_DEVICE_BOOT_COMPLETED",
}}
for phase, text in STORY.items():
    log.write(text + "\n")
    if fault == f"hang-{{phase}}" or (fault in ("hang", "liar", "deaf-boot") and phase == "userspace"):
        break
    if fault == "panic" and phase == "userspace":
        log.write("Kernel panic - not syncing: no init found\nVIRTUAL_DEVICE_BOOT_FAILED: no init found\n")
        sys.exit(11)
if fault == "deaf-boot":
    time.sleep(600)
while True:
    client, _ = server.accept()
    if fault == "count":
        open(f"{{logs}}/clients", "a").write("somebody\n")
    request = client.recv(1)
    if fault == "deaf":
        time.sleep(600)
    if fault == "refuse" and request == b"X":
        client.send(b"E")
        continue
    if fault == "slow-stop" and request == b"X":
        time.sleep(2.5)
    client.send(b"S")
    if request == b"X":
        os.unlink(path)
        sys.exit(0)
"""


def write(directory: Path, fault: str) -> Path:
    """Write a host package with one fault into ``directory``; return it.

    :param fault: crash, garbage, kill (the launcher itself); mute (does not tell its flags); liar (exits 0 without a
        boot); hang, panic (the boot), hang-PHASE (hangs there), loop (starts again and again), garbage-log (a guest
        that prints anything), full (writes until the disk is full), deaf-boot (hangs and never answers); deaf (never
        answers, ignores TERM), refuse (answers E), slow-stop, orphan (leaves a child), count (writes down who
        connects), none.
    """
    python = Path(sys.executable).resolve()
    for name, text in (("launch_cvd", _LAUNCHER), ("run_cvd", _RUN_CVD)):
        script = directory / "bin" / name
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(text.format(python=python, fault=fault))
        script.chmod(0o755)
    return directory
