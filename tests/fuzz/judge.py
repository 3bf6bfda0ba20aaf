"""One load of one sample under guard: what came of it, and whether it touched anything else."""

import os
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.mutate import Link

# Of the processor, so that a busy machine makes no hang of a load; and in all, for one that waits.
SECONDS, WAITING = 2.0, 20.0
MEGABYTES = 500
# What a reader has no business with, whatever the file says.
_NEVER = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
          "os.startfile", "pickle.", "socket.", "urllib.", "ftplib.", "smtplib.", "ctypes.dlopen",
          "pty.", "webbrowser.", "code.__new__")  # fmt: skip
_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink",
            "os.truncate", "os.chmod", "os.chown", "shutil.")  # fmt: skip
GOOD = ("loaded", "clear error")
BAD = ("loaded wrong", "wrong error", "memory", "hang", "crash", "wrote outside", "executed")
OUTCOMES = (*GOOD, *BAD)


class TimedOutError(BaseException):
    """The load took too long; no reader may catch it."""


@dataclass(frozen=True)
class Verdict:
    """What one load came to.

    Attributes:
        outcome: one of `OUTCOMES`.
        error: class of what was raised, empty where nothing was.
        detail: its message, or what was touched.
        seconds: the load took.
    """

    outcome: str
    error: str
    detail: str
    seconds: float


class Watch:
    """Python's audit events while a load runs: files written, programs started, code executed."""

    def __init__(self):
        self.active = False
        self.allowed = ()
        self.executed = Counter()
        self.written = Counter()
        self._libraries = tuple(
            {str(Path(p).resolve()) for p in (sys.prefix, sys.base_prefix, Path.cwd(), *sys.path)}
        )
        sys.addaudithook(self._hook)

    def start(self, *allowed):
        """Watches from now on; files below `allowed` may be written."""
        self.allowed = tuple(str(folder) for folder in allowed)
        self.executed.clear()
        self.written.clear()
        self.active = True

    def _hook(self, event, args):
        if not self.active:
            return
        if event.startswith(_NEVER):
            self.executed[f"{event} {str(args)[:200]}"] += 1
        elif event == "exec":
            name = getattr(args[0], "co_filename", "?")
            # Modules of libraries are imported late; their dataclasses are made of text.
            own = name.startswith(("<frozen", "<string>", "<attrs", "<__array"))
            if not own and not name.startswith(self._libraries):
                self.executed[f"exec {name}"] += 1
        elif event == "open":
            path, mode, flags = args
            writes = mode is not None and any(c in mode for c in "wax+")
            writes = writes or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
            if writes:
                self._changed(event, path)
        elif event.startswith(_CHANGES):
            self._changed(event, args[0])

    def _changed(self, event, path):
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str) or path == "/dev/null":  # a descriptor that is open already
            return
        # A relative name may be one inside a temporary folder that is being removed (os.rmdir).
        if not os.path.isabs(path) and event in ("os.remove", "os.rmdir"):  # noqa: PTH117
            return
        if not os.path.abspath(path).startswith(self.allowed):  # noqa: PTH100
            self.written[f"{event} {path}"] += 1


def snapshot(*folders):
    """Names, kinds, sizes and times of everything below the folders."""
    found = {}
    for folder in folders:
        for path in [folder, *folder.rglob("*")]:
            status = path.lstat()
            found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns)
        # What is in a folder says enough; making and removing a file there is seen by the hook.
        found[str(folder)] = None
    return found


def write_sample(sample, folder):
    """The sample's files below an empty folder."""
    for name, content in sample.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, Link):
            path.write_bytes(content)
        elif content.to == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(content.to)


