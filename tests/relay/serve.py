"""A relay with other limits than the real one's, so that tests need not wait: ``python -m tests.relay.serve JSON``.

The JSON has the fields of Options and, below ``limits``, of Limits.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cfctl.cli.common import print_json
from cfctl.errors import CfctlError
from cfctl.relay.certificates import Certificate
from cfctl.relay.limits import Limits
from cfctl.relay.media.ice import Ice
from cfctl.relay.server import Options, Server, address


def main() -> None:
    """Serve."""
    told = json.loads(sys.argv[1])
    pair = told.pop("certificate", None)
    options = Options(
        grpc=address(told.pop("grpc", "")),
        metrics=address(told.pop("metrics", "")),
        web=address(told.pop("web", "")),
        ice=Ice(**told.pop("ice", {})),
        turn=address(told.pop("turn", "")),
        certificate=Certificate(*map(Path, pair)) if pair else None,
        limits=Limits(**told.pop("limits", {})),
        **told,
    )
    try:
        Server(options, print_json).run()
    except CfctlError as error:
        sys.exit(f"{error.code}: {error}")


if __name__ == "__main__":
    main()
