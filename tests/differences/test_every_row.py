"""Every difference has a test that states it."""

import re
from pathlib import Path

NUMBERED = [f"f{number}" for number in range(1, 23) if number != 7]
ROWS = ["f2b", *NUMBERED, "converter", "size", "kv_in_generate", "accumulation", "silence", "tables", "experts"]


def test_every_row_has_a_test() -> None:
    """Read from the tests themselves, and no test states a row that there is not."""
    texts = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    named = [name for text in texts for name in re.findall(r"^def test_(\w+)", text, re.MULTILINE)]
    found = {name: [row for row in ROWS if name.startswith(f"{row}_")] for name in named}
    assert {row for rows in found.values() for row in rows} == set(ROWS)
    assert [name for name, rows in found.items() if not rows] == ["every_row_has_a_test"]
