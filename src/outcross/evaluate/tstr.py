"""What generated images teach: a classifier that learns from them and is tested on real ones, and the other way round.

Three probes, and the comparison with its control behind them: real rows alone, real rows with as many synthetic ones, and real rows with as many
copies of real rows. The last one sees as many rows in as many steps, so that what synthetic rows are worth is what they add to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, Self, cast

from outcross.errors import ConfigError
from outcross.evaluate.vectors import answered
from outcross.images import class_of
from outcross.stages import Completes, Context, FitPlan, Generator, Role, Stage, Trainable
from outcross.types import Array, Example, Ground, Loss, Measurement, Origin, Request, Task, content_hash

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

OWN = Loss("own")
PLAN = FitPlan(lr=1e-3, epochs=5, batch=64, warmup=0.05)


class Learner(Trainable, Completes, Protocol):
    """A classifier that can be taught anew: it says the log-probability of each of a request's choices, of which the prompt is an image."""

    def fresh(self, seed: int, /) -> Self: ...


@dataclass(frozen=True)
class Teaching:
    """How a classifier is taught: `plan`, and how often, each time from other untrained weights; what came out is averaged, so that chance in
    training is not taken for the data's."""

    plan: FitPlan = PLAN
    seeds: int = 3

    def right(self, classifier: Learner, rows: Sequence[Example], tested: Sequence[tuple[Array, str]]) -> Floats:
        """The share of the trainings on `rows` after which each tested image is taken for its class, (images,)."""
        return self.results(classifier, rows, tested).right

    def results(self, classifier: Learner, rows: Sequence[Example], tested: Sequence[tuple[Array, str]]) -> Results:
        """What classifiers that are taught on `rows` say of the tested images."""
        import numpy as np

        classes = tuple(dict.fromkeys(kind for _, kind in tested))
        truth = np.array([classes.index(kind) for _, kind in tested])
        right, chance = np.zeros(len(tested)), np.zeros(len(tested))
        for seed in range(self.seeds):
            taught = classifier.fresh(seed).fit(rows, plan=self.plan, reference=None, seed=seed, seen=lambda step, ids, **facts: None)
            scores = np.array(_said(taught, tested, classes))
            taught.close()
            right += scores.argmax(axis=1) == truth
            probs = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))
            chance += probs[np.arange(len(truth)), truth]
        return Results(right / self.seeds, chance / self.seeds)


@dataclass(frozen=True)
class Results:
    """Of each tested image, averaged over trainings: how often it is taken for its class, and the probability that its class is given."""

    right: Floats
    chance: Floats


def _said(taught: Completes, tested: Sequence[tuple[Array, str]], classes: tuple[str, ...]) -> list[Sequence[float]]:
    asked = [taught.submit(Request(image, choices=classes)) for image, _ in tested]
    taught.flush()
    found: list[Sequence[float]] = []
    for future in asked:
        response = future.result()
        if response.error:
            raise ConfigError(f"the classifier did not say what an image shows: {response.error}")
        found.append(response.completions[0].choice_log_probs)
    return found


@dataclass(frozen=True)
class TrainSyntheticTestReal(Stage):
    """The share of real test images that a classifier puts right which learnt from the policy's images alone (TSTR: Esteban et al.,
    arXiv:1706.02633), per image.

    tasks: what the policy is asked for; the class of a task is that of its prompt. test: real images that nothing was taught on.
    classifier: the role of a model that can be taught anew; it is not changed. High only if images are right for their class and varied.
    """

    tasks: Iterable[Task]
    generator: Generator
    test: Iterable[Example]
    teaching: Teaching = Teaching()
    classifier: Role = "classifier"
    margin: float = 0.05
    label: str = ""
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "quality"
    ground: ClassVar[Ground] = "trained"

    @property
    def name(self) -> str:
        return "_".join(filter(None, ("train_synthetic_test_real", self.label)))

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys((*self.generator.roles, self.classifier)))

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return self.generator.calls(tasks)

    def __call__(self, ctx: Context, /) -> Measurement:
        test = list(self.test)
        made = synthetic(self.name, ctx, self.generator, self.tasks)
        values = self.teaching.right(learner(self.name, ctx, self.classifier), made, images(self.name, test))
        return Measurement(self.name, tuple(row.id for row in test), tuple(map(float, values)), unit="share")


@dataclass(frozen=True)
class TrainRealTestSynthetic(Stage):
    """The share of the policy's images that a classifier takes for what was asked which learnt from real ones (TRTS), per task.

    High if images are right for their class, be they ever so alike: it is no measure of variety.
    """

    tasks: Iterable[Task]
    generator: Generator
    real: Iterable[Example]
    teaching: Teaching = Teaching()
    classifier: Role = "classifier"
    margin: float = 0.05
    label: str = ""
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "quality"
    ground: ClassVar[Ground] = "trained"

    @property
    def name(self) -> str:
        return "_".join(filter(None, ("train_real_test_synthetic", self.label)))

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys((*self.generator.roles, self.classifier)))

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return self.generator.calls(tasks)

    def __call__(self, ctx: Context, /) -> Measurement:
        made = synthetic(self.name, ctx, self.generator, self.tasks)
        values = self.teaching.right(learner(self.name, ctx, self.classifier), list(self.real), images(self.name, made))
        return Measurement(self.name, tuple(row.origin.parents[0] for row in made), tuple(map(float, values)), unit="share")


