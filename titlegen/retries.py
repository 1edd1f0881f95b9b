"""Retries: the one back-off of every request whose failure may be temporary."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 8.0


def retry(
    action: Callable[[], T],
    is_temporary: Callable[[Exception], bool | float],
    retries: int,
    *,
    first_wait_s: float = FIRST_WAIT_S,
    longest_wait_s: float = LONGEST_WAIT_S,
) -> T:
    """Return what ``action`` returns, retried after a temporary failure.

    Each pause is twice the last, with random jitter, so that no two clients stay in step.

    Args:
        action: what is tried.
        is_temporary: takes the failure and returns whether it may be over at the next try, or after how many seconds.
        retries: further tries, at most.
        first_wait_s: pause before the second try, seconds.
        longest_wait_s: no pause is longer, unless ``is_temporary`` says so, seconds.

    Raises:
        Exception: the last failure, as ``action`` raised it.
    """
    import stamina

    # It would report every pause as a warning on standard error.
    stamina.instrumentation.set_on_retry_hooks(())
    for attempt in stamina.retry_context(
        on=is_temporary,
        attempts=1 + retries,
        timeout=None,
        wait_initial=first_wait_s,
        wait_max=longest_wait_s,
        wait_jitter=first_wait_s,
    ):
        with attempt:
            return action()
    raise AssertionError("unreachable")
