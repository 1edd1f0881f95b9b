"""How fast the processes of a bulk run were, once each had begun."""

from collections.abc import Sequence

from titlegen.cluster.job import Receipt


def steady_rate(receipts: Sequence[Receipt]) -> float:
    """Return titles a second, each process from the end of its first block to that of its last one, added."""
    rates = []
    for worker in {receipt.worker for receipt in receipts}:
        own = sorted((receipt for receipt in receipts if receipt.worker == worker), key=lambda receipt: receipt.ended)
        if len(own) > 1:
            rates.append(sum(receipt.rows for receipt in own[1:]) / (own[-1].ended - own[0].ended))
    return sum(rates)
