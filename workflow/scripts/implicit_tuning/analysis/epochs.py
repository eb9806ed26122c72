"""The choice of the number of epochs on the validation set (paper, section 3)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from implicit_tuning.analysis.statistics import Annotations, SeedMean, difference, summarise


@dataclass(frozen=True)
class Choice:
    """The number of epochs that was chosen, and by how much it won.

    Attributes:
        win_rates: of every candidate, in percent, against the validation set's reference answers.
        runner_up: the best of the others, None where there is no other.
        margin: the chosen one's win rate less the runner-up's, in points, paired by instruction.
    """

    epochs: int
    win_rates: Mapping[int, float]
    runner_up: int | None
    margin: SeedMean | None

    def facts(self) -> dict[str, object]:
        """The choice for a manifest, which sorts its keys: as JSON has them, texts."""
        rates = {str(epochs): rate for epochs, rate in self.win_rates.items()}
        return {**asdict(self), "win_rates": rates}


def choose_epochs(comparisons: Mapping[int, Annotations]) -> Choice:
    """Returns the number of epochs with the highest win rate; of equals the fewest.

    `comparisons` has the annotations of each candidate. Raises ValueError when there is none, or
    one of which no pair was judged.
    """
    if not comparisons:
        raise ValueError("there is no number of epochs to choose from")
    rates = {epochs: summarise(comparisons[epochs]).win_rate for epochs in sorted(comparisons)}
    best = max(rates, key=lambda epochs: (rates[epochs], -epochs))
    return Choice(best, rates, *margin_of(best, comparisons))


def margin_of(
    epochs: int, comparisons: Mapping[int, Annotations]
) -> tuple[int | None, SeedMean | None]:
    """Returns the best of the other numbers of epochs, and by how much `epochs` is above it.

    In points, paired by instruction; None and None where there is no other.
    """
    rates = {n: summarise(rows).win_rate for n, rows in comparisons.items() if n != epochs}
    if not rates:
        return None, None
    runner_up = max(rates, key=lambda n: (rates[n], -n))
    return runner_up, difference([comparisons[epochs]], [comparisons[runner_up]])