@dataclass(frozen=True)
class SyntheticOverDuplicates(Stage):
    """By how much more real test images a classifier puts right when the policy's images are added to the real ones than when as many copies
    of real ones are, per image: what synthetic data is worth beyond more steps on the data there is. Negative: it does harm.

    The copies have the classes of the images that they stand for. Values are from −1 to 1.
    """

    tasks: Iterable[Task]
    generator: Generator
    real: Iterable[Example]
    test: Iterable[Example]
    teaching: Teaching = Teaching()
    classifier: Role = "classifier"
    margin: float = 0.05
    label: str = ""
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "quality"
    ground: ClassVar[Ground] = "trained"

    @property
    def name(self) -> str:
        return "_".join(filter(None, ("synthetic_over_duplicates", self.label)))

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys((*self.generator.roles, self.classifier)))

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return self.generator.calls(tasks)

    def __call__(self, ctx: Context, /) -> Measurement:
        real, test = list(self.real), list(self.test)
        made, tested = synthetic(self.name, ctx, self.generator, self.tasks), images(self.name, test)
        model = learner(self.name, ctx, self.classifier)
        with_made = self.teaching.right(model, [*real, *made], tested)
        with_copies = self.teaching.right(model, [*real, *duplicates(real, made)], tested)
        return Measurement(
            self.name, tuple(row.id for row in test), tuple(map(float, with_made - with_copies)), unit="share over duplicates"
        )


# ── the comparison ─────────────────────────────────────────────────────────────────────────────────────────────────────
ARMS = ("real", "synthetic", "real + duplicates", "real + synthetic")


def arms(
    classifier: Learner, real: Sequence[Example], made: Sequence[Example], test: Sequence[Example], teaching: Teaching
) -> dict[str, Results]:
    """By training set, of `ARMS`, what became of the test images."""
    tested = images("arms", test)
    rows = {"real": real, "synthetic": made, "real + duplicates": [*real, *duplicates(real, made)], "real + synthetic": [*real, *made]}
    return {name: teaching.results(classifier, rows[name], tested) for name in ARMS}


def duplicates(real: Sequence[Example], made: Sequence[Example]) -> list[Example]:
    """As many real rows of each class as `made` has, each as often as any other of its class, up to one. Raises `ConfigError` for a class
    without real rows."""
    by_class: dict[str, list[Example]] = {}
    for row in real:
        by_class.setdefault(class_of(row.prompt), []).append(row)
    taken: dict[str, int] = {}
    found = []
    for row in made:
        kind = class_of(row.prompt)
        if kind not in by_class:
            raise ConfigError(f"there are synthetic images of the class {kind!r} and no real one to copy; give real images of every class")
        place = taken[kind] = taken.get(kind, -1) + 1
        found.append(by_class[kind][place % len(by_class[kind])])
    return found


@dataclass(frozen=True)
class Share:
    """The mean over the test items of one subgroup ("all": every item; "classes": the mean of the classes' means), with a 95 % interval."""

    subgroup: str
    items: int
    mean: float
    low: float
    high: float


def by_subgroup(test: Sequence[Example], values: Floats) -> list[Share]:
    """Means of values, one a test item, overall, averaged over subgroups, and of each subgroup, with normal intervals over items: trainings are
    taken as given. For the difference of two arms, pass the difference of their values, which pairs them by item."""
    import numpy as np

    names = np.array([row.subgroup or "" for row in test])
    groups = [(name, values[names == name]) for name in sorted(set(names.tolist()))]
    rows = [_share(name, len(own), float(own.mean()), _error(own)) for name, own in groups]
    mean = sum(row.mean for row in rows) / len(rows)
    error = float(np.sqrt(sum(_error(own) ** 2 for _, own in groups))) / len(rows)
    return [_share("all", len(values), float(values.mean()), _error(values)), _share("classes", len(values), mean, error), *rows]


def _share(name: str, items: int, mean: float, error: float) -> Share:
    return Share(name, items, mean, mean - 1.96 * error, mean + 1.96 * error)


def _error(values: Floats) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("inf")


def auroc(results: Results, positive: npt.NDArray[np.bool_]) -> float:
    """The chance that an image of the positive one of two classes is given more of it than one of the other: what is told apart whatever
    the threshold, which a change in the share of a class among training rows moves. Ties count half."""
    import numpy as np
    from scipy.stats import rankdata

    ranks = rankdata(np.where(positive, results.chance, 1 - results.chance))
    count = int(positive.sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))


# ── rows ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def synthetic(probe: str, ctx: Context, generator: Generator, tasks: Iterable[Task]) -> list[Example]:
    """The first image drawn for each task, as rows to learn from. Raises `StageError` when more than 5 % of the tasks have none."""
    known = list(tasks)
    found = answered(probe, ctx, generator, known)
    return [
        Example(
            content_hash(probe, task.id), task.prompt, content, OWN, origin=Origin("synthetic", parents=(task.id,)), subgroup=task.subgroup
        )
        for task, content in zip(known, found.contents, strict=True)
        if content is not None
    ]


def images(probe: str, rows: Sequence[Example]) -> list[tuple[Array, str]]:
    """Image and class of each row. Raises `ConfigError` when there are none, or for a text."""
    found = [(row.completion, class_of(row.prompt)) for row in rows if isinstance(row.completion, Array)]
    if not found or len(found) < len(rows):
        raise ConfigError(f"{probe} tests a classifier on images, and {len(rows) - len(found)} of {len(rows)} rows hold none")
    return found


def learner(probe: str, ctx: Context, role: Role) -> Learner:
    """The model of a role, if it can be taught anew and asked. Raises `ConfigError`."""
    model = ctx.model(role)
    if not (isinstance(model, Trainable) and isinstance(model, Completes) and hasattr(model, "fresh")):
        raise ConfigError(f"{probe}: the model of role {role!r} cannot be taught anew; use image_classifier")
    return cast(Learner, model)
