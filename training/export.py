"""Write trained weights into the zoo, fp16 safetensors in each library's own format.

`python -m training.export vae --folder runs/vae-4`, or `clip`, or a recipe's name, with its checkpoint's folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from open_clip.model import CLIP
from safetensors.torch import save_file

from training import clip, clip_model, denoise, text, vae
from training.families import Family
from training.runtime import UNRECORDED, ZOO, write_json


def export_vae(model: AutoencoderKL, name: str, zoo: Path) -> Path:
    """Save the autoencoder in shared/<name>."""
    folder = zoo / "shared" / name
    model.to(torch.float16).save_pretrained(folder)
    return folder


def export_clip(model: CLIP, zoo: Path) -> Path:
    """Save the CLIP in open_clip's folder format, loadable as "local-dir:<folder>"."""
    folder = zoo / "clip"
    text.save_clip_tokenizer(folder, clip_model.LENGTH)
    write_json(folder / "open_clip_config.json", clip_model.config())
    weights = {name: tensor.detach().half().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


def export_family(family: Family, recipe: dict[str, Any], trained: bool, zoo: Path) -> Path:
    """Save a pipeline in Diffusers' folder format, without its VAE, which the zoo shares."""
    folder: Path = zoo / recipe["family"]
    for module in family.modules.values():
        module.to(torch.float16)
    shared = AutoencoderKL.from_pretrained(zoo / "shared" / recipe["shared"]["vae"], torch_dtype=torch.float16)
    family.pipeline(shared).save_pretrained(folder)
    for name in recipe["shared"]:
        shutil.rmtree(folder / name)
    pocket = {
        "schema": 1,
        "shared": recipe["shared"],
        "trained": trained,
        "call": {"height": 128, "width": 128, **recipe["call"]},
    }
    write_json(folder / "pocket.json", pocket)
    return folder


def summary(checkpoint: Path) -> dict[str, Any]:
    """What the card says of a run: steps, minutes, device, settings, and some twenty losses of its course."""
    state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    losses = state["losses"]
    stride = max(1, len(losses) // 20)
    return {
        "steps": state["step"],
        "minutes": round(state["seconds"] / 60, 1),
        "device": state.get("device", UNRECORDED),
        "settings": state["settings"],
        "losses": losses[:-1:stride] + losses[-1:],
    }


def main() -> None:
    """Export one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", help="vae, clip, or the name of a recipe")
    parser.add_argument("--folder", type=Path, required=True, help="the checkpoint")
    parser.add_argument("--zoo", type=Path, default=ZOO)
    parser.add_argument("--channels", type=int, default=4, help="latent channels of a vae")
    parser.add_argument("--before", type=Path, nargs="*", default=[], help="checkpoints of earlier runs, for the card")
    arguments = parser.parse_args()
    # Casting to fp16 is the purpose; Diffusers warns of it on every `to`.
    warnings.filterwarnings("ignore", message=".*kept in float32.*")
    if arguments.what == "vae":
        model = vae.load(arguments.folder, arguments.channels)
        folder = export_vae(model, f"vae-{arguments.channels}", arguments.zoo)
    elif arguments.what == "clip":
        folder = export_clip(clip.load(arguments.folder), arguments.zoo)
    else:
        recipe = denoise.read_recipe(arguments.what)
        family = denoise.load(recipe, arguments.folder, arguments.zoo)
        folder = export_family(family, recipe, True, arguments.zoo)
    runs = [summary(run) for run in (*arguments.before, arguments.folder)]
    write_json(folder / "training.json", {"runs": runs})
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder.name}: {size} bytes", flush=True)


if __name__ == "__main__":
    main()
