"""run_cvd: runs the VM, and serves the launcher monitor's socket, one client at a time."""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

if "--helpxml" in sys.argv:
    print('<?xml version="1.0"?>\n<AllFlags></AllFlags>')
    sys.exit(1)
pipe = int(sys.argv[1])
number = os.environ["CUTTLEFISH_INSTANCE"]
document = json.loads(Path(os.environ["CUTTLEFISH_CONFIG_FILE"]).read_text())
directory = Path(document["instances"][number]["instance_dir"])
place = Path(document["instances_uds_dir"]) / f"cvd-{number}" if "instances_uds_dir" in document else directory
place.mkdir(parents=True, exist_ok=True)
path = place / "launcher_monitor.sock"
path.unlink(missing_ok=True)
server = socket.socket(socket.AF_UNIX)
server.bind(str(path))
path.chmod(0o666)
server.listen(4)

vm = subprocess.Popen(["crosvm", "100000"], executable="/bin/sleep", start_new_session=True)
with (directory / "logs/kernel.log").open("a") as log:
    log.write("U-Boot 2026.01\n[    0.0] Linux version 6.6.0\nVIRTUAL_DEVICE_BOOT_STARTED\n")
    log.write("VIRTUAL_DEVICE_NETWORK_ETHERNET_CONNECTED\ninit: starting service 'adbd'...\n")
    log.write("VIRTUAL_DEVICE_BOOT_COMPLETED\n")
os.write(pipe, struct.pack("=i", 0))
os.close(pipe)


def stop() -> None:
    """End the VM, and this."""
    vm.send_signal(signal.SIGKILL)
    vm.wait()


while True:
    client, _ = server.accept()
    with client:
        while request := client.recv(1):
            if request == b"X":
                stop()
                path.unlink()
                client.send(b"S")
                sys.exit(0)
            if request == b"I":
                client.send(b"S")
                continue
            # Everything else is taken for an extended frame: a length, and so many bytes.
            with contextlib.suppress(struct.error):
                (length,) = struct.unpack("=I", client.recv(4, socket.MSG_WAITALL))
                client.recv(length, socket.MSG_WAITALL)
            client.send(b"E")
            break
