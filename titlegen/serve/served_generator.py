"""Titles for an evaluation, from the deployed model as its users get them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from titlegen.errors import ServeError
from titlegen.serve.client import Client
from titlegen.serve.connection import connect
from titlegen.serve.server import find_server, server_url
from titlegen.settings import ServeSettings

if TYPE_CHECKING:
    from titlegen.metrics.ranking import Chosen


class ServedGenerator:
    """Titles for an evaluation, from the deployed model as its users get them, loaded anew.

    A server caches prompts, and a cached one rounds differently: titles of a second pass over the same articles differ
    from those of the first (18 of 31 equal on Ollama 0.33), and so are scores. Titles that are written beside others
    round differently, too, as the batch falls: they are asked for one after another.
    """

    def __init__(
        self,
        settings: ServeSettings,
        model_directory: Path,
        *,
        digest: str,
        candidates: int = 1,
        temperature: float = 0.0,
    ) -> None:
        """Load the model anew.

        Args:
            settings: where the server is.
            model_directory: the export, for its tokenizer.
            digest: of the model that is on the server.
            candidates: titles for each article, of which the best is taken
                (:func:`titlegen.metrics.ranking.rank_titles`).
            temperature: of the first of them; 0 is greedy, as the client asks.

        Raises:
            ServeError: the server or the model cannot be used.
        """
        self._digest, self._candidates, self._temperature = digest, candidates, temperature
        server = find_server(server_url(settings.host))
        if server is None:
            raise ServeError(f"no server answers at {settings.host}; run `titlegen serve`, or correct serve.host")
        self._server = server
        with connect(settings) as connection:
            self._fresh = connection.unload(settings.model_name)
            connection.load(settings.model_name)
        self._client = Client(settings, model_directory, temperature=temperature)

    def describe(self) -> dict[str, object]:
        """Return server, model and decoding."""
        from titlegen.metrics.ranking import describe_candidates

        return {
            "generator": "server",
            "host": self._client.url,
            "server": {"kind": self._server.kind, "version": self._server.version},
            "model": self._client.model_name,
            "digest": self._digest,
            # Other clients kept it in use, so that it could not be unloaded.
            "freshly_loaded": self._fresh,
            "prompt_cache": "empty before the first title" if self._fresh else "as other requests left it",
            "concurrency": 1,
            "decoding": {
                "temperature": self._temperature,
                "num_predict": self._client.settings.num_predict,
                "seed": 0,
                **describe_candidates(self._candidates, self._temperature, self._client.settings.redraws),
            },
        }

    def generate(self, contents: Sequence[str], advance: Callable[[float], object] = lambda _: None) -> list[str]:
        """Return the raw output for each article, in order."""
        return [chosen.text for chosen in self.choose(contents, advance)]

    def choose(self, contents: Sequence[str], advance: Callable[[float], object] = lambda _: None) -> "list[Chosen]":
        """Return the raw output for each article, in order; ``advance`` is called with 1 for each that is there.

        Raises:
            ServeError: the server or the model cannot be used; an answer that is no title is no error.
        """
        from titlegen.metrics.ranking import Chosen

        found = []
        for content in contents:
            answers = self._client.ask_candidates(content, self._candidates)
            first = next(answer for answer in answers if answer.seed == 0)
            found.append(Chosen(answers[0].raw, first.raw, len(answers)))
            advance(1)
        return found
