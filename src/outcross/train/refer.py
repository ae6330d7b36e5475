"""What a reference model thinks of examples whose loss compares with it: asked once per fit and distinct answer."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

from outcross.errors import ModelError
from outcross.stages import LogProbs, Model
from outcross.train.forward import Text
from outcross.train.losses import PAIRED, refers
from outcross.train.rows import Encoder, Rows, text_of
from outcross.train.scores import Key, Scores
from outcross.types import Completion, Content, Example, Turn, content_hash


class Referee:
    """Asks `reference` about the rows of one chunk after the other, and gives those of "kto" an answer to another prompt.

    Which answer stands beside a row of "kto" is the next such row's with another prompt (arXiv:2402.01306 §4.1), or at the end of a chunk
    an earlier one's; rows wait until there is one. An answer that several rows of a chunk share, as all pairs of a task's answers do, is scored once,
    and one that `scores` holds not again.
    """

    def __init__(self, encoder: Encoder, max_length: int, reference: Model | None, scores: Scores | None = None) -> None:
        self._encoder, self._max_length, self._reference, self._scores = encoder, max_length, reference, scores
        self._earlier: list[Example] = []  # at most two of "kto", of different prompts: partners of a chunk's last rows
        self._waiting: list[tuple[int, Example]] = []  # rows of "kto", all of one prompt, that have no partner yet

    def ask(self, rows: Rows, kept: Sequence[tuple[int, Example]]) -> None:
        """Fill `rows.references`, and `rows.others` for "kto". Raises `ModelError` without a reference that scores text and reads it alike."""
        asked = [*self._waiting, *((row, example) for row, example in kept if refers(example.loss))]
        if not asked:
            return
        if not isinstance(self._reference, LogProbs):
            raise ModelError("a loss of this fit looks at a reference model; say `reference: first` or `champion` where the role learns")
        beside: dict[int, Content] = {row: example.rejected or "" for row, example in asked if example.loss.name in PAIRED}
        single = [(row, example) for row, example in asked if example.loss.name == "kto"]
        self._waiting = []
        if single and len({example.prompt for example in (*self._earlier, *(example for _, example in single))}) < 2:
            self._waiting, asked = single, [(row, example) for row, example in asked if example.loss.name != "kto"]
        elif single:
            beside |= self._strangers(rows, single)
        turns: dict[int, Turn] = {}  # of a row, and under ~row of the answer beside it
        for row, example in asked:
            turns[row] = Turn(example.prompt, Completion(example.completion, example.tokens))
            if row in beside:
                turns[~row] = Turn(example.prompt, Completion(beside[row]))
        found = self._scored(self._reference, turns)
        for row, example in asked:
            own, other = found[row], found[~row] if row in beside else array("f")
            expected = (rows.tokens(row), len(rows.others[row].ids) - rows.others[row].start if row in beside else 0)
            if (len(own), len(other)) != expected:
                raise ModelError(
                    f"the reference reads example {example.id} as {len(own)} and {len(other)} tokens, the model that learns as "
                    f"{expected[0]} and {expected[1]}; take a reference with the same tokenizer"
                )
            rows.references[row] = (own, other)

    def _scored(self, reference: LogProbs, turns: Mapping[int, Turn]) -> dict[int, array[float]]:
        """Of each turn the log-probabilities of its completion's tokens; of equal ones once."""
        keys = {name: _key(reference, turn) for name, turn in turns.items()}
        found = {} if self._scores is None else dict(self._scores.read(set(keys.values())))
        asked = {key: turns[name] for name, key in keys.items() if key not in found}
        scored = {key: array("f", numbers) for key, numbers in zip(asked, reference.log_probs(asked.values()), strict=True)}
        if self._scores is not None and scored:
            self._scores.add(scored)
        found |= scored
        return {name: found[key] for name, key in keys.items()}

    def finish(self) -> None:
        """Raises `ModelError` if rows of "kto" never met another prompt."""
        if self._waiting:
            raise ModelError(
                f"the loss 'kto' compares with answers to other prompts, and example {self._waiting[0][1].id} has the only prompt; give at least 2"
            )

    def _strangers(self, rows: Rows, single: Sequence[tuple[int, Example]]) -> dict[int, Content]:
        """The answer of another prompt for each row of "kto"; none where the two are longer than `max_length`."""
        partners: list[Example] = []
        following: list[Example] = []  # the nearest rows of two different prompts, of those that come after
        for example in reversed([*(example for _, example in single), *self._earlier, *(example for _, example in single)]):
            partners.append(next((item for item in following if item.prompt != example.prompt), example))
            following = [example, *(item for item in following if item.prompt != example.prompt)][:2]
        partners = partners[::-1][: len(single)]
        self._earlier = following
        prompts = self._encoder.prompts([example.prompt for _, example in single])
        answers = self._encoder.completions([text_of(partner, partner.completion) for partner in partners])
        found: dict[int, Content] = {}
        for (row, _), prompt, said, partner in zip(single, prompts, answers, partners, strict=True):
            if (length := len(prompt) + len(said)) <= self._max_length:
                rows.others[row], found[row] = Text(array("i", [*prompt, *said]), len(prompt)), partner.completion
                rows.longest = max(rows.longest, length)
        return found


def _key(reference: Model, turn: Turn) -> Key:
    drawn = turn.completion.tokens
    return bytes.fromhex(content_hash(reference.id, turn.prompt, turn.completion.content, *((drawn,) if drawn else ())))
