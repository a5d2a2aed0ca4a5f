"""launch_cvd: asks the two others for their flags, lets one assemble, starts one run_cvd per instance, and waits."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(os.path.realpath(__file__)).parents[1]
TOOLS = Path(os.environ.get("ANDROID_HOST_OUT") or PACKAGE) / "bin"
ABOUT = json.loads((PACKAGE / "etc/standin.json").read_text())


def show_help(form: str) -> None:
    """Print the flags as gflags does; the exit status is 1, as gflags' is."""
    for tool in ("assemble_cvd", "run_cvd"):
        done = subprocess.run([TOOLS / tool, "--helpxml"], capture_output=True, text=True, check=False, timeout=30)
        if done.returncode != 1 or not done.stdout.startswith("<?xml"):
            sys.exit(134)
    if form == "helpxml" and ABOUT["help"] == "xml":
        print('<?xml version="1.0"?>\n<AllFlags>\n<program>launch_cvd</program>\n<usage>none</usage>')
        for name in ABOUT["flags"]:
            print(
                f"<flag><file>flags.cc</file><name>{name}</name><meaning>the flag &apos;{name}&apos;</meaning>"
                "<default></default><current></current><type>string</type></flag>"
            )
        print("</AllFlags>")
    elif form == "help":
        print("launch_cvd: Warning: SetUsageMessage() never called\n\n  Flags from flags.cc:")
        for name in ABOUT["flags"]:
            print(f'    -{name} (the flag, which [is\n      wrapped]) type: string\n      default: ""')
    sys.exit(1)


def vandalize() -> None:
    """Do to the package what cvd does, and what a careless launcher could."""
    out = Path(os.environ["ANDROID_HOST_OUT"])
    (out / "bin/cvdalloc").symlink_to("/usr/lib/cuttlefish-common/bin/cvdalloc")
    (out / "bin/launch_cvd").unlink(missing_ok=True)
    (out / "usr/share/webrtc/client.html").write_text("mine")
    (out / "etc/standin.json").rename(out / "etc/renamed.json")
    with (out / "bin/run_cvd").open("a") as file:
        file.write("# mine\n")
    (out / "cuttlefish_runtime").mkdir()


def main() -> None:
    """Launch."""
    flags = {}
    for word in sys.argv[1:]:
        name, _, value = word.lstrip("-").partition("=")
        if name in ("helpxml", "help"):
            show_help(name)
        if name not in ABOUT["flags"]:
            print(f"ERROR: unknown command line flag '{name}'", file=sys.stderr)
            sys.exit(1)
        flags[name] = value
    if "report_anonymous_usage_stats" in ABOUT["flags"] and not flags.get("report_anonymous_usage_stats"):
        print("Would you like to share usage statistics? [Y/n]", file=sys.stderr)
        sys.stdin.readline()
    if ABOUT.get("vandal"):
        vandalize()
    first, count = int(flags.get("base_instance_num") or 1), int(flags.get("num_instances") or 1)
    numbers = list(range(first, first + count))
    if flags.get("instance_nums"):
        numbers = [int(word) for word in flags["instance_nums"].split(",")]
    assembled = subprocess.run(
        [TOOLS / "assemble_cvd", *map(str, numbers)],
        input=json.dumps({**ABOUT, **flags}),
        text=True,
        stdout=-1,
        check=False,
    )
    if assembled.returncode:
        sys.exit(assembled.returncode)
    config = assembled.stdout.split()[-1]
    pipes = []
    for number in numbers:
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        instance = Path(os.environ["HOME"]) / f"cuttlefish/instances/cvd-{number}"
        env = {**os.environ, "CUTTLEFISH_INSTANCE": str(number), "CUTTLEFISH_CONFIG_FILE": config}
        with (instance / "logs/launcher.log").open("a") as log:
            subprocess.Popen(
                [TOOLS / "run_cvd", str(writer)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=instance,
                env=env,
                start_new_session=True,
                close_fds=False,
            )
        os.close(writer)
        pipes.append(reader)
    for reader in pipes:
        said = os.read(reader, 4)
        code = struct.unpack("=i", said)[0] if len(said) == 4 else 10
        if code:
            print(f"run_cvd returned {code}", file=sys.stderr)
            sys.exit(255)
    print("Virtual device booted successfully", file=sys.stderr)


main()
