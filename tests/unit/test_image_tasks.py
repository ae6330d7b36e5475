"""Images as content, and archives of images as real examples and as tasks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pictures import KINDS, archive, bars

from outcross.errors import ConfigError, DataError
from outcross.images import asking, class_of, intensities, packed, to_bytes
from outcross.recipe import fingerprint
from outcross.tasks.images import ImageTasks, RealImages
from outcross.types import Array

DATA = Path(__file__).parents[3] / "shared" / "data"


@given(arrays(np.uint8, (4, 5)))
def test_an_image_of_256_levels_survives_packing(pixels: np.ndarray) -> None:  # type: ignore[type-arg]
    content = packed(pixels)
    assert (content.dtype, content.shape) == ("uint8", (4, 5))
    assert np.array_equal(intensities(content), pixels / 255) and to_bytes(intensities(content)) == content


@given(st.text(alphabet=st.characters(exclude_characters="#"), min_size=1), st.text())
def test_a_prompt_says_its_class(kind: str, item: str) -> None:
    assert class_of(asking(kind, item)) == kind and class_of(packed(np.zeros((2, 2)))) == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a text", "not an image"),
        (Array("uint8", (2, 3), b"12"), "2 bytes"),
        (Array("nonsense", (1, 1), b"1"), "nonsense"),
        (packed(np.zeros(4)), "height, width"),
        (packed(np.full((2, 2), np.nan)), "finite"),
    ],
)
def test_what_is_no_image_is_refused(content: str | Array, message: str) -> None:
    with pytest.raises(DataError, match=message):
        intensities(content)


def test_examples_and_tasks_hold_what_the_file_holds(tmp_path: Path) -> None:
    real = list(RealImages(archive(tmp_path / "bars.npz", 20), classes=KINDS, attested="me"))
    held = {(kind, packed(pixels).data) for kind, pixels in bars(20)}
    assert {(row.subgroup, row.completion.data) for row in real if isinstance(row.completion, Array)} == held
    assert all(row.loss.name == "own" and row.origin.is_real and class_of(row.prompt) == row.subgroup for row in real)
    tasks = list(ImageTasks(tmp_path, classes=KINDS, part="test"))
    assert Counter(task.subgroup for task in tasks) == {"across": 10, "down": 10} and all(task.answer is None for task in tasks)
    prompts = [item.prompt for item in (*real, *tasks, *ImageTasks(tmp_path, classes=KINDS))]
    assert len(set(prompts)) == len(prompts), "held-out items are told by their prompts"
    assert not next(iter(RealImages(tmp_path))).origin.is_real, "nobody vouches for it"


def test_ranges_are_disjoint_and_limits_hold(tmp_path: Path) -> None:
    path = archive(tmp_path / "bars.npz", 30)

    def ids(**settings: object) -> list[str]:
        return [row.id for row in RealImages(path, **settings)]  # type: ignore[arg-type]

    everything = ids()
    assert ids(limit=12) == everything[:12] and ids(offset=12) == everything[12:]
    assert ids() == ids() != ids(order=1) and set(ids(order=1)) == set(everything)
    assert Counter(row.subgroup for row in RealImages(path, per_class=4)) == {"0": 4, "1": 4}
    assert {row.subgroup for row in RealImages(path, only=("1",))} == {"1"}


@pytest.mark.parametrize("keys", [("x_{part}", "y_{part}"), ("{part}_images", "{part}_labels")])
def test_known_formats_are_read(keys: tuple[str, str], tmp_path: Path) -> None:
    assert len(list(RealImages(archive(tmp_path / "a.npz", 8, keys=keys), part="test"))) == 8


def test_a_set_is_named_by_its_content_and_not_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    here, there = archive(tmp_path / "a.npz", 8), archive(tmp_path / "other" / "b.npz", 8)
    assert fingerprint(ImageTasks(here)) == fingerprint(ImageTasks(there)) != fingerprint(ImageTasks(here, limit=3))


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    plain = tmp_path / "plain.npz"
    np.savez(plain, images=np.zeros((3, 8, 8)), labels=np.arange(3))
    assert len(list(RealImages(plain))) == 3
    with pytest.raises(DataError, match="images, labels; the part 'test'"):
        list(RealImages(plain, part="test"))
    np.savez(tmp_path / "wrong.npz", images=np.zeros((3, 8, 8)), labels=np.zeros(2, dtype=int))
    with pytest.raises(DataError, match="as many whole numbers"):
        list(RealImages(tmp_path / "wrong.npz"))
    with pytest.raises(DataError, match=r"2 \.npz files"):
        list(RealImages(tmp_path))
    with pytest.raises(DataError, match="labels up to 2"):
        list(RealImages(plain, classes=("a", "b")))
    with pytest.raises(ConfigError, match=r"classes of plain\.npz are 0, 1, 2"):
        list(RealImages(plain, only=("7",)))
    with pytest.raises(DataError, match="no image is left"):
        list(RealImages(plain, offset=3))
    with pytest.raises(DataError, match="no file"):
        list(RealImages(tmp_path / "absent.npz"))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match=r"broken\.npz"):
        list(RealImages(tmp_path / "broken.npz"))
    with pytest.raises(ConfigError, match="part is 'all'"):
        RealImages(plain, part="all")  # type: ignore[arg-type]


@pytest.mark.skipif(not (DATA / "mnist").exists(), reason="needs the digits at ../shared/data/mnist")
def test_digits_and_x_rays_have_their_published_sizes() -> None:
    assert len(list(ImageTasks(DATA / "mnist", part="test"))) == 10_000
    names = ("normal", "pneumonia")
    counts = Counter(task.subgroup for task in ImageTasks(DATA / "pneumoniamnist", part="test", classes=names))
    assert counts == {"normal": 234, "pneumonia": 390}
