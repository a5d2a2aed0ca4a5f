"""cvd_internal_start since 1.56: unless its parent is called cvd, it becomes ``cvd create``."""

import os
import sys
from pathlib import Path

HERE = Path(os.path.realpath(__file__)).parent

if not str(Path(f"/proc/{os.getppid()}/exe").readlink()).endswith("/cvd"):
    rest = [word for word in sys.argv[1:] if not word.startswith("--daemon")]
    os.execv(HERE / "cvd", ["cvd", "create", "--daemon=true", "--reuse=true", *rest])
os.execv(HERE / "start.py", [str(HERE / "start.py"), *sys.argv[1:]])
