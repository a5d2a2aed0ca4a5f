"""The device in a container: boot it, stop it, follow what it says."""

from __future__ import annotations

import contextlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from cfctl import steps
from cfctl.docker import container as containers
from cfctl.docker import create, execute, inside, names, ssh, store
from cfctl.errors import CfctlError, EngineRefused, FromElsewhere, NoSuchDevice, NotRunning
from cfctl.instance import Instance

if TYPE_CHECKING:
    from cfctl.docker.container import Container
    from cfctl.docker.engine import Engine

#: What `logs --which` shows beside the logs of `cfctl logs`.
CONTAINER_LOG = "container"


class DeviceFailed(FromElsewhere):
    """An error that cfctl inside a container reported; it keeps its code and its exit status."""

    def __init__(self, name: str, error: dict[str, Any], exit_code: int) -> None:
        resolution = said_outside(name, error["resolution"])
        super().__init__(error["brief"], error["details"], resolution, code=error["code"], exit_code=exit_code)


#: Verbs that are the same outside, as verbs of `cfctl docker`.
_SAME = re.compile(r"\bcfctl (logs|restart|start|status|stop)\b")
_OTHER = re.compile(r"\b(?:sudo )?cfctl (?!docker\b)(?=[a-z])")


def said_outside(name: str, resolution: str | None) -> str | None:
    """Return what helps inside a container as it is said out here."""
    if resolution is None:
        return None
    return _OTHER.sub(f"cfctl docker login {name} -- cfctl ", _SAME.sub(r"cfctl docker \1", resolution))


def start(
    engine: Engine, name: str, *, timeout: float, wait: bool = True, flags: tuple[str, ...] = (), again: bool = False
) -> dict[str, Any]:
    """Boot the device of a container, which is started if it does not run; return the device.

    :param flags: further flags of launch_cvd, beside those of ``create``.
    :param again: boot it again if it is up; without that a device that is up is left alone.
    :raises CfctlError: whatever the launch inside reported; the container stays.
    """
    container = containers.thaw(containers.find(engine, name))
    if not container.is_running:
        # Its first process would boot the device that was up when it ended; we do.
        execute.put(container, str(inside.WANTED), b"", owner=names.UID)
    container = create.start(engine, name)
    # The engine vouches for the container's host key, whoever has changed it.
    ssh.pin(container)
    wish = container.wish
    asked = {
        "name": name,
        "timeout": timeout,
        "wait": wait,
        "again": again,
        "gpu": wish.gpu,
        "cpus": wish.cpus,
        "memory_mb": wish.memory_mb,
        "num_instances": wish.num_instances,
        "host_package": names.HOST_PACKAGE if wish.host_package else None,
        "images": names.IMAGES if wish.images else None,
        "flags": [*wish.flags, *flags],
    }
    ended: list[dict[str, Any]] = []
    other: list[str] = []
    try:
        execute.stream(
            container,
            [names.PYTHON, "-m", "cfctl.docker.inside", json.dumps(asked)],
            lambda line: _hear(line, ended, other),
        )
    except KeyboardInterrupt:
        steps.note(f"{name} boots on. See how far it is: cfctl docker logs {name}; stop it: cfctl docker stop {name}")
        raise
    if not ended:
        raise EngineRefused(
            f"the launch in {name} ended without a word",
            "\n".join(other[-10:]) or None,
            f"See what it left: cfctl docker logs {name}",
        )
    last = ended[-1]
    if last["event"] == "error":
        raise DeviceFailed(name, last["error"], last["exit_code"])
    device: dict[str, Any] = as_seen_outside(container, last["device"])
    return device


def _hear(line: bytes, ended: list[dict[str, Any]], other: list[str]) -> None:
    """Take one line of the launch inside: pass it on to whoever listens here."""
    try:
        event = json.loads(line)
        kind = event["event"]
    except (ValueError, KeyError, TypeError):
        other.append(line.decode(errors="replace"))
        return
    if kind == "phase":
        steps.phase(
            event["phase"], event["detail"], event["seconds"], took=event.get("took"), typical=event.get("typical")
        )
    elif kind == "note":
        steps.note(event["text"])
    elif kind in ("device", "error"):
        ended.append(event)


