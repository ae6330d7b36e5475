"""Several processes as one: rows shared out, gradients added up, and what one of them runs into."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_lm import SUMS, tiny
from torch import distributed
from torch.utils._python_dispatch import TorchDispatchMode

from outcross.errors import ConfigError, ModelError
from outcross.stages import FitPlan
from outcross.train import exchange
from outcross.train.encode import encode
from outcross.train.machine import Machine
from outcross.train.rows import Rows
from outcross.train.team import Deserted, Team, shares
from outcross.types import Example, Loss

MIXED = (
    *SUMS[:5],
    Example("w", "1+1=", "2", weight=(0.5, 2.0)),
    *(Example(f"g{i}", f"{i}+1=", "2" * (1 + i % 5), Loss("pg", 0.1), weight=0.5 - i % 2) for i in range(3)),
    Example("c", "1+2=", "3", Loss("pg", clip=0.2), weight=1.0, old_log_probs=(-1.0, -2.0)),
    *(Example(f"d{i}", f"{i}+{i}=", str(2 * i), Loss("dpo"), rejected="11" * (i % 3 + 1)) for i in range(1, 4)),
    *(Example(f"i{i}", f"{i}+{i}=", str(2 * i), Loss("ipo", 0.2, form="trl"), rejected="1") for i in range(1, 3)),
    *(Example(f"s{i}", f"{i}+2=", str(3 * i), Loss("sppo"), target=0.2 + 0.1 * i) for i in range(3)),
    *(Example(f"k{i}", f"{i}+3=", str(3 * i), Loss("kto"), target=float(i % 2)) for i in range(5)),
)


def together(size: int, work: Callable[[Team], Any], seed: int = 0) -> list[Future[Any]]:
    """What `size` threads, each one process of a team, came to."""
    store = distributed.HashStore()

    def one(rank: int) -> Any:
        group = distributed.ProcessGroupGloo(store, rank, size, timeout=timedelta(seconds=20))
        return work(Team(rank, size, group, seed))

    with ThreadPoolExecutor(size) as threads:
        return [threads.submit(one, rank) for rank in range(size)]


@given(st.lists(st.integers(1, 1000), max_size=40), st.integers(1, 6))
def test_rows_are_shared_out_once_and_evenly(lengths: list[int], size: int) -> None:
    found = shares(range(len(lengths)), size, lengths.__getitem__)
    assert sorted(row for share in found for row in share) == list(range(len(lengths)))
    loads = [sum(lengths[row] for row in share) for share in found]
    assert max(loads) - min(loads) <= max(lengths, default=0), "nobody has more than one row too many"


def test_one_process_says_nothing_to_anybody() -> None:
    team, parameter = Team(), torch.nn.Parameter(torch.ones(2))
    state = torch.get_rng_state()
    team.draw_anew(3)
    team.add_gradients([parameter])
    team.check_equal([parameter])
    assert team.mine([3, 1, 2], lambda row: row) == [3, 1, 2] and torch.equal(torch.get_rng_state(), state)
    assert float(team.added(torch.tensor(2.0))) == 2.0 and parameter.grad is None


def test_gradients_are_added_up_and_what_nobody_has_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outcross.train.team.BUCKET", 5)  # several buckets, and one parameter larger than any

    def work(team: Team) -> list[Any]:
        shapes = [(2, 2), (3,), (7,), (1,)]
        parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
        parameters.append(torch.nn.Parameter(torch.zeros(2, dtype=torch.float64)))
        frozen = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        for place, parameter in enumerate(parameters):
            if place != 3 and (place != 1 or team.rank == 1):  # the fourth: nobody's; the second: of one process alone
                parameter.grad = torch.full_like(parameter, 10.0**team.rank * (place + 1))
        team.add_gradients([*parameters, frozen])
        return [None if parameter.grad is None else parameter.grad.unique().tolist() for parameter in parameters]

    for future in together(3, work):
        assert future.result() == [[111.0], [20.0], [333.0], None, [555.0]]


def test_different_weights_are_noticed_to_the_last_bit() -> None:
    def work(team: Team) -> None:
        weights = torch.ones(1000)
        if team.rank == 1:
            weights[731] = torch.nextafter(weights[731], torch.tensor(2.0))
        team.check_equal([torch.zeros(3), weights])

    for future in together(2, work):
        assert isinstance(future.exception(), ModelError) and "different weights" in str(future.exception())
    assert [future.result() for future in together(2, lambda team: team.check_equal([torch.ones(4)]))] == [None, None]


class Largest(TorchDispatchMode):
    """The size in bytes of the largest tensor that is made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        made = {tensor.data_ptr() for tensor in args if isinstance(tensor, torch.Tensor)}
        if isinstance(found, torch.Tensor) and found.data_ptr() not in made:
            self.bytes = max(self.bytes, found.numel() * found.element_size())
        return found


