"""What each round trains on. In the first round every regime trains on real data alone, because the first model is the real law."""

from __future__ import annotations

from dataclasses import dataclass

from outcross.errors import ConfigError


@dataclass(frozen=True)
class Replace:
    """`size` draws of the last model and nothing else (Shumailov et al., Nature 631:755: α = 1, β = γ = 0)."""


@dataclass(frozen=True)
class Grow:
    """Draws of the last model and nothing else, `size` · t^`power` of them in round t (Gerstgrasser et al., arXiv:2404.01413, App. E)."""

    power: int = 1

    def size(self, size: int, number: int) -> int:
        """Rows of round `number`, counted from 1."""
        return size * int(number**self.power)


@dataclass(frozen=True)
class Accumulate:
    """The real data and all draws of all models so far: t · `size` rows in round t (Gerstgrasser et al.)."""


@dataclass(frozen=True)
class Subsample:
    """`size` rows drawn without replacement from what `Accumulate` would use (Kazdan et al., arXiv:2410.16713)."""


@dataclass(frozen=True)
class _Mixed:
    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"share is {self.share}; it must lie between 0 and 1: the real part of a round's rows")

    def real(self, size: int) -> int:
        """Real rows among `size`."""
        return round(self.share * size)


@dataclass(frozen=True)
class Fresh(_Mixed):
    """`share` of the rows are new real data in every round (the fresh data loop of Alemohammad et al., arXiv:2307.01850)."""


@dataclass(frozen=True)
class Fixed(_Mixed):
    """`share` of the rows are the same real data in every round (their synthetic augmentation loop)."""


Regime = Replace | Grow | Accumulate | Subsample | Fresh | Fixed
