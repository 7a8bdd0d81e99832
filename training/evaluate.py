"""Score the zoo's models on held-out scenes: `python -m training.evaluate pixart-sigma`, `... clip`, `... vae-4`.

A pipeline has two judges: the pocket CLIP must pick the caption of each image out of 64, of which 16 are one attribute
off; and the independent reader must find every shape in its colour and kind at its place. Both judge rendered scenes
as well.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import open_clip
import torch
import transformers
from diffusers import AutoencoderKL, DiffusionPipeline
from PIL import Image
from torch import Tensor

from training import data, reader, render, runtime, scenes, text, vae

OPTIONS, HARD = 64, 16
SEED = 2024


@dataclass(frozen=True)
class Task:
    """Held-out scenes with the captions that CLIP chooses from, the right one first, and the scenes drawn."""

    scenes: list[scenes.Scene]
    options: list[list[str]]
    rendered: Tensor
    """(N, 3, SIDE, SIDE) uint8."""


def task(count: int) -> Task:
    """The same scenes and options for every model and machine."""
    generator = torch.Generator().manual_seed(SEED)
    codes = scenes.sample(count, generator, held=True)
    near = scenes.hard_negatives(codes, 8 * HARD, generator)
    far = scenes.sample(count * (OPTIONS - HARD - 1), generator, held=None).view(count, -1, scenes.FIELDS)
    options = []
    for row in range(count):
        own = text.strings(text.words(codes[row : row + 1]))[0]
        hard = list(dict.fromkeys(text.strings(text.words(near[row]))))[:HARD]
        if len(hard) < HARD or own in hard:
            raise ValueError(f"too few hard negatives for {own!r}")
        options.append([own, *hard, *text.strings(text.words(far[row]))])
    pictures = (render.render(codes, generator) * 255).round().byte()
    return Task([scenes.scene(row) for row in codes], options, pictures)


class Clip:
    """The zoo's CLIP, loaded and fed as any open_clip model is."""

    def __init__(self, zoo: Path, device: torch.device) -> None:
        name = f"local-dir:{zoo / 'clip'}"
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(name)
        self.model = self.model.to(device).eval()
        self.tokenizer = open_clip.get_tokenizer(name)
        self.device = device

    @torch.no_grad()
    def scores(self, pictures: Tensor, options: list[list[str]]) -> Tensor:
        """Cosines of each image (N, 3, H, W) uint8 with its own options, shape (N, options)."""
        rows = []
        for picture, captions in zip(pictures, options, strict=True):
            image = self.preprocess(Image.fromarray(picture.permute(1, 2, 0).cpu().numpy()))
            seen = self.model.encode_image(image[None].to(self.device), normalize=True)
            read = self.model.encode_text(self.tokenizer(captions).to(self.device), normalize=True)
            rows.append((read @ seen[0]).cpu())
        return torch.stack(rows)


def judge(clip: Clip, pictures: Tensor, given: Task) -> dict[str, float]:
    """The figures of images (N, 3, SIDE, SIDE) uint8 that should show the task's scenes."""
    score = clip.scores(pictures, given.options)
    readings = [
        reader.compare(picture.permute(1, 2, 0).double().cpu().numpy() / 255, one)
        for picture, one in zip(pictures, given.scenes, strict=True)
    ]
    shapes = sum(len(one.colours) for one in readings)
    images = len(readings)
    figures = {
        "clip_accuracy": int((score.argmax(dim=1) == 0).sum()) / images,
        "clip_cosine_own": float(score[:, 0].mean()),
        "clip_cosine_one_off": float(score[:, 1 : 1 + HARD].mean()),
        "clip_cosine_other": float(score[:, 1 + HARD :].mean()),
        "reader_colour": sum(sum(one.colours) for one in readings) / shapes,
        "reader_shape": sum(sum(one.kinds) for one in readings) / shapes,
        "reader_count": sum(one.count for one in readings) / images,
        "reader_image_all_right": sum(all(one.colours + one.kinds) and one.count for one in readings) / images,
    }
    return {name: round(value, 4) for name, value in figures.items()}


def load_pipeline(zoo: Path, name: str, device: torch.device) -> tuple[DiffusionPipeline, dict[str, Any]]:
    """The zoo's pipeline in fp16 with its shared VAE (float32 on a CPU), and the arguments of its call."""
    folder = zoo / name
    pocket = json.loads((folder / "pocket.json").read_text(encoding="utf-8"))
    exact = torch.float32 if device.type == "cpu" else torch.float16
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    shared = {}
    for part, place in pocket["shared"].items():
        library, kind = index[part]
        module = getattr({"diffusers": diffusers, "transformers": transformers}[library], kind)
        dtype = exact if part == "vae" else torch.float16
        shared[part] = module.from_pretrained(zoo / "shared" / place, torch_dtype=dtype)
    pipeline = getattr(diffusers, index["_class_name"]).from_pretrained(
        folder, **shared, torch_dtype=torch.float16, local_files_only=True
    )
    pipeline.vae.to(exact)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device), pocket["call"]


