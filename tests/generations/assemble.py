"""assemble_cvd: makes the directories and the config, and prints where the config is."""

import json
import os
import shutil
import sys
from pathlib import Path

if "--helpxml" in sys.argv:
    print('<?xml version="1.0"?>\n<AllFlags></AllFlags>')
    sys.exit(1)
about = json.load(sys.stdin)
home = Path(os.environ["HOME"])
numbers = sys.argv[1:]
root = home / "cuttlefish"
uds = Path(f"/tmp/cf_avd_{os.getuid()}")
instances = {}
for number in numbers:
    directory = root / f"instances/cvd-{number}"
    shutil.rmtree(directory, ignore_errors=True)
    for part in ("logs", "internal"):
        (directory / part).mkdir(parents=True)
    port = 6520 + int(number) - 1
    instances[number] = {
        "instance_dir": str(directory),
        "adb_host_port": port,
        "adb_ip_and_port": f"{about['adb_host']}:{port}",
        "webrtc_device_id": f"cvd-{number}",
        "gpu_mode": about.get("gpu_mode", ""),
    }
    link = home / f"cuttlefish_runtime.{number}"
    link.unlink(missing_ok=True)
    link.symlink_to(directory)
assembly = root / "assembly"
assembly.mkdir(parents=True, exist_ok=True)
document = {"root_dir": str(root), "instance_names": [f"cvd-{n}" for n in numbers], "instances": instances}
if about["socket"] == "tmp":
    document["instances_uds_dir"] = str(uds)
config = assembly / "cuttlefish_config.json"
config.write_text(json.dumps(document))
for name, target in ((".cuttlefish_config.json", config), ("cuttlefish_assembly", assembly)):
    (home / name).unlink(missing_ok=True)
    (home / name).symlink_to(target)
print(config)
