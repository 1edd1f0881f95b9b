"""The estimate of one stage."""

from typing import NamedTuple


class StageEstimate(NamedTuple):
    """One stage as estimated; disk is what it leaves, memory its peak."""

    stage: str
    reads: str
    writes: str
    disk_gib: float = 0.0
    host_gib: float = 1.0
    gpu_gib: float = 0.0
    minutes: float = 0.0
    sources: tuple[str, ...] = ()
    """Where the figures come from: measured, derived or assumed."""
    gpu_least_gib: float | None = None
    """GPU memory with which the stage runs nevertheless, more slowly; None when it needs what it uses."""

    @property
    def gpu_needs_gib(self) -> float:
        """GPU memory without which the stage does not run."""
        return self.gpu_gib if self.gpu_least_gib is None else self.gpu_least_gib
