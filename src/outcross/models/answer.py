"""Requests to responses: what each request asks for becomes rows to draw or texts to score, and comes back together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from outcross.errors import ModelError
from outcross.models.beams import best, refusal
from outcross.models.cache import bytes_per_token, can_share
from outcross.models.sampler import Batch, Drawn, Row
from outcross.models.score import context_length, score, scored
from outcross.models.tokens import Tokens
from outcross.train.forward import CPU_BYTES, Text, is_out_of_memory
from outcross.types import Completion, Request, Response, Usage

MOST_ROWS = {"cpu": 128, "cuda": 1024}  # beyond these a bigger batch gains nothing


@dataclass(eq=False)
class Job:
    """A request under way: its prompt as ids, the log-probabilities of its prefix, and what is done so far."""

    request: Request
    future: Future[Response]
    prompt: list[int]
    prefix_log_probs: list[float] = field(default_factory=list)
    done: dict[int, Completion] = field(default_factory=dict)
    sums: dict[int, float] = field(default_factory=dict)  # log-probability of each choice scored so far
    drawn: int = 0

    def add(self, sample: int, completion: Completion, drawn: int) -> None:
        """Keep a completion of which `drawn` tokens are new; the last one of the request resolves the future."""
        self.done[sample] = completion
        self.drawn += drawn
        if len(self.done) == self.request.n:
            usage = Usage(len(self.prompt) + len(self.request.prefix), self.drawn)
            self.future.set_result(Response(tuple(self.done[i] for i in range(self.request.n)), usage))


class Answerer:
    """Answers requests with one model. Not thread-safe: the model's owner holds a lock."""

    def __init__(self, model: Any, tokens: Tokens, sample_batch: int | None) -> None:
        self.model, self.tokens, self.sample_batch = model, tokens, sample_batch
        self.context = context_length(model.config)

    def answer(self, pending: Sequence[tuple[Request, Future[Response]]]) -> None:
        """Resolve every future, as soon as its own answer is complete: with a response, with a response that says why
        there is none, or with an exception. Whatever interrupts the work is raised again; what was complete stays."""
        pending = [(request, future) for request, future in pending if future.set_running_or_notify_cancel()]
        try:
            jobs = self._jobs(pending)
            with torch.inference_mode():
                self._choose([job for job in jobs if job.request.choices])
                self._search([job for job in jobs if not job.request.choices and job.request.sampling.beams > 1])
                self._complete([job for job in jobs if not job.request.choices and job.request.sampling.beams <= 1])
        except BaseException as error:
            broken = isinstance(error, Exception)
            reason = error if broken else ModelError("drawing was interrupted before this answer was complete; ask again")
            for _, future in pending:
                if not future.done():
                    future.set_exception(reason)
            if not broken:
                raise

    def _jobs(self, pending: Sequence[tuple[Request, Future[Response]]]) -> list[Job]:
        jobs = []
        for (request, future), prompt in zip(pending, self._prompts([request for request, _ in pending]), strict=True):
            problem = prompt if isinstance(prompt, str) else self._problem(request, len(prompt))
            if problem or isinstance(prompt, str):
                future.set_result(Response(error=problem))
            else:
                jobs.append(Job(request, future, prompt))
        return jobs

    def _prompts(self, requests: Sequence[Request]) -> list[list[int] | str]:
        """Ids of each prompt, or why it has none."""
        try:
            return list(self.tokens.prompts([request.prompt for request in requests]))
        except ModelError as error:
            if len(requests) == 1:
                return [str(error)]
        return [found for request in requests for found in self._prompts([request])]

    def _problem(self, request: Request, prompt: int) -> str:
        """Why a request cannot be answered, or the empty text."""
        if request.schema is not None or request.tools is not None:
            return "this local model takes neither a JSON schema nor tools; ask an endpoint, or check the answer with a verifier"
        if request.n < 1 or (request.sampling.max_tokens < 1 and not request.choices):
            return f"asked for {request.n} completions of at most {request.sampling.max_tokens} tokens; both must be at least 1"
        if request.sampling.beams > 1 and (problem := refusal(request)):
            return problem
        used = prompt + len(request.prefix)
        if used >= self.context:
            return (
                f"the prompt has {used} tokens (prefix included), the model's context {self.context}: no room to answer; shorten the prompt"
            )
        return ""

    def _choose(self, jobs: list[Job]) -> None:
        """Score the choices of each request as continuations of its prompt and prefix."""
        texts, owners = [], []
        for job in jobs:
            given = [*job.prompt, *job.request.prefix]
            mine = [Text([*given, *ids], len(given)) for ids in self.tokens.texts(job.request.choices)]
            longest = max(len(text.ids) for text in mine)
            if longest > self.context:
                job.future.set_result(Response(error=f"prompt and choice have {longest} tokens, the model's context is {self.context}"))
                continue
            texts += mine
            owners += [(job, place) for place in range(len(mine))]
        for index, values in scored(self.model, texts, self.sample_batch):
            job, place = owners[index]
            job.sums[place] = sum(values)
            if len(job.sums) == len(job.request.choices):
                sums = tuple(job.sums[at] for at in range(len(job.sums)))
                for sample in range(job.request.n):
                    job.add(sample, Completion("", choice_log_probs=sums), 0)

    def _search(self, jobs: list[Job]) -> None:
        """The most likely completions of each request, by beam search."""
        self._score_prefixes([job for job in jobs if job.request.prefix])
        rows = {job: waiting[0] for job in jobs if (waiting := self._rows(job))}
        slots = self._slots(list(rows.values()))
        for job, found in best(self.model, rows, self.tokens.end_ids, slots):
            for sample, drawn in enumerate(found[: job.request.n]):
                job.add(sample, self._completion(job, drawn), len(drawn.tokens))

    def _complete(self, jobs: list[Job]) -> None:
        """Draw the completions of each request. Memory that runs out halves the batch; rows already drawn stay."""
        self._score_prefixes([job for job in jobs if job.request.prefix])
        owners = {row: job for job in jobs for row in self._rows(job)}
        left = dict(owners)
        slots = self._slots(list(owners))

        def emit(row: Row, drawn: Drawn) -> None:
            owners[row].add(row.sample, self._completion(owners[row], drawn), len(drawn.tokens))
            del left[row]

        while left and not self._draw(list(left), slots, emit):
            if slots == 1:
                raise ModelError("out of memory while drawing a single completion; shorten the prompt or lower max_tokens")
            slots = max(1, min(slots, len(left)) // 2)
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()

    def _draw(self, rows: list[Row], slots: int, emit: Callable[[Row, Drawn], None]) -> bool:
        """Draw rows, `slots` at once; false if memory ran out on the way."""
        tokens = self.tokens
        try:
            Batch(self.model, rows, slots, end_ids=tokens.end_ids, text=tokens.decode, pieces=lambda: tokens.pieces).run(emit)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    def _score_prefixes(self, jobs: list[Job]) -> None:
        texts = [Text([*job.prompt, *job.request.prefix], len(job.prompt)) for job in jobs]
        for job, found in zip(jobs, score(self.model, texts, self.sample_batch), strict=True):
            job.prefix_log_probs = found

    def _rows(self, job: Job) -> list[Row]:
        """A row per completion; none, and the completions as they stand, if the prefix has ended already."""
        request = job.request
        if request.prefix and request.prefix[-1] in self.tokens.end_ids:
            for sample in range(request.n):
                job.add(sample, self._completion(job, Drawn((), (), finished=True)), 0)
            return []
        ids = (*job.prompt, *request.prefix)
        limit = min(request.sampling.max_tokens, self.context - len(ids))
        return [Row(ids, limit, request.sampling, request.seed, sample, request.prefix) for sample in range(request.n)]

    def _completion(self, job: Job, drawn: Drawn) -> Completion:
        tokens = (*job.request.prefix, *drawn.tokens)
        text = self.tokens.decode(tokens)
        log_probs = (*job.prefix_log_probs, *drawn.log_probs)
        if any(math.isnan(value) for value in log_probs):
            raise ModelError("the model's probabilities are not numbers (NaN): its weights are damaged; use an earlier checkpoint")
        return Completion(text[: drawn.cut], tokens, log_probs, finished=drawn.finished)

    def _slots(self, rows: list[Row]) -> int:
        """How many rows to draw at once."""
        if not rows:
            return 1
        if not can_share(self.model.config):
            return 1
        if self.sample_batch:
            return self.sample_batch
        kind = self.model.device.type
        budget = torch.cuda.get_device_properties(self.model.device).total_memory // 3 if kind == "cuda" else CPU_BYTES
        longest = max(len(row.ids) + row.limit for row in rows)
        element = self.model.dtype.itemsize
        vocabulary = 16 * self.model.config.get_text_config().vocab_size
        return int(max(1, min(MOST_ROWS.get(kind, 256), budget // (longest * bytes_per_token(self.model.config, element) + vocabulary))))
