"""Titles written on several cards: each has the model in a process of its own, and takes a batch at a time."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

from titlegen import cards, environment
from titlegen.errors import ConfigError, TitlegenError
from titlegen.generation.generator import Advance, TransformersGenerator, unwatched
from titlegen.metrics.ranking import Chosen
from titlegen.plural import count
from titlegen.settings import EvaluateSettings
from titlegen.train.devices import find_cards
from titlegen.train.ranks import end_with_parent

# Of a process that stands for one card: loaded once, used for every batch.
_own: list[TransformersGenerator] = []


class SpreadGenerator:
    """A ``Generator`` whose batches are those of :class:`TransformersGenerator`, and so are its titles."""

    def __init__(self, single: TransformersGenerator, number: int) -> None:
        """Take the generator of one card, and how many cards there are."""
        self._single, self.batches_at_once = single, number
        self._pools: list[ProcessPoolExecutor] = []

    def describe(self) -> dict[str, object]:
        """Return what decides the outputs, which the number of cards does not."""
        return self._single.describe()

    def generate(self, contents: Sequence[str], advance: Advance = unwatched) -> list[str]:
        """Return the raw output for each article, in order."""
        return [chosen.text for chosen in self.choose(contents, advance)]

    def choose(self, contents: Sequence[str], advance: Advance = unwatched) -> list[Chosen]:
        """Return the raw output for each article, in order; articles of like length are written together.

        Raises:
            ConfigError: a card has too little memory for a batch.
            TitlegenError: a card's process ended.
        """
        batches = self._single.batches(contents)
        self._start(min(len(batches), self.batches_at_once))
        futures: dict[Future[list[Chosen]], tuple[int, list[int]]] = {}
        for number, batch in enumerate(batches):
            card = number % len(self._pools)
            futures[self._pools[card].submit(_choose, [contents[index] for index in batch])] = card, batch
        titles: dict[int, Chosen] = {}
        for done in as_completed(futures):
            card, batch = futures[done]
            try:
                titles |= zip(batch, done.result(), strict=True)
            except BrokenProcessPool as error:
                raise TitlegenError(
                    f"the process of card {card} ended while it wrote {count(len(batch), 'title')} (the system ends "
                    "one when host memory runs out); run the same command again, or use fewer cards with "
                    "--evaluate.devices"
                ) from error
            advance(len(batch))
        return [titles[index] for index in range(len(contents))]

    def close(self) -> None:
        """End the processes."""
        for pool in self._pools:
            # Their memory is free before another model is loaded.
            pool.shutdown(wait=True, cancel_futures=True)
        self._pools.clear()

    def _start(self, number: int) -> None:
        """Start the processes of as many cards as there is work for."""
        single = self._single
        for card in range(len(self._pools), number):
            pool = ProcessPoolExecutor(
                max_workers=1,
                # A copy of this process could not use its card: CUDA's state does not survive it.
                mp_context=get_context("spawn"),
                initializer=_prepare,
                initargs=(card, number, single.model_directory, single.adapter, single.settings, single.redraws),
            )
            self._pools.append(pool)


@contextmanager
def open_generator(
    model_directory: Path, adapter: Path | None, settings: EvaluateSettings, redraws: int = 0
) -> Iterator[TransformersGenerator | SpreadGenerator]:
    """Open the generator of a model, on as many cards as the settings ask for.

    Raises:
        ConfigError: there are fewer cards than that.
        ExportError: a directory holds no model, or no adapter.
    """
    single = TransformersGenerator(model_directory, adapter, settings, redraws)
    number = count_cards(settings)
    if number == 1:
        yield single
        return
    generator = SpreadGenerator(single, number)
    try:
        yield generator
    finally:
        generator.close()


def count_cards(settings: EvaluateSettings) -> int:
    """Return the number of cards that write titles.

    Raises:
        ConfigError: there are fewer than the settings ask for.
    """
    visible, source = find_cards()
    if settings.devices == "auto":
        return max(1, visible)
    if 0 < visible < settings.devices:
        raise ConfigError(
            f"evaluate.devices is {settings.devices}, and this machine shows {count(visible, 'card')} ({source}); give "
            f"a number up to {visible}, or auto"
        )
    return settings.devices


def _prepare(
    card: int, number: int, model_directory: Path, adapter: Path | None, settings: EvaluateSettings, redraws: int
) -> None:
    """Prepare this process for its card."""
    end_with_parent()
    environment.prepare()
    environment.prepare_threads()
    cards.prepare_ranks(number, one_host=True)
    cards.show_card(card)
    _own.append(TransformersGenerator(model_directory, adapter, settings, redraws))


def _choose(contents: Sequence[str]) -> list[Chosen]:
    return _own[0].choose(contents)
