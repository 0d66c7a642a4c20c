"""No source file is longer than fits in a head: at most 500 lines. Run by `make lint`; exit 1 names the offenders."""

import sys
from pathlib import Path

MOST_LINES = 500
ROOTS = ("platform", "mcp_server", "tui", "tests", "benchmarks")


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    sizes = ((len(path.read_text("utf-8").splitlines()), path) for name in ROOTS for path in (root / name).rglob("*.py"))
    too_long = [(lines, path) for lines, path in sizes if lines > MOST_LINES]
    for lines, path in sorted(too_long, reverse=True):
        print(f"{path.relative_to(root)}: {lines} lines, at most {MOST_LINES}; split it by subject", file=sys.stderr)
    return 1 if too_long else 0


if __name__ == "__main__":
    sys.exit(main())
