"""One folder of files, local or in an object store, with the two writes a run needs.

`put` replaces a file in one step; `create` makes it only where there was none. Neither is ever seen half done.
Local files are written aside, synced and renamed or linked; object stores do both in one conditional PUT.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from engine.errors import InputError, ReplisomeError, SystemFailure
from engine.storage import faults

SCRATCH = ".scratch"
_REMOTE = {"s3": "s3", "gs": "gcs", "gcs": "gcs"}


class Store(Protocol):
    """A folder of files named by relative POSIX paths."""

    uri: str

    def read(self, name: str) -> bytes:
        """Whole content; FileNotFoundError where there is none."""
        ...

    def exists(self, name: str) -> bool: ...

    def size(self, name: str) -> int:
        """Bytes; FileNotFoundError where there is none."""
        ...

    def list(self, prefix: str = "") -> list[str]:
        """Names of all files below a folder prefix, sorted; scratch files left out."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file; silent where there is none."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Write or replace in one step."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write only where there is none; False where there was one."""
        ...

    def put_file(self, local: Path, name: str) -> None:
        """Move a local scratch file into place, replacing."""
        ...

    def create_file(self, local: Path, name: str) -> bool:
        """Move a local scratch file into place only where there is none; False (and `local` gone) where there was."""
        ...

    def scratch(self) -> Path:
        """A local path for a new temporary file, on the right disk for `put_file`."""
        ...

    def clear_scratch(self) -> None:
        """Remove all temporary files; only the one driver of a run may."""
        ...

    def fetch(self, name: str) -> Path:
        """A local path with the file's content: the file itself, or a copy in scratch that goes with this store.

        FileNotFoundError where there is none.
        """
        ...

    def opened(self, name: str) -> AbstractContextManager[Path]:
        """As `fetch`, but a copy is removed on leaving: checking a run must not need room for all of it."""
        ...

    def append_log(self, name: str) -> Path:
        """A local path to append log lines to; `keep_log` makes them part of the store."""
        ...

    def keep_log(self, local: Path, name: str) -> None: ...


def full_disk(error: BaseException, where: str) -> SystemFailure | None:
    """The sentence for an error that says the disk is full, None for any other."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    fix = "free some space and run the same command again; finished shards are kept"
    return SystemFailure("the disk is full", where=where, fix=fix)


@contextmanager
def clear_errors(where: str) -> Iterator[None]:
    """Turn operating-system errors of a write into one clear sentence."""
    try:
        yield
    except OSError as error:
        full = full_disk(error, where)
        if full is not None:
            raise full from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
            raise InputError(
                f"cannot write: {error.strerror}", where=where, fix="choose an output folder you may write to"
            ) from error
        raise SystemFailure(
            f"write failed: {error}", where=where, fix="run the same command again; finished shards are kept"
        ) from error


class LocalStore:
    """A folder on a local or shared POSIX file system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)

    def read(self, name: str) -> bytes:
        try:
            return (self.root / name).read_bytes()
        except NotADirectoryError as error:
            # The output is a file, or lies below one: nothing can be there, and the first write says so.
            raise FileNotFoundError(f"{self.uri}/{name}") from error

    def exists(self, name: str) -> bool:
        return (self.root / name).is_file()

    def size(self, name: str) -> int:
        return (self.root / name).stat().st_size

    def list(self, prefix: str = "") -> list[str]:
        top = self.root / prefix
        found = (path for path in top.rglob("*") if path.is_file())
        names = (path.relative_to(self.root).as_posix() for path in found)
        return sorted(name for name in names if not name.startswith(SCRATCH + "/"))

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def put(self, name: str, data: bytes) -> None:
        self.put_file(self._aside(name, data), name)

    def create(self, name: str, data: bytes) -> bool:
        return self.create_file(self._aside(name, data), name)

    def put_file(self, local: Path, name: str) -> None:
        target = self._ready(local, name)
        with clear_errors(str(target)):
            local.replace(target)
            _sync_folder(target.parent)

    def create_file(self, local: Path, name: str) -> bool:
        target = self._ready(local, name)
        with clear_errors(str(target)):
            try:
                os.link(local, target)
            except FileExistsError:
                return False
            finally:
                local.unlink()
            _sync_folder(target.parent)
        return True

    def scratch(self) -> Path:
        folder = self.root / SCRATCH
        with clear_errors(str(self.root)):
            folder.mkdir(parents=True, exist_ok=True)
        return folder / uuid.uuid4().hex

    def clear_scratch(self) -> None:
        shutil.rmtree(self.root / SCRATCH, ignore_errors=True)

    def fetch(self, name: str) -> Path:
        return self.root / name

    @contextmanager
    def opened(self, name: str) -> Iterator[Path]:
        yield self.root / name

    def append_log(self, name: str) -> Path:
        with clear_errors(str(self.root)):
            self.root.mkdir(parents=True, exist_ok=True)
        return self.root / name

    def keep_log(self, local: Path, name: str) -> None:
        """Nothing to move: lines were appended in place."""
        assert local == self.root / name

    def _aside(self, name: str, data: bytes) -> Path:
        path = self.scratch()
        with clear_errors(str(self.root / name)):
            try:
                path.write_bytes(data)
            except OSError:
                path.unlink(missing_ok=True)
                raise
        return path

    def _ready(self, local: Path, name: str) -> Path:
        target = self.root / name
        with clear_errors(str(target)):
            try:
                faults.reach("write")
                with local.open("rb+") as stream:
                    os.fsync(stream.fileno())
                _make_folder(target.parent)
            except OSError:
                local.unlink(missing_ok=True)
                raise
        return target


