"""cvd: a database of groups, homes and numbers of its own, and the launcher underneath. 0 or 255, nothing else."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PACKAGE = Path(os.path.realpath(__file__)).parents[1]
ABOUT = json.loads((PACKAGE / "etc/standin.json").read_text())
STATE = Path(f"/var/tmp/cvd/{os.getuid()}")
DATABASE = STATE / "instance_database.json"
LOCKS = Path("/var/tmp/cvd/lock")


def load() -> dict[str, Any]:
    """Return the database."""
    found: dict[str, Any] = json.loads(DATABASE.read_text()) if DATABASE.exists() else {}
    return found


def save(groups: dict[str, Any]) -> None:
    """Write it."""
    DATABASE.write_text(json.dumps(groups))


def create(flags: dict[str, str]) -> None:
    """Launch the default group, in a home of our choice."""
    groups = load()
    if groups.get("cvd_1", {}).get("running"):
        print("cvd_1 is running already", file=sys.stderr)
        sys.exit(255)
    number = next(n for n in range(1, 129) if not _taken(n))
    LOCKS.mkdir(parents=True, exist_ok=True)
    (LOCKS / f"local-instance-{number}.lock").write_text("I")
    home = STATE / f"{time.monotonic_ns()}/home"
    home.mkdir(parents=True)
    # Its own name is what the launcher looks at; a script's would be the interpreter's.
    shutil.copyfile("/bin/dash", STATE / "cvd")
    (STATE / "cvd").chmod(0o755)
    env = {
        **os.environ,
        "HOME": str(home),
        "ANDROID_HOST_OUT": str(PACKAGE),
        "CUTTLEFISH_INSTANCE": str(number),
        "_STARTED_BY_CVD_SERVER_": "true",
    }
    wanted = [f"--{name}={value}" for name, value in flags.items() if name not in ("daemon", "reuse")]
    numbers = ["--num_instances=1", f"--base_instance_num={number}", "--daemon=true"]
    launcher = str(PACKAGE / "bin/cvd_internal_start")
    argv = [str(STATE / "cvd"), "-c", '"$@"; exit $?', "cvd", launcher, *wanted, *numbers]
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if done.returncode:
        sys.exit(255)
    groups["cvd_1"] = {"home": str(home), "number": number, "running": True}
    save(groups)
    print(json.dumps(show("cvd_1", groups["cvd_1"])))


def _taken(number: int) -> bool:
    lock = LOCKS / f"local-instance-{number}.lock"
    return lock.exists() and lock.read_text().startswith("I")


def show(name: str, group: dict[str, Any]) -> dict[str, Any]:
    """Return a group as cvd prints it."""
    port = 6520 + group["number"] - 1
    state = "Running" if group["running"] else "Stopped"
    serial = f"{ABOUT['adb_host']}:{port}"
    instance = {"instance_name": "1", "status": state, "adb_port": port, "adb_serial": serial}
    return {"group_name": name, "start_time": "", "instances": [instance]}


def stop(selected: str) -> None:
    """Stop a group, or only say so."""
    groups = load()
    group = groups.get(selected)
    if group is None or not group["running"] or ABOUT.get("cvd_stop") == "refuses":
        print(f"group {selected} is not running", file=sys.stderr)
        sys.exit(255)
    if ABOUT.get("cvd_stop") != "lies":
        env = {"HOME": group["home"], "ANDROID_HOST_OUT": str(PACKAGE)}
        subprocess.run([PACKAGE / "bin/cvd_internal_stop", "--wait_for_launcher=5"], env=env, check=False)
    group["running"] = False
    save(groups)
    (LOCKS / f"local-instance-{group['number']}.lock").unlink(missing_ok=True)


def main() -> None:
    """Be cvd."""
    words = sys.argv[1:]
    selected = "cvd_1"
    while words and words[0].startswith("--group_name="):
        selected = words.pop(0).partition("=")[2]
    verb = words.pop(0) if words else "help"
    flags = dict(word.lstrip("-").partition("=")[::2] for word in words)
    if verb in ("create", "start"):
        create(flags)
    elif verb == "stop":
        stop(selected)
    elif verb == "fleet":
        print(json.dumps({"groups": [show(name, group) for name, group in load().items()]}))
    else:
        sys.exit(255)


main()