@contextmanager
def limited_memory():
    """At most so many megabytes of address space more than there are now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + MEGABYTES * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


class Judge:
    """Loads samples below one folder; home, temporary and working folders lie there and stay empty.

    Args:
        base: an empty folder.
    """

    def __init__(self, base):
        self.base = base
        self.watch = Watch()
        self.out, self.temporary = base / "out", base / "tmp"
        self.guarded = [base / "home", base / "cwd", base / "outside"]
        for folder in (self.out, self.temporary, *self.guarded):
            folder.mkdir()
        (base / "outside" / "canary").write_text("sings")

    @contextmanager
    def settled(self):
        """The process at home in these folders."""
        import tempfile

        names = {"HOME": "home", "HF_HOME": "home", "XDG_CACHE_HOME": "home", "TMPDIR": "tmp"}
        before = {name: os.environ.get(name) for name in names}
        cwd = Path.cwd()
        os.environ.update({name: str(self.base / folder) for name, folder in names.items()})
        tempfile.tempdir, temporary = str(self.temporary), tempfile.tempdir
        os.chdir(self.base / "cwd")
        try:
            yield
        finally:
            os.chdir(cwd)
            tempfile.tempdir = temporary
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def place(self, sample):
        """The folder of the sample on the disk; replaces the one before."""
        folder = self.base / "sample"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write_sample(sample, folder)
        return folder

    def load(self, target, sample):
        """Loads it.

        Returns:
            The verdict; the sample stays on the disk until the next one.
        """
        folder = self.place(sample)
        path = folder if target.folder else folder / next(iter(sample))
        before = snapshot(folder, *self.guarded)
        self.watch.start(self.out, self.temporary)
        outcome, error, detail, seconds = self._attempt(target, path)
        self.watch.active = False
        after = snapshot(folder, *self.guarded)
        own = {f"{path}{ending}" for ending in target.beside}
        touched = [*self.watch.written, *(d for d in _differences(before, after) if d not in own)]
        touched += [f"left {path}" for path in self.temporary.iterdir()]
        _emptied(self.out)
        _emptied(self.temporary)
        if self.watch.executed:
            outcome, detail = "executed", "; ".join(self.watch.executed)
        elif touched:
            outcome, detail = "wrote outside", "; ".join(touched)
        return Verdict(outcome, error, detail[:500], seconds)

    def _attempt(self, target, path):
        signal.signal(signal.SIGPROF, _time_is_up)
        signal.signal(signal.SIGALRM, _time_is_up)
        start = time.perf_counter()
        error, detail = "", ""
        try:
            # Again and again: the first one may be lost inside a callback that drops exceptions.
            signal.setitimer(signal.ITIMER_PROF, SECONDS, 0.2)
            signal.setitimer(signal.ITIMER_REAL, WAITING, 0.2)
            try:
                target.load(path, self.out)
                outcome = "loaded"
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.setitimer(signal.ITIMER_REAL, 0)
        except TimedOutError:
            outcome = "hang"
        except AssertionError as wrong:
            outcome, error, detail = _asserted(wrong)
        except target.errors as raised:
            error, detail = type(raised).__name__, str(raised)
            outcome = "clear error" if detail.strip() else "wrong error"
            if isinstance(raised, MemoryError):
                outcome = "memory"
        except MemoryError as raised:
            outcome, error, detail = "memory", "MemoryError", str(raised)
        except BaseException as raised:
            outcome, error, detail = "wrong error", type(raised).__name__, _origin(raised)
            if "can't allocate memory" in str(raised) or "bad_alloc" in str(raised):
                outcome = "memory"
        return outcome, error, detail, time.perf_counter() - start


def _asserted(wrong):
    """An assertion of a target's check is about what was loaded; any other is a reader's."""
    trace = wrong.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    ours = "tests/fuzz" in trace.tb_frame.f_code.co_filename
    return "loaded wrong" if ours else "wrong error", "AssertionError", _origin(wrong)


def _origin(error):
    trace, place = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f"{Path(code.co_filename).name}:{trace.tb_lineno} {code.co_name}"
        trace = trace.tb_next
    return f"{place}: {error}"


def _differences(before, after):
    return [path for path in {**before, **after} if before.get(path) != after.get(path)]


def _emptied(folder):
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _time_is_up(*_):
    raise TimedOutError
