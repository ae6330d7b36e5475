"""What probes over vectors share: one answer an item, as many real contents, and their vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, cast

from outcross.errors import ConfigError
from outcross.evaluate.undecided import refuse_undecided, why_undecided
from outcross.stages import Context, Embeds, Generator, Role
from outcross.types import Content, Example, Task, content_hash

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Answered:
    """One answer an item, None where its request failed. Several answers to one question are alike by right, so that only the first counts."""

    items: tuple[str, ...]
    contents: tuple[Content | None, ...]

    @property
    def given(self) -> tuple[Content, ...]:
        """The answers there are."""
        return tuple(content for content in self.contents if content is not None)

    @property
    def has(self) -> Flags:
        """Which items have an answer."""
        import numpy as np

        return np.array([content is not None for content in self.contents])


def answered(probe: str, ctx: Context, generator: Generator, tasks: Iterable[Task]) -> Answered:
    """The first answer to each task. Raises `StageError` when more than 5 % of the tasks have none."""
    items: list[str] = []
    contents: list[Content | None] = []
    failed: list[tuple[str, str]] = []
    for group in generator(ctx, tasks):
        items.append(group.task.id)
        contents.append(next((sample.content for sample in group.samples if not sample.error), None))
        if contents[-1] is None:
            failed.append((group.task.id, why_undecided(group)))
    refuse_undecided(probe, failed, len(items))
    return Answered(tuple(items), tuple(contents))


def real_contents(probe: str, tasks: Sequence[Task], reference: Iterable[Example] | None) -> list[Content]:
    """As many real contents as tasks: the first of `reference`, or the tasks' own answers. Raises `ConfigError` when there are fewer."""
    if reference is None:
        found: list[Content] = [task.answer for task in tasks if task.answer is not None]
    else:
        found = [example.completion for example in islice(reference, len(tasks))]
    if len(found) < len(tasks):
        raise ConfigError(
            f"{probe} compares {len(tasks):,} answers with real ones and has {len(found):,}; give its tasks answers, or pass as `reference` "
            f"at least {len(tasks):,} real examples, or fewer tasks"
        )
    return found


def embedding_model(probe: str, ctx: Context, role: Role) -> Embeds:
    """The model of this role. Raises `ConfigError` if it gives no vectors."""
    model = ctx.model(role)
    if not isinstance(model, Embeds):
        raise ConfigError(f"{probe}: the model of role {role!r} does not embed; use embedder, hashed_embedder or an endpoint that does")
    return model


def vectors(model: Embeds, contents: Sequence[Content]) -> Floats:
    """One row a content, (contents, width), as the model gives them; in float64, so that equal contents have distance 0."""
    import numpy as np

    if not contents:
        return np.zeros((0, 1))
    # The protocol speaks of texts. A model of arrays takes arrays by the same method, and one of texts refuses them by name.
    shown = cast(Iterator[str], (content or " " for content in contents))  # endpoints refuse the empty text
    rows = [np.asarray(vector, dtype=np.float32) for vector in model.embed(shown)]
    return np.stack(rows).astype(np.float64)


def four_fifths(items: Sequence[str], replicates: int) -> Flags:
    """All items in row 0, then `replicates` random four fifths of them, which depend on the items alone and so pair two models.

    The spread of a statistic over them, twice, is its standard error on the whole (the delete-d jackknife: Shao & Wu, Annals of Statistics
    17, 1989, 1176–1197). Half samples thin a cloud so much that points near the edge of a neighbourhood fall out of it: where coverage
    is almost full, their spread is three times the standard error and more, that of four fifths about twice; elsewhere both are near it.
    """
    import numpy as np

    # The stream of RandomState is the one that no release of numpy changes.
    rng = np.random.RandomState(np.frombuffer(bytes.fromhex(content_hash("four fifths", tuple(items))), dtype="<u4"))
    drawn = rng.random_sample((replicates, len(items)))
    kept = drawn >= np.sort(drawn, axis=1)[:, [len(items) // 5]]
    return np.concatenate([np.ones((1, len(items)), dtype=np.bool_), kept])


def about_the_value(values: Floats, stretch: float = 1.0) -> tuple[float, ...]:
    """Replicates of `values`[0] from those of smaller samples behind it, which lie elsewhere because fewer items have another value: only
    their spread, times `stretch`, speaks of all items."""
    spread = (values[1:] - values[1:].mean()) * stretch + values[0]
    return tuple(map(float, spread))
