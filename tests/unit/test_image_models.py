"""Models of images learn the modes they are shown, draw the same from equal seeds, and are kept as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import KINDS, SHAPE, ask, bars, drawn, ignore, rows

from outcross.errors import ConfigError, ModelError
from outcross.images import asking, intensities, packed
from outcross.models.diffusion import diffusion, kept_signal, posterior_mean, posterior_variance
from outcross.models.gan import gan
from outcross.models.image_classifier import image_classifier
from outcross.models.taught import taught
from outcross.models.vae import level_log_probs, vae
from outcross.stages import Completes, CountsTokens, Embeds, FitPlan, LogProbs, Trainable
from outcross.train.machine import Machine
from outcross.types import Completion, Content, Example, Loss, Origin, Request, Sampling, Turn

Make = Callable[[], Any]
MAKERS: dict[str, Make] = {
    "vae": lambda: vae(KINDS, shape=SHAPE, width=64, machine=Machine(device="cpu", threads=1)),
    "gan": lambda: gan(KINDS, shape=SHAPE, latent=8, width=16, machine=Machine(device="cpu", threads=1)),
    "diffusion": lambda: diffusion(KINDS, shape=SHAPE, width=16, steps=12, machine=Machine(device="cpu", threads=1)),
    "image_classifier": lambda: image_classifier(KINDS, shape=SHAPE, width=8, features=8, machine=Machine(device="cpu", threads=1)),
}
DRAWING = ("vae", "gan", "diffusion")
LONG = {
    "vae": FitPlan(lr=1e-2, epochs=40, batch=32),
    "gan": FitPlan(lr=2e-3, epochs=60, batch=32, schedule="constant"),
    "diffusion": FitPlan(lr=5e-3, epochs=40, batch=32),
    "image_classifier": FitPlan(lr=1e-2, epochs=6, batch=32),
}
SHORT = FitPlan(lr=1e-3, epochs=1, batch=16)
TWO = (0, 6)  # two modes a class: at one edge and at the other


@pytest.fixture(scope="module")
def learnt() -> Callable[[str], Any]:
    known: dict[str, Any] = {}

    def model(name: str) -> Any:
        if name not in known:
            known[name] = taught(MAKERS[name](), rows(256, places=TWO), plan=LONG[name], seed=1)
        return known[name]

    return model


def mode(content: Content) -> tuple[str, int]:
    """Which of the four bars an image is nearest to."""
    found = intensities(content)
    means = {(kind, place): np.mean([p / 255 for k, p in bars(200, 9, (place,)) if k == kind], axis=0) for kind in KINDS for place in TWO}
    return min(means, key=lambda name: float(((found - means[name]) ** 2).sum()))


@pytest.mark.parametrize("name", DRAWING)
def test_two_modes_that_are_far_apart_are_both_drawn_for_the_class_that_was_asked(name: str, learnt: Callable[[str], Any]) -> None:
    for kind in KINDS:
        modes = [mode(content) for content in drawn(learnt(name), kind, 60)]
        assert np.mean([found == kind for found, _ in modes]) > 0.85
        assert all(sum(found == (kind, place) for found in modes) > 9 for place in TWO)
    images = [intensities(content) for content in drawn(learnt(name), "across", 60)]
    assert np.mean([image.max() for image in images]) > 0.6 and np.mean([np.median(image) for image in images]) < 0.2


@pytest.mark.parametrize("name", DRAWING)
def test_an_image_depends_on_its_seed_and_number_alone(name: str) -> None:
    model = MAKERS[name]().fresh(3)
    requests = [Request(asking(KINDS[i % 2], str(i)), 3, seed=i) for i in range(30)]
    together = ask(model, *requests)
    assert together == [ask(model, request)[0] for request in requests]
    contents = [completion.content for response in together for completion in response.completions]
    assert len(set(contents)) > 85 and all(content.shape == SHAPE and content.dtype == "uint8" for content in contents)  # type: ignore[union-attr]
    cold = [ask(model, Request(asking("down", "x"), 2, Sampling(0.0), seed=seed))[0].completions for seed in (1, 2)]
    assert cold[0] == cold[1] and cold[0][0] == cold[0][1]


@pytest.mark.parametrize("name", MAKERS)
def test_equal_seeds_give_equal_weights_and_a_saved_model_is_itself(name: str, tmp_path: Path) -> None:
    examples = rows(40, origin=Origin("synthetic", source="m", depth=2))

    def fitted(seed: int) -> Any:
        return MAKERS[name]().fresh(seed).fit(examples, plan=SHORT, reference=None, seed=seed, seen=ignore)

    start = MAKERS[name]()
    before = start.id
    one, same, other = fitted(1), fitted(1), fitted(2)
    assert one.id == same.id != other.id and one.id not in (start.id, start.fresh(1).id)
    assert (one.depth, one.fresh(0).depth, start.depth) == (2, 0, 0) and start.id == before
    one.save(tmp_path / "a")
    same.save(tmp_path / "b")
    assert [(tmp_path / "a" / f.name).read_bytes() == f.read_bytes() for f in sorted((tmp_path / "b").iterdir())] == [True, True]
    loaded = start.load(tmp_path / "a")
    assert loaded.id == one.id and loaded.depth == 2
    request = Request(asking("down", "x"), 2) if name in DRAWING else Request(examples[0].completion, choices=KINDS)  # type: ignore[arg-type]
    assert ask(loaded, request) == ask(one, request)
    with pytest.raises(ModelError, match="save"):
        start.load(tmp_path / "nothing")
    with pytest.raises(ModelError, match="of the kind"):
        MAKERS["vae" if name == "gan" else "gan"]().load(tmp_path / "a")
    loaded.close()
    with pytest.raises(ModelError, match="closed"):
        loaded.save(tmp_path / "c")


@pytest.mark.parametrize("name", MAKERS)
def test_models_offer_what_training_asks_for_and_refuse_what_they_cannot_learn(name: str) -> None:
    model, plain = MAKERS[name](), rows(4)
    offered: list[type[Any]] = [Completes, Trainable, CountsTokens]
    assert all(isinstance(model, kind) for kind in offered)
    assert isinstance(model, LogProbs) == (name == "vae") and isinstance(model, Embeds) == (name == "image_classifier")
    assert model.count_tokens(plain[0].completion) == 1 and model.count_tokens(plain[0].prompt) == 0

    def refused(match: str, *examples: Example) -> None:
        with pytest.raises(ModelError, match=match):
            model.fit(examples, plan=SHORT, reference=None, seed=0, seen=ignore)

    image = plain[0].completion
    refused("'dpo'", Example("1", plain[0].prompt, image, Loss("dpo")))
    refused("not an image", Example("1", plain[0].prompt, "a text", Loss("own")))
    refused("no class is called 'up'", Example("1", asking("up", "1"), image, Loss("own")))
    refused(r"shape \(4, 4\)", Example("1", plain[0].prompt, packed(np.zeros((4, 4))), Loss("own")))
    refused("at least one")
    imitated = [Example(row.id, row.prompt, row.completion) for row in rows(20)]
    assert model.fit(imitated, plan=SHORT, reference=None, seed=0, seen=ignore).id != model.id


def test_the_order_of_images_is_told_step_by_step() -> None:
    steps: list[list[str]] = []
    plan = FitPlan(lr=1e-3, epochs=1.5, batch=16)
    MAKERS["vae"]().fit(rows(40), plan=plan, reference=None, seed=0, seen=lambda step, ids, **facts: steps.append(list(ids)))
    assert [len(step) for step in steps] == [16, 16, 16, 12]
    assert {name for step in steps[:3] for name in step} == {row.id for row in rows(40)}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("sideways #1"), "no class 'sideways'"),
        (Request(asking("down", "1"), schema="{}"), "schema"),
        (Request(asking("down", "1"), sampling=Sampling(top_p=0.5)), "top_p"),
        (Request(asking("down", "1"), choices=("a",)), "choices"),
    ],
)
def test_what_cannot_be_drawn_comes_back_with_its_reason(request_: Request, message: str) -> None:
    good = Request(asking("down", "1"))
    refused, made = ask(MAKERS["vae"](), request_, good)
    assert message in refused.error and not refused.completions and made.completions


@pytest.mark.parametrize(
    ("settings", "message"), [({"classes": ("a", "a")}, "each class once"), ({"classes": "ab", "shape": (7, 8)}, "multiples of 4")]
)
def test_a_canvas_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        vae(**settings)


# ── the likelihood of a vae ────────────────────────────────────────────────────────────────────────────────────────────
def test_the_law_of_a_pixel_sums_to_one_over_its_levels() -> None:
    levels = torch.arange(256).double() / 255
    for mean, scale in ((0.3, 0.1), (-0.2, 0.02), (1.4, 0.5), (0.5, 1e-3)):
        found = level_log_probs(levels, torch.tensor(mean).double(), torch.tensor(scale).double())
        assert float(found.exp().sum()) == pytest.approx(1.0)


def test_the_bound_is_the_likelihood_where_the_code_says_nothing() -> None:
    model = MAKERS["vae"]()
    network = model._network
    with torch.no_grad():
        network["encoder"][2].weight.zero_()
        network["encoder"][2].bias.zero_()
        network["decoder"][0].weight[:, : model.canvas.latent] = 0  # the decoder is deaf to the code, the encoder gives the prior
    (row, *_) = rows(1)
    kinds = torch.tensor([[1.0, 0.0]])
    flat = torch.from_numpy(intensities(row.completion)).float().reshape(1, -1)
    with torch.no_grad():
        mean = network["decoder"](torch.cat([torch.zeros(1, model.canvas.latent), kinds], 1)) + 0.5
        exact = float(level_log_probs(flat, mean, network.log_scale.exp()).mean())
    ((bound,),) = model.log_probs([Turn(row.prompt, Completion(row.completion))])
    assert bound == pytest.approx(exact, rel=1e-5)


def test_a_taught_vae_predicts_its_own_kind_of_image_best(learnt: Callable[[str], Any]) -> None:
    model, untrained = learnt("vae"), MAKERS["vae"]()

    def loss(which: Any, examples: list[Example]) -> float:
        return -float(np.mean([v for (v,) in which.log_probs(Turn(row.prompt, Completion(row.completion)) for row in examples)]))

    like, unlike = rows(40, seed=7, places=TWO), rows(40, seed=7, places=(3,))
    assert 0 < loss(model, like) < loss(model, unlike) and loss(model, like) < loss(untrained, like)


# ── the steps of diffusion ─────────────────────────────────────────────────────────────────────────────────────────────
def test_a_step_back_gives_the_law_of_the_less_noisy_image() -> None:
    """If x_t = √ᾱ x₀ + √(1−ᾱ) ε, the mean and variance of the step must add up to those of x_s: √ᾱ_s x₀ and 1 − ᾱ_s."""
    times = torch.linspace(1, 0, 9).double()
    for kept, later in zip(kept_signal(times)[:-1], kept_signal(times)[1:], strict=True):
        clean, noise = torch.tensor(0.7).double(), torch.tensor(0.0).double()
        image = kept.sqrt() * clean + (1 - kept).sqrt() * noise
        assert float(posterior_mean(image, clean, kept, later)) == pytest.approx(float(later.sqrt() * clean))
        slope = posterior_mean(image + 1, clean, kept, later) - posterior_mean(image, clean, kept, later)
        assert float(slope**2 * (1 - kept) + posterior_variance(kept, later)) == pytest.approx(float(1 - later))
    assert float(kept_signal(times)[-1]) == 1.0 and float(kept_signal(times)[0]) == pytest.approx(1e-4)


# ── the classifier ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_classifier_tells_classes_apart_and_describes_images(learnt: Callable[[str], Any]) -> None:
    model, test = learnt("image_classifier"), rows(60, seed=3, places=TWO)
    answers = ask(model, *(Request(row.completion, choices=KINDS) for row in test))  # type: ignore[arg-type]
    scores = np.array([response.completions[0].choice_log_probs for response in answers])
    assert np.exp(scores).sum(axis=1) == pytest.approx(np.ones(60), abs=1e-5)
    assert np.mean([KINDS[best] == row.subgroup for best, row in zip(scores.argmax(axis=1), test, strict=True)]) > 0.95
    (named,) = ask(model, Request(test[0].completion, sampling=Sampling(0.0)))  # type: ignore[arg-type]
    assert named.completions[0].content == test[0].subgroup
    vectors = list(model.embed(row.completion for row in test))
    assert {len(vector) for vector in vectors} == {8} and vectors == list(model.embed(row.completion for row in test))
    assert "prompt is text" in ask(model, Request("across #1"))[0].error