@torch.no_grad()
def generate(pipeline: DiffusionPipeline, captions: list[str], call: dict[str, Any], batch: int) -> Tensor:
    """Images of the captions, (N, 3, SIDE, SIDE) uint8; caption i starts from the noise of seed i."""
    pictures = []
    for start in range(0, len(captions), batch):
        part = captions[start : start + batch]
        seeds = [torch.Generator().manual_seed(start + index) for index in range(len(part))]
        latents = pipeline(part, generator=seeds, output_type="latent", **call)[0]
        if latents.ndim == 5:  # clips (N, C, frames, h, w) are judged by their middle frame
            latents = latents[:, :, latents.shape[2] // 2]
        config = pipeline.vae.config
        latents = latents.to(pipeline.vae.dtype) / config.scaling_factor + (config.shift_factor or 0.0)
        images = pipeline.vae.decode(latents).sample.float()
        pictures.append(((images.clamp(-1, 1) + 1) * 127.5).round().byte().cpu())
    return torch.cat(pictures)


def score_vae(folder: Path, device: torch.device, count: int) -> dict[str, Any]:
    """Figures of the stored autoencoder, computed in float32."""
    model = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).to(device).eval()
    figures, _ = vae.evaluate(model, device, count)
    return {"scenes": count, "dtype": "float32", **figures}


def score_pipeline(arguments: argparse.Namespace, device: torch.device, out: Path) -> dict[str, Any]:
    """Scores of the pipeline's images; where several guidance scales are tried, those of the last."""
    given = task(arguments.captions)
    clip = Clip(arguments.zoo, device)
    rendered = judge(clip, given.rendered, given)
    print(f"rendered {rendered}", flush=True)
    pipeline, call = load_pipeline(arguments.zoo, arguments.name, device)
    captions = [one[0] for one in given.options]
    scores: dict[str, Any] = {}
    for scale in arguments.guidance or [call["guidance_scale"]]:
        call["guidance_scale"] = scale
        started = time.monotonic()
        pictures = generate(pipeline, captions, call, arguments.batch)
        seconds = time.monotonic() - started
        generated = judge(clip, pictures, given)
        print(f"guidance {scale}: {generated} {seconds:.1f} s", flush=True)
        scores = {
            "captions": arguments.captions,
            "dtype": "float16",
            "vae_dtype": str(pipeline.vae.dtype).removeprefix("torch."),
            "guidance_scale": scale,
            "num_inference_steps": call["num_inference_steps"],
            "rendered": rendered,
            "generated": generated,
        }
        columns = min(8, arguments.captions)
        shown = pictures[: min(64, arguments.captions // columns * columns)]
        Image.fromarray(data.grid(shown, columns).numpy()).save(out / f"samples-{scale}.png")
    return scores


def main() -> None:
    """Score, print, and write scores.json beside the weights, under the device's name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="clip, a pipeline's folder in the zoo, or one in its shared folder")
    parser.add_argument("--captions", type=int, default=256, help="held-out scenes to judge by")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--guidance", type=float, nargs="*", help="scales to try, in place of the pipeline's own")
    parser.add_argument("--zoo", type=Path, default=runtime.ZOO)
    parser.add_argument("--device", help="cuda or cpu")
    parser.add_argument("--pictures", type=Path, default=Path(), help="folder for sample pictures")
    arguments = parser.parse_args()
    device = torch.device(arguments.device) if arguments.device else runtime.device()
    folder = arguments.zoo / arguments.name
    if (arguments.zoo / "shared" / arguments.name).is_dir():
        folder = arguments.zoo / "shared" / arguments.name
        scores = score_vae(folder, device, arguments.captions)
    elif arguments.name == "clip":
        given = task(arguments.captions)
        scores = {"captions": arguments.captions, **judge(Clip(arguments.zoo, device), given.rendered, given)}
    else:
        scores = score_pipeline(arguments, device, arguments.pictures)
    print(scores, flush=True)
    path = folder / "scores.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    runtime.write_json(path, {**known, device.type: {"device": runtime.device_name(device), **scores}})


if __name__ == "__main__":
    main()
