"""Several titles for each article, drawn from the trained model."""

import json
from collections.abc import Sequence
from pathlib import Path

from titlegen.data import Example
from titlegen.evaluate.generate import generate_predictions
from titlegen.generation import Advance, Draft, TransformersGenerator, unwatched
from titlegen.metrics.ranking import Chosen
from titlegen.models import family_at
from titlegen.settings import EvaluateSettings


class CandidateGenerator(TransformersGenerator):
    """Writes all candidates of an article at a time, as one output: a JSON list, the greedy title first."""

    def describe(self) -> dict[str, object]:
        """Return what decides the outputs."""
        return super().describe() | {"generator": "candidates"}

    def choose(self, contents: Sequence[str], advance: Advance = unwatched) -> list[Chosen]:
        """Return a JSON list of raw titles for each article."""
        return [
            Chosen(json.dumps([draft.text for draft in drafts], ensure_ascii=False), drafts[0].text, len(drafts))
            for drafts in self.draft(contents, advance)
        ]

    def _draft(self, prompts: Sequence[str], advance: Advance) -> list[tuple[Draft, ...]]:
        import torch

        settings = self.settings
        drawn = settings.candidates - 1
        write = self._writer(prompts, unwatched)
        # An article is read once for all of its titles.
        draw = self._writer(prompts, advance, copies=drawn)
        # Seeded after the model is loaded, which draws numbers, too: a batch is the same wherever a run begins.
        torch.manual_seed(settings.seed)
        greedy, others = write(0.0), draw(settings.temperature)
        return [
            tuple(map(self._decode, [title, *others[index * drawn : (index + 1) * drawn]]))
            for index, title in enumerate(greedy)
        ]


def draw_candidates(
    base: Path, adapter: Path, examples: Sequence[Example], settings: EvaluateSettings, partial: Path
) -> list[list[str]]:
    """Return the raw candidates for each example, the greedy title first; an interrupted call resumes.

    Args:
        base: directory of the base model.
        adapter: directory of the adapter over it.
        examples: articles.
        settings: candidates (2 or more), temperature, seed, longest title, articles at a time.
        partial: file that remembers what is written.
    """
    generator = CandidateGenerator(base, adapter, settings)
    prompt = family_at(base).prompt.digest
    outputs = generate_predictions(generator, examples, partial, settings.batch_size, prompt=prompt).predictions
    return [list(map(str, json.loads(output))) for output in outputs]
