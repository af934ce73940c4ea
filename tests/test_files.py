"""`FileCacheManager`: copies of files by their content, whatever happens to them, and what was made of files."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aurelis.cache import CacheManager, FileCacheManager, _file_ledger, _file_store, current_load, set_cache_manager
from aurelis.cache._file_names import folder_of, is_folder
from aurelis.cache._file_store import FileStore
from aurelis.cache.exceptions import ConfigurationError, UnkeyableError
from aurelis.cache.telemetry import names
from tests.conftest import ROOT
from tests.managers import configuration, count, opened, requests, run_script, series

KEY = hashlib.sha256(b"a key").hexdigest()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the copies are."""
    return tmp_path / "cache"


@pytest.fixture
def files(directory: Path) -> FileCacheManager:
    """A file cache."""
    return FileCacheManager(directory)


@pytest.fixture
async def cache() -> AsyncIterator[CacheManager]:
    """A cache in memory."""
    async with opened() as manager:
        yield manager


def written(path: Path, content: bytes | str) -> Path:
    """Writes a file."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def digest(content: bytes) -> str:
    """Its SHA-256."""
    return hashlib.sha256(content).hexdigest()


def sized(path: Path, size: int) -> Path:
    """Makes a file of this size, full of zeros."""
    with open(path, "wb") as file:
        file.truncate(size)
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """The file is locked by somebody."""
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def listed(directory: Path) -> list[str]:
    """What is in a directory; nothing when it is not there."""
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def copies(directory: Path) -> list[Path]:
    """All copies."""
    return sorted(directory.glob("*/*.cache"))


def usage(directory: Path) -> tuple[int, int] | None:
    """What the file of the store says there is."""
    with open(directory / ".usage", "rb") as file:
        return _file_ledger.Usage(file.fileno()).read()


# --- keeping


async def test_a_file_is_found_by_its_content(files: FileCacheManager, directory: Path, tmp_path: Path) -> None:
    source = written(tmp_path / "report.txt", b"figures")
    key = await files.cache_file(str(source), "reports")
    assert key == f"reports:{digest(b'figures')}"
    source.unlink()
    path = await files.get_cached_file(key)
    assert path == directory / "reports" / f"{digest(b'figures')}.cache"
    assert path.read_bytes() == b"figures"
    assert await files.get_cached_file(f"reports:{digest(b'other')}") is None
    assert await files.get_cached_file(f"other:{digest(b'figures')}") is None


async def test_without_a_category_it_is_files(files: FileCacheManager, tmp_path: Path) -> None:
    assert await files.cache_file(written(tmp_path / "a", b"")) == f"files:{digest(b'')}"


async def test_equal_files_have_one_copy(files: FileCacheManager, directory: Path, tmp_path: Path) -> None:
    keys = {await files.cache_file(written(tmp_path / name, b"same")) for name in ("a", "b", "c")}
    assert len(keys) == 1
    assert len(copies(directory)) == 1
    assert usage(directory) == (1, 4)
    await asyncio.gather(*(files.cache_file(written(tmp_path / str(n), b"other")) for n in range(8)))
    assert len(copies(directory)) == 2
    assert usage(directory) == (2, 9)


async def test_copies_are_for_this_user_alone_and_not_for_writing(
    files: FileCacheManager, directory: Path, tmp_path: Path
) -> None:
    path = await files.get_cached_file(await files.cache_file(written(tmp_path / "a", b"x")))
    assert path is not None
    assert path.stat().st_mode & 0o777 == 0o400
    assert {each.stat().st_mode & 0o777 for each in (directory, path.parent, directory / ".partial")} == {0o700}


async def test_copies_are_refused_where_the_cache_encrypts(directory: Path, tmp_path: Path) -> None:
    """They are opened as the files that they are, so whoever wants all encrypted must hear that they are not."""
    file = written(tmp_path / "one", "figures")
    async with opened(configuration(encryption_key=KEY)) as cache:
        files = FileCacheManager(directory, cache=cache)
        with pytest.raises(ConfigurationError, match="plain_copies=True") as refused:
            await files.cache_file(file)
        assert KEY[:8] not in str(refused.value)
        assert "cache" not in os.listdir(tmp_path)
        assert await files.cache_result(file, "size", lambda path: path.stat().st_size) == 7
        key = await FileCacheManager(directory, cache=cache, plain_copies=True).cache_file(file)
        copy = await files.get_cached_file(key)
        assert copy is not None
        assert copy.read_bytes() == b"figures"


async def test_copies_are_refused_where_the_environment_says_that_the_cache_encrypts(
    files: FileCacheManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set_cache_manager(None)
    try:
        monkeypatch.setenv("AURELIS_CACHE_ENCRYPTION_KEY", KEY)
        with pytest.raises(ConfigurationError, match="plain_copies=True"):
            await files.cache_file(written(tmp_path / "one", "figures"))
    finally:
        set_cache_manager(before)


async def test_a_file_of_any_size_takes_little_memory(files: FileCacheManager, tmp_path: Path) -> None:
    size = 48 * 2**20
    sized(tmp_path / "large", size)
    tracemalloc.start()
    try:
        key = await files.cache_file(tmp_path / "large")
        path = await files.get_cached_file(key)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path is not None
    assert path.stat().st_size == size
    assert peak < 6 * 2**20


async def test_files_are_not_touched_in_the_thread_of_the_event_loop(
    files: FileCacheManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    opens = os.open

    def noting(*args: Any, **kwargs: Any) -> int:
        threads.append(threading.current_thread())
        return opens(*args, **kwargs)

    source = written(tmp_path / "a", b"x")
    monkeypatch.setattr(os, "open", noting)
    key = await files.cache_file(source)
    await files.get_cached_file(key)
    opened_file = await files.open_cached_file(key)
    assert opened_file is not None
    opened_file.close()
    await files.remove_cached_file(key)
    assert threads
    assert threading.main_thread() not in threads


async def test_a_copy_can_be_removed(files: FileCacheManager, directory: Path, tmp_path: Path) -> None:
    key = await files.cache_file(written(tmp_path / "a", b"x"))
    await files.cache_file(written(tmp_path / "b", b"yy"))
    assert await files.remove_cached_file(key)
    assert not await files.remove_cached_file(key)
    assert await files.get_cached_file(key) is None
    await files.cache_file(written(tmp_path / "c", b"zzz"))
    assert usage(directory) == (2, 5)


async def test_nothing_is_made_before_it_is_needed(files: FileCacheManager, tmp_path: Path) -> None:
    key = f"files:{digest(b'x')}"
    assert await files.get_cached_file(key) is None
    assert not await files.remove_cached_file(key)
    assert listed(tmp_path) == []


async def test_the_directory_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = FileCacheManager("here")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    await files.cache_file(written(tmp_path / "a", b"x"))
    assert files.cache_dir == tmp_path / "here"
    assert len(copies(tmp_path / "here")) == 1


# --- names that lead elsewhere


ODD = ["..", ".", "../..", "/etc", "a/b", ".partial", ".usage", "a:b", "a\0b", "a*", "%2E", "ü", "\ud800", " ", "..:"]


@pytest.mark.parametrize("category", ODD, ids=ascii)
async def test_a_category_is_one_directory_inside(
    files: FileCacheManager, directory: Path, tmp_path: Path, category: str
) -> None:
    source = written(tmp_path / "source", b"x")
    key = await files.cache_file(source, category)
    path = await files.get_cached_file(key)
    assert path is not None
    assert path.parent.parent == directory
    assert ".." not in path.parts
    assert listed(tmp_path) == ["cache", "source"]
    assert copies(directory) == [path] or path.parent.name.startswith("%2E")
    plain = await files.cache_file(source, "plain")
    assert plain != key


@given(st.text(max_size=12), st.text(max_size=12))
def test_different_categories_have_different_directories(one: str, two: str) -> None:
    if one and two:
        assert (folder_of(one) == folder_of(two)) == (one == two)
        assert is_folder(folder_of(one))
        assert "/" not in folder_of(one)
        assert not folder_of(one).startswith(".")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=40))
async def test_no_text_but_a_key_finds_anything(directory: Path, text: str) -> None:
    files = FileCacheManager(directory)
    assert await files.get_cached_file(text) is None
    assert await files.open_cached_file(text) is None
    assert not await files.remove_cached_file(text)


async def test_what_is_no_key_leads_nowhere(files: FileCacheManager, directory: Path, tmp_path: Path) -> None:
    await files.cache_file(written(tmp_path / "a", b"kept"))
    name = digest(b"secret")
    outside = written(tmp_path / f"{name}.cache", b"secret")
    (directory / ".hidden").mkdir()
    inside = written(directory / ".hidden" / f"{name}.cache", b"secret")
    for folder in ("..", "../cache/..", "files/../..", str(tmp_path), ".hidden", "", ".", "a/../.."):
        key = f"{folder}:{name}"
        assert await files.get_cached_file(key) is None
        assert not await files.remove_cached_file(key)
    for key in (name, f":{name}", f"files:../../{name}", f"files:{name}/", f"files:{name.upper()}", f"files:{name}\n"):
        assert await files.get_cached_file(key) is None
    assert outside.exists()
    assert inside.exists()


async def test_a_link_of_the_same_size_is_no_copy(files: FileCacheManager, directory: Path, tmp_path: Path) -> None:
    target = written(tmp_path / "target", b"other")
    source = written(tmp_path / "source", b"x" * len(str(target)))
    path = directory / "files" / f"{digest(b'x' * len(str(target)))}.cache"
    path.parent.mkdir(parents=True)
    path.symlink_to(target)
    assert await files.get_cached_file(await files.cache_file(source)) == path
    assert not path.is_symlink()


async def test_a_link_in_the_place_of_a_copy_is_not_followed(
    files: FileCacheManager, directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await files.cache_file(written(tmp_path / "a", b"kept"))
    secret = written(tmp_path / "secret", b"secret")
    link = directory / "files" / f"{digest(b'secret')}.cache"
    link.symlink_to(secret)
    assert await files.get_cached_file(f"files:{digest(b'secret')}") is None
    assert "a directory of copied files fails (ELOOP)" in caplog.text
    assert str(directory) not in caplog.text
    assert await files.cache_file(secret) == f"files:{digest(b'secret')}"
    path = await files.get_cached_file(f"files:{digest(b'secret')}")
    assert path is not None
    assert not path.is_symlink()
    assert secret.read_bytes() == b"secret"


@pytest.mark.parametrize("category", ["", "x" * 201, "/" * 67])
async def test_a_category_that_is_no_name_is_refused(files: FileCacheManager, tmp_path: Path, category: str) -> None:
    with pytest.raises(ConfigurationError, match="1 to 200 characters"):
        await files.cache_file(written(tmp_path / "a", b"x"), category)


async def test_what_is_no_text_is_refused(files: FileCacheManager, tmp_path: Path) -> None:
    source = written(tmp_path / "a", b"x")
    with pytest.raises(TypeError, match="a category must be a str, not int"):
        await files.cache_file(source, 7)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(TypeError, match="a key must be a str, not NoneType"):
        await files.get_cached_file(None)  # type: ignore[arg-type]  # that is the point


# --- what is no file


async def test_what_is_no_regular_file_is_refused_at_once(files: FileCacheManager, tmp_path: Path) -> None:
    """A pipe without a writer would be waited for, and a device has no end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(ConfigurationError, match="only regular files"):
            await files.cache_file(path)
        with pytest.raises(ConfigurationError, match="only regular files"):
            await files.cache_result(path, "c", lambda: 1)