def stop(container: Container) -> list[str]:
    """Stop the device of a container; the container runs on. Stopping a stopped one does nothing.

    :return: what had to be done beyond asking.
    """
    execute.run(container, ["rm", "-f", str(inside.WANTED)])
    # Whoever runs a launcher of their own in there stops it too.
    found = [device["name"] for device in devices(container) if device["source"] == "cfctl"]
    if not found:
        return []
    done = execute.run(container, [names.PYTHON, "-m", "cfctl", "stop", "--json", *found])
    for line in done.output.splitlines():
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if "error" in document:
            raise DeviceFailed(container.name, document["error"], done.status)
    if done.status != 0:
        raise CfctlError(f"the device of {container.name} could not be stopped", done.output)
    return []


def logs(container: Container, *, which: str | None, lines: int | None, follow: bool, show: Any) -> None:
    """Hand the lines of a log on: the device's, as `cfctl logs` shows them, or the container's own.

    :param show: called with each line.
    """
    if which == CONTAINER_LOG or not container.is_running:
        for line in execute.log(container, lines=lines).splitlines():
            show(line)
        return
    options = [*(["--which", which] if which else []), *(["--follow"] if follow else [])]
    options += ["--lines", str(lines)] if lines is not None else []
    errors: list[dict[str, Any]] = []

    def each(raw: bytes) -> None:
        with contextlib.suppress(ValueError, TypeError):
            document = json.loads(raw)
            if "error" in document:
                errors.append(document["error"])
            elif "line" in document:
                show(document["line"])

    argv = [names.PYTHON, "-m", "cfctl", "logs", "--json", container.name, *options]
    status = execute.stream(container, argv, each)
    if errors and errors[0]["code"] == NoSuchDevice.code:
        raise NotRunning(
            f"no device has been booted in {container.name} yet",
            None,
            f"Boot it: cfctl docker start {container.name}\n"
            f"See what the container itself says: cfctl docker logs {container.name} --which {CONTAINER_LOG}",
        )
    if errors:
        raise DeviceFailed(container.name, errors[0], status)


def devices(container: Container) -> list[dict[str, Any]]:
    """Return the devices in a container, as the contract shows devices; none if it does not run."""
    if not container.is_running:
        return []
    done = execute.run(container, [names.PYTHON, "-m", "cfctl", "ps", "--json"])
    for line in done.output.splitlines():
        with contextlib.suppress(ValueError):
            found: list[dict[str, Any]] = json.loads(line)["devices"]
            return [as_seen_outside(container, device) for device in found]
    return []


def as_seen_outside(container: Container, device: dict[str, Any]) -> dict[str, Any]:
    """Return a device of a container as it is shown beside those of the host."""
    record = store.load(container.engine.url, container.name)
    published = {port.inside: port for port in (record.ports if record and record.id == container.id else ())}
    instances = []
    for instance in device["instances"]:
        adb = published.get(Instance(instance["number"]).adb_port)
        # Of what is listened on inside, this machine has what is published.
        ports = {what: published[port].port for what, port in instance["ports"].items() if port in published}
        instances.append({**instance, "adb": str(adb) if adb else None, "vm_pid": None, "ports": ports})
    where = {"runtime": "docker", "container": container.name, "engine": container.engine.url}
    return {**device, **where, "instances": instances}


def all_devices(containers: list[Container]) -> dict[str, list[dict[str, Any]]]:
    """Return the devices in each of several containers, asked all at once; one that does not answer has none."""

    def ask(container: Container) -> list[dict[str, Any]]:
        with contextlib.suppress(CfctlError):
            return devices(container)
        return []

    with ThreadPoolExecutor(max_workers=8) as pool:
        return dict(zip((c.name for c in containers), pool.map(ask, containers), strict=True))
