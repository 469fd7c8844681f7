"""Where the development data are; tests that need them skip where they are not."""

import os
from pathlib import Path

DATA = Path(os.environ.get("CRYOGAN_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