async def test_a_file_that_is_not_there_is_an_error(files: FileCacheManager, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await files.cache_file(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        await files.cache_result(tmp_path / "missing", "c", lambda: 1)


# --- damage


@pytest.mark.parametrize("damage", [b"X" * 7, b"fig", b"", b"figures and more"], ids=["bits", "short", "empty", "long"])
async def test_a_damaged_copy_is_not_there(
    files: FileCacheManager, directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    source = written(tmp_path / "a", b"figures")
    key = await files.cache_file(source)
    (path,) = copies(directory)
    path.chmod(0o600)
    for _ in range(2):
        path.write_bytes(damage)
        assert await files.get_cached_file(key) is None
        assert not path.exists()
    assert caplog.text.count("was damaged") == 1
    await files.cache_file(source)
    assert await files.get_cached_file(key) == path
    path.chmod(0o600)
    path.write_bytes(damage)
    await files.cache_file(source)  # whoever stores it again finds out as well
    assert path.read_bytes() == b"figures"
    assert usage(directory) == (1, 7)


async def test_a_damaged_number_of_copies_is_counted_again(
    files: FileCacheManager, directory: Path, tmp_path: Path
) -> None:
    await files.cache_file(written(tmp_path / "a", b"x"))
    for damage in (b"", b"short", bytes(20), b"x" * 20, b"x" * 21):
        (directory / ".usage").write_bytes(damage)
        await files.cache_file(written(tmp_path / "b", damage + b"new"))
        assert usage(directory) == (len(copies(directory)), sum(path.stat().st_size for path in copies(directory)))
        with contextlib.suppress(FileNotFoundError):
            (directory / ".usage").unlink()


# --- bounds


async def test_the_longest_unused_go(directory: Path, tmp_path: Path) -> None:
    files = FileCacheManager(directory, max_size=4)
    keys = [await files.cache_file(written(tmp_path / "a", f"file {n}")) for n in range(4)]
    for age, key in enumerate(keys):
        path = await files.get_cached_file(key)
        assert path is not None
        os.utime(path, (1000 + age, 1000 + age))
    assert await files.get_cached_file(keys[0]) is not None  # in use again
    await files.cache_file(written(tmp_path / "a", "file 1"))  # and this one
    await files.cache_file(written(tmp_path / "a", "another"))
    there = [key for key in keys if await files.get_cached_file(key) is not None]
    assert there == [keys[0], keys[1], keys[3]]
    assert len(copies(directory)) == 4


async def test_there_are_never_more_bytes_than_allowed(directory: Path, tmp_path: Path) -> None:
    files = FileCacheManager(directory, max_bytes=1000)
    for number in range(60):
        await files.cache_file(written(tmp_path / "a", bytes([number]) * (number * 37 % 400 + 1)))
        sizes = [path.stat().st_size for path in copies(directory)]
        assert sum(sizes) <= 1000
        assert usage(directory) == (len(sizes), sum(sizes))
    assert len(copies(directory)) > 2


async def test_a_file_larger_than_the_whole_is_not_kept(
    directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = FileCacheManager(directory, max_bytes=10)
    await files.cache_file(written(tmp_path / "a", b"small"))
    key = await files.cache_file(written(tmp_path / "b", b"x" * 11))
    assert key == f"files:{digest(b'x' * 11)}"
    assert await files.get_cached_file(key) is None
    assert len(copies(directory)) == 1
    assert caplog.text.count("larger than the whole cache") == 1


async def test_bounds_hold_for_what_others_have_left(directory: Path, tmp_path: Path) -> None:
    many = FileCacheManager(directory)
    for number in range(10):
        await many.cache_file(written(tmp_path / "a", f"file {number}"), f"category {number}")
    few = FileCacheManager(directory, max_size=3)
    await few.cache_file(written(tmp_path / "a", "last"))
    assert len(copies(directory)) == 3


# --- a directory that cannot be used


async def test_a_directory_that_cannot_be_made_costs_nothing_but_the_copy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = written(tmp_path / "file", b"")
    files = FileCacheManager(blocked / "cache")
    source = written(tmp_path / "a", b"figures")
    for _ in range(2):
        key = await files.cache_file(source)
        assert key == f"files:{digest(b'figures')}"
        assert await files.get_cached_file(key) is None
        assert not await files.remove_cached_file(key)
    assert caplog.text.count("a directory of copied files fails (ENOTDIR)") == 1
    assert "works again" not in caplog.text
    blocked.unlink()
    assert await files.get_cached_file(await files.cache_file(source)) is not None
    assert caplog.text.count("a directory of copied files works again") == 1
    assert str(tmp_path) not in caplog.text


async def test_a_directory_that_cannot_be_looked_into_has_no_copies(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = FileCacheManager(tmp_path / ("long" * 100))  # no file system has such names
    key = await files.cache_file(written(tmp_path / "a", "a"))
    assert await files.get_cached_file(key) is None
    assert await files.open_cached_file(key) is None
    assert await files.remove_cached_file(key) is False
    assert [record.getMessage() for record in caplog.records] == [
        "a directory of copied files fails (ENAMETOOLONG): copies are not kept, or not found"
    ]


def test_a_full_disk_costs_nothing_but_the_copy(directory: Path, tmp_path: Path) -> None:
    """A limit of the process takes the place of a full disk: the write fails half way."""
    written(tmp_path / "large", b"x" * 3_000_000)
    printed = run_script(
        """
        import asyncio, resource, signal, sys
        from aurelis.cache import FileCacheManager

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
        files = FileCacheManager(sys.argv[1])
        key = asyncio.run(files.cache_file(sys.argv[2]))
        print(len(key), asyncio.run(files.get_cached_file(key)))
        """,
        str(directory),
        str(tmp_path / "large"),
    )
    assert printed == f"{len('files:') + 64} None\n"
    assert copies(directory) == []
    assert list((directory / ".partial").iterdir()) == []


async def test_a_lock_that_is_never_given_back_is_not_waited_for(
    files: FileCacheManager, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner may be stopped."""
    monkeypatch.setattr(_file_ledger, "_LOCK_WAIT", 0.05)
    await files.cache_file(written(tmp_path / "a", b"first"))
    with locked(directory / ".usage"):
        key = await files.cache_file(written(tmp_path / "b", b"second"))
        assert await files.get_cached_file(key) is None
        first = await files.get_cached_file(f"files:{digest(b'first')}")
        assert first is not None  # reading needs no lock
    assert await files.get_cached_file(await files.cache_file(tmp_path / "b")) is not None
    assert list((directory / ".partial").iterdir()) == []


async def test_what_dead_processes_have_left_goes_and_what_is_written_stays(directory: Path, tmp_path: Path) -> None:
    partial = directory / ".partial"
    partial.mkdir(parents=True)
    long_ago = time.time() - 3600
    for name in ("left", "young", "written"):
        written(partial / name, b"half")
        if name != "young":
            os.utime(partial / name, (long_ago, long_ago))
    with locked(partial / "written"):
        await FileCacheManager(directory).cache_file(written(tmp_path / "a", b"x"))
        assert sorted(path.name for path in partial.iterdir()) == ["written", "young"]
    full = FileCacheManager(directory, max_size=1)
    full._store._is_ready = True
    await full.cache_file(written(tmp_path / "b", b"y"))
    assert sorted(path.name for path in partial.iterdir()) == ["young"]


async def test_a_file_that_changes_while_it_is_copied_has_the_name_of_its_copy(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest is that of the bytes that were copied."""
    files = FileCacheManager(directory)
    source = written(tmp_path / "a", b"before")
    get_ready = FileStore._get_ready

    def and_change(store: FileStore) -> None:
        source.write_bytes(b"after")
        get_ready(store)

    monkeypatch.setattr(FileStore, "_get_ready", and_change)
    assert await files.cache_file(source) == f"files:{digest(b'after')}"
    (path,) = copies(directory)
    assert path.read_bytes() == b"after"


# --- opened copies


async def test_an_opened_copy_stays_readable_when_it_is_evicted(directory: Path, tmp_path: Path) -> None:
    files = FileCacheManager(directory, max_size=1)
    key = await files.cache_file(written(tmp_path / "a", b"first"))
    file = await files.open_cached_file(key)
    assert file is not None
    await files.cache_file(written(tmp_path / "b", b"second"))
    assert await files.get_cached_file(key) is None
    with file:
        assert file.read() == b"first"
    assert await files.open_cached_file(key) is None


async def test_who_leaves_leaves_no_file_open(
    files: FileCacheManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await files.cache_file(written(tmp_path / "a", b"x"))
    go = threading.Event()
    results: list[Any] = []
    open_copy = FileStore.look

    def slowly(store: FileStore, *args: str) -> Any:
        go.wait()
        found = open_copy(store, *args)
        results.append(found[0])
        return found

    monkeypatch.setattr(FileStore, "look", slowly)
    task = asyncio.create_task(files.open_cached_file(key))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    while not any(file.closed for file in results):
        await asyncio.sleep(0.001)


# --- several processes


WORKER = """
    import asyncio, hashlib, os, random, sys
    from pathlib import Path
    from aurelis.cache import FileCacheManager

    async def main(directory, own, seed, rounds):
        choice = random.Random(seed)
        files = FileCacheManager(directory, max_size=12, max_bytes=600_000)
        source, found = Path(own), 0
        for _ in range(rounds):
            content = bytes([choice.randrange(40)]) * choice.randrange(1, 3) * 40_000
            source.write_bytes(content)
            key = await files.cache_file(source, choice.choice(["a", "b"]))
            assert key.endswith(hashlib.sha256(content).hexdigest())
            file = await files.open_cached_file(key)
            if file is not None:
                with file:
                    assert file.read() == content
                found += 1
            if choice.random() < 0.1:
                await files.remove_cached_file(key)
        print(found, flush=True)

    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
"""


def start_worker(directory: Path, own: Path, seed: int, rounds: int) -> subprocess.Popen[str]:
    """Starts a process that stores and reads files."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WORKER), str(directory), str(own), str(seed), str(rounds)],
        env={"PYTHONPATH": f"{ROOT / 'src'}", "PYTHONWARNINGS": "error"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_whole(directory: Path) -> None:
    """All copies are what their names say."""
    for path in copies(directory):
        assert digest(path.read_bytes()) == path.stem
    assert_bounded(directory)


def assert_bounded(directory: Path) -> None:
    """There is no more than allowed."""
    sizes = [path.stat().st_size for path in copies(directory)]
    assert len(sizes) <= 12
    assert sum(sizes) <= 600_000


def test_processes_share_a_directory(directory: Path, tmp_path: Path) -> None:
    workers = [start_worker(directory, tmp_path / f"own{n}", n, 150) for n in range(3)]
    try:
        while any(worker.poll() is None for worker in workers):
            if (directory / ".usage").exists():
                with locked(directory / ".usage"):  # so that nobody changes anything while it is counted
                    assert_bounded(directory)
            time.sleep(0.01)
        for worker in workers:
            output, errors = worker.communicate()
            assert worker.returncode == 0, errors
            assert int(output) > 100  # evicted in between at most now and then
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert_whole(directory)
    counted = usage(directory)
    assert counted is None or counted == (
        len(copies(directory)),
        sum(path.stat().st_size for path in copies(directory)),
    )
    assert list((directory / ".partial").iterdir()) == []


def test_processes_that_are_killed_leave_nothing_torn(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for attempt in range(12):
        worker = start_worker(directory, tmp_path / "own", attempt, 1_000_000)
        assert worker.stdout is not None
        assert worker.stderr is not None
        while not copies(directory) and worker.poll() is None:
            time.sleep(0.005)
        time.sleep(0.1 + attempt * 0.007)
        assert worker.poll() is None, worker.stderr.read()
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        worker.stderr.close()
        assert_whole(directory)
        counted = usage(directory)
        assert counted is None or counted[0] >= len(copies(directory))
    monkeypatch.setattr(_file_store, "_ABANDONED", -1)
    asyncio.run(FileCacheManager(directory).cache_file(written(tmp_path / "last", b"last")))
    assert list((directory / ".partial").iterdir()) == []


# --- results


class Made:
    """Counts what was made of files."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, path: Path) -> str:
        self.calls += 1
        return f"{await asyncio.to_thread(path.read_text)} {self.calls}"


async def test_a_result_belongs_to_the_content(cache: CacheManager, directory: Path, tmp_path: Path) -> None:
    files, made = FileCacheManager(directory, cache=cache), Made()
    one, two = written(tmp_path / "one", "same"), written(tmp_path / "two", "same")
    assert await files.cache_result(one, "words", made) == "same 1"
    assert await files.cache_result(str(two), "words", made) == "same 1"
    written(one, "other")
    assert await files.cache_result(one, "words", made) == "other 2"
    assert await files.cache_result(two, "lines", made) == "same 3"
    assert await files.cache_result(two, "words", made, params={"lang": "de"}) == "same 4"
    written(one, "same")
    assert await files.cache_result(one, "words", made) == "same 1"
    await cache.invalidate_category("words")
    assert await files.cache_result(one, "words", made) == "same 5"
    assert listed(directory) == []  # no copy is needed


async def test_all_kinds_of_functions_will_do(cache: CacheManager, directory: Path, tmp_path: Path) -> None:
    files = FileCacheManager(directory, cache=cache)
    source = written(tmp_path / "a", "text")
    threads = []

    async def without() -> str:
        return "without"

    def blocking(path: Path) -> str:
        threads.append(threading.current_thread())
        return path.read_text()

    def blocking_without() -> int:
        return 7

    assert await files.cache_result(source, "1", without) == "without"
    assert await files.cache_result(source, "2", blocking) == "text"
    assert await files.cache_result(source, "3", blocking_without) == 7
    assert await files.cache_result(source, "4", lambda path: without()) == "without"
    assert await files.cache_result(source, "5", lambda strict=True: strict) is True
    assert await files.cache_result(source, "6", os.path.getsize) == 4
    assert threads[0] is not threading.main_thread()
    with pytest.raises(ConfigurationError, match="compute is a function"):
        await files.cache_result(source, "7", "text")  # type: ignore[call-overload]  # that is the point


async def test_callers_share_one_computation(cache: CacheManager, directory: Path, tmp_path: Path) -> None:
    files, made = FileCacheManager(directory, cache=cache), Made()
    source = written(tmp_path / "a", "text")
    assert await asyncio.gather(*(files.cache_result(source, "c", made) for _ in range(10))) == ["text 1"] * 10


async def test_what_fails_is_not_kept(cache: CacheManager, directory: Path, tmp_path: Path) -> None:
    files = FileCacheManager(directory, cache=cache)
    source = written(tmp_path / "a", "text")

    async def fails() -> str:
        raise LookupError("no words")

    with pytest.raises(LookupError, match="no words"):
        await files.cache_result(source, "c", fails)
    assert await files.cache_result(source, "c", lambda: "words") == "words"


@pytest.mark.parametrize("change", [lambda path: path.write_text("new!"), Path.unlink], ids=["changed", "gone"])
async def test_a_result_of_a_file_that_has_changed_is_not_kept(
    cache: CacheManager, directory: Path, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    """It may have been made of the new content, or of parts of both."""
    files = FileCacheManager(directory, cache=cache)
    source = written(tmp_path / "a", "old!")

    def read_late(path: Path) -> str:
        change(path)
        return "of neither"

    assert await files.cache_result(source, "c", read_late) == "of neither"
    written(source, "old!")
    assert await files.cache_result(source, "c", lambda: "right") == "right"


async def test_a_result_has_ttl_and_tags(cache: CacheManager, directory: Path, tmp_path: Path) -> None:
    files, made = FileCacheManager(directory, cache=cache), Made()
    source = written(tmp_path / "a", "text")

    async def tagged(path: Path) -> str:
        current_load().add_tags("own")
        return await made(path)

    for tag in ("given", "own"):
        before = await files.cache_result(source, "c", tagged, tags=["given"])
        assert await files.cache_result(source, "c", tagged) == before
        await cache.invalidate_tags(tag)
        assert await files.cache_result(source, "c", tagged, tags=["given"]) != before
    for _ in range(2):
        await files.cache_result(source, "nothing", made, ttl=0)
    assert made.calls == 3 + 2


async def test_what_cannot_be_a_key_is_refused(cache: CacheManager, directory: Path, tmp_path: Path) -> None:
    files = FileCacheManager(directory, cache=cache)
    source = written(tmp_path / "a", "text")
    with pytest.raises(UnkeyableError, match="params"):
        await files.cache_result(source, "c", lambda: 1, params={"session": object()})


async def test_results_are_shared_by_processes(redis_url: str, tmp_path: Path) -> None:
    source = written(tmp_path / "a", "text")
    async with CacheManager(configuration(redis_url=redis_url, timeout=10)) as one:
        await FileCacheManager(tmp_path / "1", cache=one).cache_result(source, "c", lambda: "first")
    async with CacheManager(configuration(redis_url=redis_url, timeout=10)) as two:
        result = await FileCacheManager(tmp_path / "2", cache=two).cache_result(source, "c", lambda: "second")
    assert result == "first"


# --- wrong use


@pytest.mark.parametrize("bound", ["max_size", "max_bytes"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "10"])
def test_a_bound_is_a_whole_number(bound: str, value: Any) -> None:
    wrong: Any = {bound: value}
    with pytest.raises(ConfigurationError, match=f"{bound} must be a whole number"):
        FileCacheManager("cache", **wrong)


def test_a_directory_has_a_name() -> None:
    with pytest.raises(ConfigurationError, match="cache_dir must not be empty"):
        FileCacheManager("")
    with pytest.raises(TypeError):
        FileCacheManager(7)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(TypeError, match="cache must be a CacheManager"):
        FileCacheManager("cache", cache={})  # type: ignore[arg-type]  # that is the point


def test_importing_the_cache_does_not_import_files() -> None:
    printed = run_script(
        """
        import sys
        import aurelis.cache

        print("aurelis.cache.files" in sys.modules)
        print(aurelis.cache.FileCacheManager.__module__)
        """
    )
    assert printed == "False\naurelis.cache.files\n"


# --- what it reports


async def test_what_becomes_of_copies_is_counted(tmp_path: Path) -> None:
    files = FileCacheManager(tmp_path / "cache", max_size=2, max_bytes=1000, name="test-files")
    reported = partial(series, "test-files")
    assert reported(names.ENTRIES) == reported(names.USAGE) == {((names.LAYER, "files"),): 0}
    keys = [await files.cache_file(written(tmp_path / str(size), b"x" * size)) for size in (100, 200, 300, 2000)]
    await files.cache_file(tmp_path / "300")
    assert {dict(key)[names.STORE_RESULT]: number for key, number in reported(names.STORES).items()} == {
        "stored": 3,
        "too_large": 1,
    }
    assert reported(names.ENTRIES) == {((names.LAYER, "files"),): 2}
    assert reported(names.USAGE) == {((names.LAYER, "files"),): 500}
    assert reported(names.LIMIT) == {((names.LAYER, "files"),): 1000}
    assert await files.get_cached_file(keys[0]) is None
    assert await files.get_cached_file("no key") is None
    with await opened_copy(files, keys[1]):
        pass
    assert await files.get_cached_file(keys[2]) is not None
    damaged = await files.get_cached_file(keys[2])
    assert damaged is not None
    damaged.chmod(0o600)
    damaged.write_bytes(b"y")
    assert await files.get_cached_file(keys[2]) is None
    assert requests("test-files") == {"hit files": 3, "miss": 3, "loads": 3}
    assert {dict(key)[names.RESULT]: number for key, number in reported(names.LOOKUPS).items()} == {
        "hit": 3,
        "miss": 2,
        "error": 1,
    }
    assert count("test-files", names.ERRORS, {names.OPERATION: "get", names.ERROR_TYPE: "damaged"}) == 1
    assert await files.remove_cached_file(keys[1])
    assert not await files.remove_cached_file(keys[1])
    assert count("test-files", names.INVALIDATIONS) == 2
    assert {dict(key)[names.REASON]: number for key, number in reported(names.EVICTIONS).items()} == {
        "capacity": 1,
        "invalidated": 1,
    }
    assert reported(names.ENTRIES) == {((names.LAYER, "files"),): 0}


async def opened_copy(files: FileCacheManager, key: str) -> Any:
    """Returns the copy, which is there."""
    copy = await files.open_cached_file(key)
    assert copy is not None
    return copy


async def test_a_directory_that_cannot_be_used_is_an_error_of_the_layer(tmp_path: Path) -> None:
    written(tmp_path / "file", b"x")
    files = FileCacheManager(tmp_path / "file" / "cache", name="test-no-directory")
    await files.cache_file(tmp_path / "file")
    assert count("test-no-directory", names.STORES, {names.STORE_RESULT: "layer_failed"}) == 1
    assert count("test-no-directory", names.ERRORS, {names.OPERATION: "set", names.LAYER: "files"}) == 1
    with pytest.raises(ConfigurationError, match="name"):
        FileCacheManager(tmp_path, name="")
