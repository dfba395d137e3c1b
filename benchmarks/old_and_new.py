"""What the kept readers of format 1.0 and 1.1 make of files that today's library writes.

    python -m benchmarks.old_and_new

Runs the tests of the kept readers, which compare every result bit for bit with today's, and counts the files (the same
ones in every run).
"""

from __future__ import annotations

import sys

import pytest

from tests.tools import ROOT
from tests.tools.old_readers import OLD, WRITTEN

TESTS = [str(path) for path in sorted((ROOT / "tests" / "spec").glob("test_old_readers*.py"))]


def main() -> int:
    failed = int(pytest.main(["-p", "no:cacheprovider", "--hypothesis-seed=0", *TESTS]))
    print(f"files written today                  {WRITTEN['files']:,}")
    for minor in OLD:
        print(f"  read by the reader of 1.{minor}           {WRITTEN[f'1.{minor} read']:,}")
        print(f"  refused by it, features named      {WRITTEN[f'1.{minor} refused']:,}")
    print(f"read to other bits, or not refused   {'some: run the tests' if failed else 0}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
