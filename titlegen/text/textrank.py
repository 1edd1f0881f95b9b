"""TextRank: how central each sentence of a text is.

Source: Mihalcea and Tarau, TextRank: Bringing Order into Texts, 2004.
"""

import math
from typing import Any

_DAMPING = 0.85


def sentence_ranks(sentences: list[str]) -> list[float]:
    """Return the PageRank of each sentence, by the character bigrams that it shares with others; the ranks sum to 1."""
    import networkx as nx
    from scipy.sparse import csr_array

    if not sentences:
        return []
    vocabulary: dict[str, int] = {}
    rows, columns = [], []
    for row, sentence in enumerate(sentences):
        for bigram in sorted({sentence[i : i + 2] for i in range(len(sentence) - 1)}):
            rows.append(row)
            columns.append(vocabulary.setdefault(bigram, len(vocabulary)))
    shape = (len(sentences), max(len(vocabulary), 1))
    incidence: Any = csr_array(([1.0] * len(rows), (rows, columns)), shape=shape)
    shared = (incidence @ incidence.T).tocoo()
    graph = nx.Graph()
    graph.add_nodes_from(range(len(sentences)))
    lengths = [math.log(len(sentence) + 1) for sentence in sentences]
    for i, j, weight in zip(shared.row.tolist(), shared.col.tolist(), shared.data.tolist(), strict=True):
        if i < j:
            graph.add_edge(i, j, weight=weight / (lengths[i] + lengths[j]))
    ranks = nx.pagerank(graph, alpha=_DAMPING, max_iter=1000)
    # Sums of floats differ in the last bits between machines; ranks that close are ties.
    return [round(float(ranks[index]), 9) for index in range(len(sentences))]
