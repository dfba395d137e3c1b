"""The rows still to measure, taken in order by several workers."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from benchmarks.train import rows
from benchmarks.train.measure import Places, measure
from benchmarks.train.plans import POSTHOC, Plan


class Queue:
    """Rows that the table lacks. Each is written as soon as it is measured; no row is begun after `end`."""

    def __init__(self, places: Places, table: Path, wanted: list[Plan], end: float) -> None:
        self._places, self._table, self._end, self._lock = places, table, end, threading.Lock()
        done = rows.keys(table)
        self._left = [plan for plan in wanted if plan.key not in done]
        self._total, self._done = len(self._left), 0
        self.failed = 0

    def work(self, workers: int) -> None:
        """Measure rows, so many at a time, until none is left that can be measured, or time is out."""
        threads = [threading.Thread(target=self._work) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def waiting(self) -> list[Plan]:
        """Give the post-hoc rows whose full fine-tune is measured but not kept any more."""
        done = rows.keys(self._table)
        return [plan for plan in self._left if not self._ready(plan) and plan.needs.key in done]

    def _ready(self, plan: Plan) -> bool:
        """Tell whether what a row is made from is there."""
        return plan.method not in POSTHOC or self._places.output(plan.needs).exists()

    def _next(self) -> Plan | None:
        with self._lock:
            if time.monotonic() > self._end:
                return None
            plan = next(filter(self._ready, self._left), None)
            if plan is not None:
                self._left.remove(plan)
            return plan

    def _work(self) -> None:
        while (plan := self._next()) is not None:
            try:
                row = measure(self._places, plan)
            except (RuntimeError, OSError) as error:
                with self._lock:
                    self.failed += 1
                    print(f"{plan}: FAILED: {error}", flush=True)
                continue
            with self._lock:
                rows.append(self._table, row)
                self._done += 1
                print(
                    f"{self._done}/{self._total} {row.task} {row.method} {row.variant} {row.density} seed {row.seed}: "
                    f"accuracy {row.accuracy}, {row.bytes:,} bytes ({row.share_without_head_pct} % without head), "
                    f"{row.cpu_seconds} s",
                    flush=True,
                )
