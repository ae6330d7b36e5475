"""Whether a group gets lost: its share among answers against real ones, and how well the worst-served group is answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from outcross.errors import ConfigError, StageError
from outcross.evaluate.statistics import half_samples
from outcross.evaluate.undecided import refuse_undecided, why_undecided
from outcross.evaluate.vectors import about_the_value, answered
from outcross.stages import Context, Generator, Role, Stage, Verifier, calls_of
from outcross.types import Content, Example, Ground, Measurement, Task

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SubgroupShares(Stage):
    """Of the subgroup that fared worst, its share among the model's answers over its share among real ones, less one: 0 when all groups are as
    frequent as among real ones, −1 when one is gone.

    group: the group of a content, answers and real ones alike, so that what it gets wrong it gets wrong on both; None for those that belong to
        none and do not count. reference: real examples, all of which are counted.
    least: answers that are expected of a group, at least, for it to be looked at: the share of a rarer one is mostly chance.

    The statistic is the plug-in minimum, one answer an item; even answers like the real ones have a minimum below 0, by the chance of the
    rarest group. The gate (unit "… over real") asks that the candidate is not below the lower of 0 and the other model, whose
    minimum has the same bias, by more than the margin. Replicates are half samples of the items, about the value. Which group is worst,
    `shares_over_real` tells.
    """

    tasks: Iterable[Task]
    generator: Generator
    reference: Iterable[Example]
    group: Callable[[Content], str | None]
    least: int = 10
    margin: float = 0.3
    replicates: int = 300
    label: str = ""
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "diversity"
    ground: ClassVar[Ground] = "exact"

    @property
    def name(self) -> str:
        return "_".join(filter(None, ("subgroup_shares", self.label)))

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return self.generator.roles

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return self.generator.calls(tasks)

    def __call__(self, ctx: Context, /) -> Measurement:
        tasks = list(self.tasks)
        real = Counter(self.group(row.completion) for row in self.reference)
        del real[None]
        total = sum(real.values())
        wanted = {name: count / total for name, count in real.items() if name is not None and count * len(tasks) >= self.least * total}
        if not wanted:
            raise ConfigError(
                f"{self.name}: of {len(tasks):,} answers, no group of the {total:,} real examples with one is expected {self.least:,} times or "
                "more; give more tasks, a smaller `least`, or a `group` that names fewer groups"
            )
        found = answered(self.name, ctx, self.generator, tasks)
        groups = [None if content is None else self.group(content) for content in found.contents]
        over = shares_over_real(groups, wanted, half_samples(found.items, self.replicates)).min(axis=1)
        return Measurement(self.name, found.items, (float(over[0]),), about_the_value(over), unit="share over real")


@dataclass(frozen=True)
class WorstGroup(Stage):
    """The pass rate on the subgroup of tasks that is answered worst, among those with `least` tasks or more.

    The statistic is the plug-in minimum over groups of the mean share of an item's samples that pass, with the bias of a minimum: it is
    below the true one, by about a standard error of the smaller groups where they are equal, for every model alike. A loss in a group
    that does not become the worst is not seen: give such a group a `pass_rate` of its own. Replicates are half samples of each group's items, so that
    each holds half of every group, about the value. An item without a verdict counts for nothing; more than 5 % of them raise
    `StageError`. Which group is worst, `rates_by_group` tells.
    """

    tasks: Iterable[Task]
    generator: Generator
    verifier: Verifier
    least: int = 20
    margin: float = 0.1
    replicates: int = 300
    label: str = ""
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "quality"

    @property
    def name(self) -> str:
        return "_".join(filter(None, ("worst_group", self.label)))

    @property
    def ground(self) -> Ground:
        return self.verifier.ground

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys((*self.generator.roles, *self.verifier.roles)))

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return Counter(self.generator.calls(tasks)) + Counter(calls_of(self.verifier, tasks, getattr(self.generator, "n", 1)))

    def __call__(self, ctx: Context, /) -> Measurement:
        import numpy as np

        tasks = list(self.tasks)
        sizes = Counter(task.subgroup for task in tasks if task.subgroup is not None)
        if not any(size >= self.least for size in sizes.values()):
            raise ConfigError(
                f"{self.name}: no subgroup has {self.least:,} tasks; the largest are {dict(sizes.most_common(3))}. Give tasks a `subgroup`, more "
                "tasks, or a smaller `least`"
            )
        looked_at = [task for task in tasks if task.subgroup is not None and sizes[task.subgroup] >= self.least]
        found: dict[str, float] = {}
        undecided: list[tuple[str, str]] = []
        for group in self.verifier(ctx, self.generator(ctx, looked_at)):
            verdicts = Counter(sample.verdict for sample in group.samples)
            decided = verdicts["pass"] + verdicts["fail"]
            found[group.task.id] = verdicts["pass"] / decided if decided else np.nan
            if not decided:
                undecided.append((group.task.id, why_undecided(group)))
        items, groups = [task.id for task in looked_at], [str(task.subgroup) for task in looked_at]
        if found.keys() != set(items):
            raise StageError(
                f"{self.name}: {len(set(items)):,} tasks were asked and {len(found):,} came back; each needs one group of its own"
            )
        refuse_undecided(self.name, undecided, len(found))
        rates = rates_by_group([found[item] for item in items], groups, halves_of_groups(items, groups, self.replicates))
        least = np.nanmin(np.stack(list(rates.values())), axis=0)
        return Measurement(self.name, tuple(items), (float(least[0]),), about_the_value(least), unit="pass rate")


def shares_over_real(groups: Sequence[str | None], real: Mapping[str, float], subsets: Flags) -> Floats:
    """Each group's share among the items of each subset over its real share, less one: (subsets, groups), in the order of `real`. Items of
    group None do not count."""
    import numpy as np

    member = np.array([[group == name for group in groups] for name in real], dtype=np.float64)
    counted = subsets @ np.array([group is not None for group in groups], dtype=np.float64)
    found: Floats = (subsets @ member.T) / np.maximum(counted, 1)[:, None] / np.array(list(real.values())) - 1
    return found


def rates_by_group(values: Sequence[float], groups: Sequence[str], subsets: Flags) -> dict[str, Floats]:
    """The mean value of each group's items in each subset, without those that are NaN; NaN where none is left."""
    import numpy as np

    given = np.array(values, dtype=np.float64)
    found: dict[str, Floats] = {}
    for name in sorted(set(groups)):
        inside = subsets & np.array([group == name for group in groups]) & ~np.isnan(given)
        count = inside.sum(axis=1)
        sums = inside @ np.nan_to_num(given)
        found[name] = np.where(count > 0, sums / np.maximum(count, 1), np.nan)
    return found


def halves_of_groups(items: Sequence[str], groups: Sequence[str], replicates: int) -> Flags:
    """All items in row 0, then half samples that hold half of each group."""
    import numpy as np

    found = np.zeros((replicates + 1, len(items)), dtype=np.bool_)
    for name in sorted(set(groups)):
        places = [index for index, group in enumerate(groups) if group == name]
        found[:, places] = half_samples([items[index] for index in places], replicates)
    return found
