"""Locks between processes, held by a file."""

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from titlegen import cards
from titlegen.errors import ConfigError
from titlegen.files import writable

_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextlib.contextmanager
def locked(path: Path, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold a lock file until the block ends; waits, and says so, while another process holds it.

    Raises:
        ConfigError: the other process trains together with this one, on another host.
        TitlegenError: its folder cannot be written to.
    """
    lock = FileLock(path)
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if cards.hosts() != "1":
                # The host that holds it waits for this one.
                raise ConfigError(
                    f"another run writes to {path.parent}; give each host its own with --output"
                ) from None
            say(f"waiting for another run that writes to {path.parent}")
            lock.acquire()
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            # As on some network file systems.
            say(f"{path.parent} cannot be locked ({error.strerror}): let only one run write there at a time")
    try:
        yield
    finally:
        lock.release()
