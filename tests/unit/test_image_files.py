"""Images as files: PNG as other libraries read it, a run's images as `datasets` reads them, and what `outcross sample` writes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import KINDS, SHAPE, archive
from test_cli import call, out_of

from outcross.engine.loop import Options, run
from outcross.engine.store import RunDir
from outcross.errors import DataError, ModelError
from outcross.evaluate.real_loss import RealLoss
from outcross.gate.open import Open
from outcross.images import grid, intensities, packed, png
from outcross.models.gan import gan
from outcross.models.image_classifier import image_classifier
from outcross.models.image_model import image_model
from outcross.models.vae import vae
from outcross.recipe import Bench
from outcross.recipes.collapse import collapse
from outcross.stages import FitPlan, Trainable
from outcross.tasks.images import ImageTasks, Part, RealImages
from outcross.types import Array

ROWS = 12
PARTS: tuple[Part, Part] = ("train", "test")


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one generation whose content is images."""
    folder = tmp_path_factory.mktemp("images")
    path = archive(folder / "bars.npz", 30)
    tasks, held_out = (ImageTasks(path, part=part, classes=KINDS, limit=ROWS) for part in PARTS)
    real, test = (RealImages(path, part=part, classes=KINDS, attested="the test's author") for part in PARTS)
    bench = Bench(tasks, held_out, real, (RealLoss(test),), Open())
    recipe = collapse(bench, rounds=1, plan=FitPlan(lr=1e-2, epochs=2, batch=8), start="scratch")
    run(recipe, {"policy": vae(KINDS, shape=SHAPE, width=8)}, folder / "run", seed=1, options=Options(unsafe=True))
    return folder / "run"


# ── one image ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_png_file_holds_exactly_the_pixels(dtype: str) -> None:
    image_module = pytest.importorskip("PIL.Image", reason="pillow reads the file back: pip install pillow")
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (5, 9), endpoint=True).astype(dtype)
    with image_module.open(io.BytesIO(png(packed(pixels)))) as read:
        assert read.size == (9, 5) and np.array_equal(np.asarray(read), pixels)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("a text", "is text, not an image"),
        (packed(np.zeros((2, 2))), "float64 does not fit"),
        (packed(np.zeros(4, np.uint8)), "has the shape"),
    ],
)
def test_what_a_png_file_cannot_hold_is_refused(content: Any, why: str) -> None:
    with pytest.raises(DataError, match=why):
        png(content)


def test_a_grid_shows_images_row_by_row() -> None:
    images = [packed(np.full((2, 3), level, np.uint8)) for level in (0, 100, 200)]
    sheet = intensities(grid(images, columns=2, gap=1)) * 255
    assert sheet.shape == (7, 9)
    assert (sheet[1:3, 1:4] == 0).all() and (sheet[1:3, 5:8] == 100).all() and (sheet[4:6, 1:4] == 200).all()
    assert set(np.unique(sheet)) == {0, 100, 200, 128}, "what is left is grey"
    with pytest.raises(DataError, match="a grid takes one size"):
        grid([images[0], packed(np.zeros((3, 3), np.uint8))], 2)


# ── a run ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_run_of_images_is_exported_as_files_with_their_lineage(lived: Path, tmp_path: Path) -> None:
    out = out_of("export", str(lived), "--out", str(tmp_path / "set"))
    assert f"({ROWS} images)" in " ".join(out.split())
    folder = tmp_path / "set" / "data" / "train"
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    (turn,) = RunDir(lived).rounds()
    by_id = {example.id: example for example in turn.examples()}
    assert len(lines) == ROWS == len(list(folder.glob("*.png")))
    for line in lines:
        example = by_id[line["outcross"]["id"]]
        assert isinstance(example.completion, Array)
        assert (folder / line["file_name"]).read_bytes() == png(example.completion)
        assert line["label"] in KINDS and line["prompt"] == example.prompt
        assert (line["outcross"]["kind"], line["outcross"]["depth"]) == ("synthetic", example.origin.depth)
    assert "path: data/train/**" in (tmp_path / "set" / "README.md").read_text()


def test_datasets_reads_the_folder(lived: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="it is the reader: pip install datasets pillow")
    pytest.importorskip("PIL.Image", reason="datasets decodes images by it: pip install pillow")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    out_of("export", str(lived), "--out", str(tmp_path / "set"), "--held-out", "0.4")
    found = datasets.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    assert set(found) == {"train", "validation"} and len(found["train"]) + len(found["validation"]) == ROWS
    assert {"image", "prompt", "label", "outcross"} <= set(found["train"].column_names) and found["train"][0]["image"].size == SHAPE


def test_images_do_not_fit_in_one_file(lived: Path, tmp_path: Path) -> None:
    code, _, err = call("export", str(lived), "--out", str(tmp_path / "rows.jsonl"))
    assert code == 2 and "name a folder" in " ".join(err.split())


# ── a model ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_sample_draws_a_row_of_images_a_class(lived: Path, tmp_path: Path) -> None:
    out = out_of("sample", str(lived), *KINDS, "-n", "3", "--out", str(tmp_path / "new" / "sheet.png"))
    assert "sheet.png" in out and "6 images of 8 × 8 pixels, 3 a row" in " ".join(out.split())
    header = (tmp_path / "new" / "sheet.png").read_bytes()[16:24]
    assert (int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")) == (3 * 10 + 2, 2 * 10 + 2)
    code, _, err = call("sample", str(lived), "neither")
    assert code == ModelError.exit_code and "draws no class 'neither'" in " ".join(err.split())


@pytest.mark.parametrize("made", [vae, gan, image_classifier], ids=lambda make: make.__name__)
def test_a_saved_model_of_images_is_found_by_its_record(made: Any, tmp_path: Path) -> None:
    model: Trainable = made(KINDS, shape=SHAPE, width=8)
    model.save(tmp_path / "model")
    assert image_model(tmp_path / "model").id == model.id


def test_a_folder_without_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no model of images"):
        image_model(tmp_path)
    (tmp_path / "image_model.json").write_text('{"model": "vea"}')
    with pytest.raises(ModelError, match="kind 'vea'; did you mean 'vae'"):
        image_model(tmp_path)
