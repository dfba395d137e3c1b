"""Where a process begins: signals are heard before the command line is loaded, which takes longer than many a verb."""

from __future__ import annotations

import _signal  # what `signal` is made of, and there at once: that one takes milliseconds to load

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # nothing is begun yet: end at once, as by any other signal

import contextlib
import signal
import sys
from typing import NoReturn

from .interrupts import Interrupted, raise_on_signals


def main() -> NoReturn:
    """Run the command line in a process of its own."""
    end_on_signals = raise_on_signals()
    try:
        from .main import main as run

        run(end_on_signals)
    except Interrupted as stop:  # where nobody has told it yet: while all this was loaded, or an error was told
        with contextlib.suppress(Exception):  # there may be no standard error
            sys.stderr.write(f"diffpack: error: stopped by {signal.Signals(stop.signum).name}\n")
            sys.stderr.flush()
        end_on_signals()
        sys.exit(stop.exit_code)
