"""Seconds of the parts of a training, so that its results tell where its time went."""

import time

import psutil


class Parts:
    """A clock that begins with this process, and is read at the end of each part."""

    def __init__(self) -> None:
        """Begin the first part where this process began."""
        # Both know the time of booting in whole seconds alone, which falls out of the difference.
        self._began = psutil.Process().create_time() - psutil.boot_time()
        self.seconds: dict[str, float] = {}

    def end(self, name: str) -> None:
        """Note the part that ends here."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.seconds[name], self._began = round(now - self._began, 2), now
