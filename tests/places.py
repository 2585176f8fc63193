"""Where the checkout, the tests and the package lie, wherever a test file lies itself."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
PACKAGE = ROOT / "pytest_modelformats"
RECORD_SCHEMA = PACKAGE / "record" / "record.schema.json"
