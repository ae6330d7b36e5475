"""A model by what a person calls it: a run, a model folder, a hub name, or a GGUF file."""

from __future__ import annotations

from pathlib import Path

from outcross.engine.store import PRIMARY, RunDir
from outcross.errors import ConfigError, ModelError
from outcross.stages import Completes, Model, Trainable


def load_model(name: str, role: str = PRIMARY) -> Model:
    """The champion of a run, a model folder (in a run or not), a GGUF file, or a name on the Hugging Face hub.

    Raises `ModelError`, or `ConfigError` when nothing of this name can be loaded.
    """
    folder = Path(name)
    if (folder / "manifest.json").is_file():
        run = RunDir(folder)
        champion = run.champion(role)
        if champion is None:
            roles = ", ".join(sorted({role for phase in run.manifest["phases"] for role in phase["learn"]})) or "none"
            raise ConfigError(f"{folder} holds no model for the role {role!r}; roles that learn in it: {roles}")
        return _from_folder(champion, role)
    if folder.is_dir():
        return _from_folder(folder.resolve(), role)
    from outcross.models.torch_lm import torch_lm

    return torch_lm(name)


def completing(name: str, role: str = PRIMARY) -> Completes:
    """As `load_model`, for a model that answers. Raises `ModelError` for one that does not."""
    model = load_model(name, role)
    if not isinstance(model, Completes):
        raise ModelError(f"{name} is a {type(model).__name__}, which does not answer requests")
    return model


def _from_folder(folder: Path, role: str) -> Model:
    if (folder / "image_model.json").is_file():
        from outcross.models.image_model import image_model

        return image_model(folder)
    if (folder / "config.json").is_file() or any(folder.glob("*.safetensors")):
        from outcross.models.torch_lm import torch_lm

        return torch_lm(str(folder))
    root = next((parent for parent in folder.parents if (parent / "manifest.json").is_file()), None)
    if root is None:
        held = ", ".join(sorted(path.name for path in folder.iterdir())[:6]) or "nothing"
        raise ModelError(f"{folder} is neither a Hugging Face model folder nor inside a run; it holds {held}")
    return _as_in_run(RunDir(root), folder, role)


def _as_in_run(run: RunDir, folder: Path, role: str) -> Model:
    """A toy model is loaded by one of its kind, as the run's configuration makes it."""
    from outcross.config.runfile import of_run

    first = of_run(run).build_model(role)
    if not isinstance(first, Trainable):
        raise ModelError(f"{folder} cannot be loaded: the role {role!r} is played by a {type(first).__name__}, which does not learn")
    return first.load(folder)
