"""Where things lie, for tests in whatever room."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "diveqcodec"
GOLDEN = ROOT / "tests" / "golden"
