"""``powerbtn_cvd``: presses the power button of one instance (launcher.md section 8)."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from cfctl.control import qmp
from cfctl.errors import CfctlError
from cfctl.guest import gflags
from cfctl.guest.configuration import Configuration
from cfctl.guest.options import default_number
from cfctl.instance import Instance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Be ``powerbtn_cvd``; return 0 when the button was pressed. What the guest does then is the guest's."""
    default = str(default_number(environ))
    flags = {"instance_num": gflags.Flag("instance_num", gflags.Kind.INT32, default, used=True)}
    values = gflags.parse(flags, argv, program="powerbtn_cvd", environ=environ)
    try:
        configuration = Configuration.read(environ)
        instance = Instance(values.number("instance_num"))
        asyncio.run(qmp.execute(configuration.places.qmp(instance), "system_powerdown"))
    except CfctlError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0