def test_large_weights_are_compared_and_added_up_without_copies_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outcross.train.team.BUCKET", 64)
    monkeypatch.setattr("outcross.train.team.PIECE", 64)

    def work(team: Team) -> tuple[float, int]:
        weights = torch.nn.Parameter(torch.ones(100_000))
        weights.grad = torch.ones_like(weights)
        with Largest() as largest:
            team.add_gradients([weights])
            team.check_equal([weights])
        return float(weights.grad.mean()), largest.bytes

    assert [future.result() for future in together(2, work)] == [(2.0, 512)] * 2, "8 bytes for each of a piece"


def test_weights_in_other_places_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outcross.train.team.PIECE", 64)

    def work(team: Team) -> None:
        weights = torch.zeros(1000)
        weights[3 + 16 * team.rank] = 1.0  # the same place of another piece
        team.check_equal([weights])

    assert all(isinstance(future.exception(), ModelError) for future in together(2, work))


def test_all_begin_with_the_weights_of_the_first_and_draw_their_own_numbers() -> None:
    lock = threading.Lock()  # the generator is the process's

    def work(team: Team) -> tuple[list[float], list[float]]:
        parameter = torch.nn.Parameter(torch.full((2,), float(team.rank)))
        team.begin([parameter])
        with lock, torch.random.fork_rng():
            team.draw_anew(4)
            return parameter.tolist(), torch.rand(2).tolist()

    (first, drawn), (second, other) = (future.result() for future in together(2, work))
    assert first == second == [0.0, 0.0] and drawn != other
    assert [future.result()[1] for future in together(2, work)] == [drawn, other]


def test_who_is_left_alone_says_so() -> None:
    def work(team: Team) -> None:
        team.added(torch.ones(1))
        if team.rank == 0:
            team.added(torch.ones(1))

    alone, gone = together(2, work)
    assert isinstance(alone.exception(), Deserted) and gone.exception() is None


def encoded() -> Rows:
    model = tiny()
    return encode(MIXED, model._tokens, 64, tiny(seed=3))


def test_rows_come_through_the_folder_as_they_were(tmp_path: Any) -> None:
    rows = encoded()
    exchange.write_rows(tmp_path, rows)
    found = exchange.read_rows(tmp_path)
    rows.depth = found.depth = 0
    assert found.digest() == rows.digest() and found.losses == rows.losses
    assert [found.text(row) for row in range(len(found))] == [rows.text(row) for row in range(len(rows))]


def test_jobs_come_through_the_folder_as_they_were(tmp_path: Any) -> None:
    from outcross.train.machine import Lora
    from outcross.train.read_off import ReadOff

    job = exchange.Job(
        plan=FitPlan(lr=1e-3, shuffle=False), stop=("accuracy", 20, 3), seed=2**62 + 1, micro_batch=3, lora=Lora(targets=("a",)), task="SEQ_CLS", autocast=True,
        checkpointing=False, packing=True, device="cpu", dtype="float32", attention=None, threads=1, read_off=ReadOff(1, "log_odds"),
        progress=("folder", "fit", None),
    )  # fmt: skip
    exchange.write_job(tmp_path, job)
    assert exchange.read_job(tmp_path) == job
    first, other = exchange.progress(job, first=True), exchange.progress(job, first=False)
    assert first is not None and other is not None and first.path == other.path and other.seconds == float("inf")


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (Machine(device="cpu", processes=0), "machine.processes is 0; give a whole number from 1"),
        (Machine(device="cpu", processes=-2), "machine.processes is -2"),
    ],
)
def test_impossible_numbers_of_processes_are_refused_before_anything_is_loaded(machine: Machine, said: str) -> None:
    from tiny_lm import ALPHABET, LLAMA

    from outcross.models.torch_lm import from_config

    with pytest.raises(ConfigError, match=said):
        from_config(LLAMA, alphabet=ALPHABET, machine=machine)


@pytest.mark.parametrize(
    ("device", "count", "said"),
    [("cuda", 1, "2, one GPU each, and 1 are visible"), ("cuda:1", 4, "on the device 'cuda:1'"), ("mps", 0, "on the device 'mps'")],
)
def test_each_process_takes_a_gpu_of_its_own(device: str, count: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from outcross.train.forward import check_processes

    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(ConfigError, match=said):
        check_processes(Machine(processes=2), torch.device(device))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_processes(Machine(processes=2), torch.device("cuda"))
