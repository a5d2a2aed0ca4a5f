"""Whether to colour what is written."""

from __future__ import annotations

import os
from typing import Any


def use_colour(stream: Any) -> bool:
    """Tell whether to colour what goes to ``stream`` (NO_COLOR, no-color.org)."""
    # A closed stream is None.
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or stream is None
    return not plain and bool(stream.isatty())
