"""Tasks by name: files until they are used, versions that tell them apart, decoded ones within a limit."""

from __future__ import annotations

import random
import resource
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import diffpack  # noqa: E402
from diffpack.errors import DiffpackError, UsageError  # noqa: E402
from diffpack.live import TaskSwitcher  # noqa: E402
from diffpack.live.tasks import Version  # noqa: E402
from tests.tools.live_tasks import bits, layered, result_bits, same, tasks, write  # noqa: E402


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path / "base.safetensors", layered().state_dict())


@pytest.fixture
def files(base: Path, tmp_path: Path) -> list[Path]:
    return tasks(base, tmp_path, 4)


@pytest.fixture
def switcher(base: Path, files: list[Path]) -> TaskSwitcher:
    made = TaskSwitcher(layered(), base)
    for at, file in enumerate(files):
        made.add(f"task{at}", file)
    return made


def test_a_version_is_the_results_fingerprint_and_a_count(switcher: TaskSwitcher, base: Path, files: list[Path]):
    of_base = switcher.version
    assert of_base == Version(diffpack.fingerprint(base), 0)
    first = switcher.use("task0")
    assert first == switcher.version == Version(diffpack.open(files[0]).manifest.result.fingerprint, 1)
    assert str(first) == f"{first.fingerprint}-1"
    again = switcher.add("task0", files[0])
    assert again.fingerprint == first.fingerprint
    assert again != first
    assert switcher.version == first  # the model still holds the one before
    assert switcher.use("task0") == switcher.version == again
    other = switcher.add("task0", files[1])
    assert switcher.use("task0") == other
    assert same(switcher.model.state_dict(), result_bits(base, files[1]))
    switcher.use(None)
    assert switcher.version == of_base


def test_sources_may_be_paths_bytes_or_opened_diffs(base: Path, files: list[Path]):
    switcher = TaskSwitcher(layered(), base)
    opened = diffpack.open(files[2])
    switcher.add("path", str(files[0]))
    switcher.add("bytes", files[1].read_bytes())
    switcher.add("opened", opened)
    for name, file in zip(["path", "bytes", "opened"], files, strict=False):
        switcher.use(name)
        assert same(switcher.model.state_dict(), result_bits(base, file))
    switcher.evict("opened")
    switcher.use("opened")  # somebody else's diff is not closed
    assert opened["hidden.weight"].positions.size


def test_a_file_that_changes_after_it_was_added_is_refused(switcher: TaskSwitcher, files: list[Path]):
    shutil.copy(files[1], files[0])
    with pytest.raises(UsageError, match="another file than the one added as 'task0': add it again"):
        switcher.use("task0")
    assert switcher.current is None
    files[2].unlink()
    with pytest.raises(DiffpackError, match="cannot be opened"):
        switcher.use("task2")


def test_names_are_known_or_refused(switcher: TaskSwitcher):
    assert switcher.names == ["task0", "task1", "task2", "task3"]
    assert "task1" in switcher
    assert len(switcher) == 4
    switcher.use("task1")
    switcher.remove("task1")
    assert "task1" not in switcher
    assert switcher.current == "task1"  # what stands in the model stays until the next use
    for call in (switcher.use, switcher.remove, switcher.pin, switcher.prefetch, switcher.evict, switcher.tensors):
        with pytest.raises(UsageError, match="no task 'task1' was added; there are 3"):
            call("task1")
    with pytest.raises(UsageError, match="a task's name is a string"):
        switcher.add(7, b"")  # type: ignore[arg-type] - what is tried
    switcher.use(None)
    assert switcher.tensors(None) == {}
    assert repr(switcher) == "TaskSwitcher(Layered, 3 tasks, now None)"


def test_decoded_tasks_stay_within_the_limit_the_last_used_first(base: Path, files: list[Path]):
    switcher = TaskSwitcher(layered(), base)
    for at, file in enumerate(files):
        switcher.add(f"task{at}", file)
    switcher.use("task0")
    size = switcher.usage().decoded_bytes
    switcher = TaskSwitcher(layered(), base, decoded_bytes=round(2.5 * size))
    for at, file in enumerate(files):
        switcher.add(f"task{at}", file)
    assert switcher.usage().decoded == ()
    for name in ("task0", "task1", "task0", "task2"):
        switcher.use(name)
    usage = switcher.usage()
    assert usage.decoded == ("task0", "task2")
    assert 0 < usage.decoded_bytes <= usage.limit_bytes
    assert (usage.decoded_from_file, usage.found) == (3, 1)
    assert usage.files == sum(file.stat().st_size for file in files)
    switcher.pin("task1")
    for name in ("task2", "task3", "task0", "task3"):
        switcher.use(name)
    assert "task1" in switcher.usage().decoded
    assert switcher.usage().pinned == ("task1",)
    switcher.unpin("task1")
    switcher.use("task2")
    assert switcher.usage().decoded == ("task2", "task3")
    assert switcher.evict("task3")
    assert not switcher.evict("task3")
    switcher.prefetch("task1").result(20)
    assert "task1" in switcher.usage().decoded
    found = switcher.usage().found
    switcher.use("task1")
    assert switcher.usage().found == found + 1


def test_what_stands_in_the_model_is_put_back_though_it_was_let_go(switcher: TaskSwitcher):
    before = bits(switcher.model.state_dict())
    switcher.use("task0")
    switcher.evict("task0")
    switcher.remove("task0")
    switcher.use(None)
    assert same(switcher.model.state_dict(), before)


def test_a_thousand_tasks_take_the_memory_of_their_names(base: Path, files: list[Path]):
    switcher = TaskSwitcher(layered(), base, decoded_bytes=1 << 16)
    switcher.add("first", files[0])  # what is imported late is
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for at in range(1000):
        switcher.add(f"task{at}", files[at % 4])
    draw = random.Random(0)
    for _ in range(100):
        at = draw.randrange(1000)
        switcher.use(f"task{at}")
        assert switcher.current == f"task{at}"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB; files are closed, too
    assert switcher.usage().decoded_bytes <= 1 << 16
