"""``cfctl screen``: what a device shows, for scripts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cfctl import steps
from cfctl.cli.common import Answer, verb
from cfctl.cli.lifecycle import Target
from cfctl.errors import UsageError

if TYPE_CHECKING:
    from cfctl.viewer.signalling import Operator

_SECONDS = 5.0


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    verb(app, "screen")(screen)


def screen(
    *,
    target: Target,
    png: Annotated[
        Path | None, typer.Option("--png", help="Save one picture.", metavar="FILE", show_default=False)
    ] = None,
    record: Annotated[
        Path | None, typer.Option("--record", help="Save a film.", metavar="FILE.webm", show_default=False)
    ] = None,
    stats: Annotated[
        bool,
        typer.Option("--stats", help="Watch and count: frames, bits, time to the first one.", show_default=False),
    ] = False,
    seconds: Annotated[float, typer.Option(help="How long to film or count.", min=0.1, max=86400)] = _SECONDS,
    operator: Annotated[
        str | None,
        typer.Option(
            help="Where the device is registered [default: this host's relay, else screen.operator].", metavar="URL"
        ),
    ] = None,
    operator_cert: Annotated[
        Path | None,
        typer.Option(help="Its certificate (PEM); no other is accepted then.", metavar="FILE", show_default=False),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            help="For a relay that wants one.", metavar="TOKEN", envvar="CFCTL_SCREEN_TOKEN", show_envvar=True
        ),
    ] = None,
) -> Answer:
    """Save or measure what a screen shows, without a browser.

    It looks as a browser does: through the streamer of the device, by way of the relay or operator where that is
    registered.

    \b
    Examples:
      cfctl screen phone --png now.png
      cfctl screen phone/2 --record film.webm --seconds 10
      cfctl screen phone --stats --json
      cfctl screen cvd_1-1-1 --png now.png --operator https://192.0.2.1:1443 --operator-cert cert.pem
    """
    from cfctl.viewer import watch

    asked = [name for name, given in (("--png", png), ("--record", record), ("--stats", stats)) if given]
    if len(asked) != 1:
        raise UsageError("one of --png, --record and --stats is needed", f"Given: {', '.join(asked) or 'none'}.")
    where = _operator(operator, token, operator_cert)
    if png is not None:
        path = png.expanduser().absolute()
        return _saved(target, path, watch.picture(target, path, operator=where))
    if record is not None:
        path = record.expanduser().absolute()
        return _saved(target, path, watch.film(target, path, seconds, operator=where))
    found = watch.numbers(target, seconds, operator=where)
    return Answer({"target": target, "file": None, **found}, lambda: _numbers(found))


def _operator(url: str | None, token: str | None, certificate: Path | None) -> Operator:
    """Return whom to ask: who was named, a relay of this host that shows screens, or whom the settings name."""
    from urllib.parse import parse_qs, urlsplit

    from cfctl import config
    from cfctl.errors import CfctlError
    from cfctl.relay import local
    from cfctl.v1 import relay_pb2
    from cfctl.viewer.signalling import Operator

    if url is None and token is None and certificate is None and (path := local.chosen(own=False)) is not None:
        try:
            link = local.call(path, lambda relay: relay.OpenScreen, relay_pb2.OpenScreenRequest(role="viewer"))
        except CfctlError as error:
            # It shows no screens, so nothing registers there.
            steps.note(f"the relay is not asked: {error.brief}")
        else:
            parts = urlsplit(link.url)
            code = parse_qs(parts.fragment)["code"][0]
            return Operator(f"{parts.scheme}://{parts.netloc}", code=code, fingerprint=link.fingerprint or None)
    named = url or str(config.load()["screen.operator"])
    if not named.startswith(("http://", "https://")):
        raise UsageError(f"{named} is no address of an operator", None, "Name one: --operator http://HOST:PORT")
    pinned = _fingerprint(certificate.expanduser()) if certificate is not None else None
    return Operator(named.rstrip("/"), token, fingerprint=pinned, elsewhere=url is not None)


def _fingerprint(certificate: Path) -> str:
    """Return what a certificate is known by.

    :raises UsageError: if it is none.
    """
    import hashlib
    import ssl

    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()
    except (OSError, ValueError) as exc:
        raise UsageError(f"{certificate} is no certificate", str(exc), "It is a PEM file: cert.pem") from exc


def _saved(target: str, path: Path, found: dict[str, Any]) -> Answer:
    return Answer({"target": target, "file": str(path), **found}, lambda: print(path))


def _numbers(found: dict[str, Any]) -> None:
    first = found["first_frame_s"]
    print(f"{found['width']}x{found['height']}, {found['frames']} frames in {found['seconds']:.1f} s")
    print(f"{found['frames_per_s']:.1f} frames/s, {found['bits_per_s'] / 1000:.0f} kbit/s")
    print(f"{found['key_frames']} key frames, the first after {first:.2f} s" if first is not None else "no frame")