def _make_folder(folder: Path) -> None:
    """A new folder is safe from a power cut once its parent is synced."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in new:
        _sync_folder(one.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _reaching(where: str) -> Iterator[None]:
    """Turn what clients of object stores raise into one clear sentence; an absent file stays FileNotFoundError."""
    try:
        yield
    except (FileNotFoundError, FileExistsError, ReplisomeError):
        raise
    except PermissionError as error:
        raise InputError(
            f"the object store refuses: {error}", where=where, fix="check the credentials and what they may do"
        ) from error
    except Exception as error:
        if full_disk(error, where) is not None:
            raise
        if "Credentials" in type(error).__name__:
            fix = "set them in the environment, as for the store's own command"
            raise InputError("there are no credentials for this address", where=where, fix=fix) from error
        raise SystemFailure(
            f"the object store does not answer ({type(error).__name__}: {' '.join(str(error).split())[:200]})",
            where=where,
            fix="check address and network and run the same command again; finished shards are kept",
        ) from error


class RemoteStore:
    """A prefix of an object store, through fsspec."""

    def __init__(self, uri: str, filesystem: Any, root: str) -> None:
        self.uri = uri
        self._fs = filesystem
        self._root = root.rstrip("/")
        self._local = Path(tempfile.mkdtemp(prefix="replisome-"))
        # Workers open a store for each shard, so its folder must go with it.
        weakref.finalize(self, shutil.rmtree, self._local, ignore_errors=True)

    def read(self, name: str) -> bytes:
        with _reaching(self.uri):
            return bytes(self._fs.cat_file(self._at(name)))

    def exists(self, name: str) -> bool:
        with _reaching(self.uri):
            self._fs.invalidate_cache()
            return bool(self._fs.isfile(self._at(name)))

    def size(self, name: str) -> int:
        with _reaching(self.uri):
            self._fs.invalidate_cache()
            return int(self._fs.size(self._at(name)))

    def list(self, prefix: str = "") -> list[str]:
        top = self._at(prefix) if prefix else self._root
        try:
            with _reaching(self.uri):
                self._fs.invalidate_cache()
                return sorted(path[len(self._root) + 1 :] for path in self._fs.find(top))
        except FileNotFoundError as error:
            raise InputError(
                "there is no such bucket", where=self.uri, fix="make it first, or correct the address"
            ) from error

    def delete(self, name: str) -> None:
        if self.exists(name):
            with _reaching(self.uri):
                self._fs.rm_file(self._at(name))

    def put(self, name: str, data: bytes) -> None:
        with self._writing(name):
            self._fs.pipe_file(self._at(name), data)

    def create(self, name: str, data: bytes) -> bool:
        with self._writing(name):
            try:
                self._fs.pipe_file(self._at(name), data, mode="create")
            except FileExistsError:
                # A conditional PUT that the client sent twice finds its own first try.
                return self.read(name) == data
        return True

    def put_file(self, local: Path, name: str) -> None:
        with self._writing(name):
            self._fs.put_file(str(local), self._at(name))
        local.unlink()

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        with clear_errors(f"{self.uri}/{name}"):
            faults.reach("write")
            with _reaching(self.uri):
                yield

    def create_file(self, local: Path, name: str) -> bool:
        with self._writing(name):
            try:
                self._fs.put_file(str(local), self._at(name), mode="create")
            except FileExistsError:
                return False
            finally:
                local.unlink()
        return True

    def scratch(self) -> Path:
        return self._local / uuid.uuid4().hex

    def clear_scratch(self) -> None:
        shutil.rmtree(self._local, ignore_errors=True)
        self._local.mkdir(parents=True, exist_ok=True)

    def fetch(self, name: str) -> Path:
        path = self.scratch()
        if not self.exists(name):
            raise FileNotFoundError(f"{self.uri}/{name}")
        with clear_errors(str(path)), _reaching(self.uri):
            self._fs.get_file(self._at(name), str(path))
        return path

    @contextmanager
    def opened(self, name: str) -> Iterator[Path]:
        path = self.fetch(name)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def append_log(self, name: str) -> Path:
        path = self.scratch()
        path.write_bytes(self.read(name) if self.exists(name) else b"")
        return path

    def keep_log(self, local: Path, name: str) -> None:
        self.put(name, local.read_bytes())

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


def open_store(uri: str) -> Store:
    """Open a local folder (made on the first write) or an ``s3://`` or ``gs://`` prefix.

    Raises:
        InputError: unknown scheme, or the package for it is not installed.
    """
    scheme, found, _ = uri.partition("://")
    if not found:
        return LocalStore(Path(uri).expanduser().absolute())
    if scheme == "file":
        return LocalStore(Path(uri.removeprefix("file://")))
    if scheme not in _REMOTE:
        raise InputError(f"unknown kind of address {scheme!r}", where=uri, fix="use a local path, s3:// or gs://")
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(uri)
    except ImportError as error:
        extra = "s3" if scheme == "s3" else "gcs"
        raise InputError(
            f"{scheme}:// needs a package that is not installed",
            where=uri,
            fix=f"pip install 'replisome[{extra}]'",
        ) from error
    return RemoteStore(uri.rstrip("/"), filesystem, root)
