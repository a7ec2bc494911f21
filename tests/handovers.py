"""A handover that tests can look at."""

from events.handover import Handover
from events.transaction import Transaction


class RecordedHandover(Handover):
    """Keeps every transaction that it hands over."""

    def __init__(self) -> None:
        super().__init__()
        self.transactions: list[Transaction] = []

    def hand_over(self, tx: Transaction) -> None:
        self.transactions.append(tx)
        super().hand_over(tx)
