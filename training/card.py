"""Write the zoo's cards from the figures stored beside the weights: `python -m training.card`.

Each figure on a card comes from a file: training.json (`training.export`), scores.json (`training.evaluate`) or the
weights themselves. The words come from here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from training import runtime, scenes

LICENCE = """## Licence

Apache-2.0, as the rest of this repository. Trained by `training/` from random weights, or from those of another pocket
pipeline where this card says so, on scenes that `training/render.py` draws; no other data, images or weights were used.
"""

SCENES = (
    f"128 x 128 pixels, one or two shapes of {len(scenes.KINDS)} kinds, {len(scenes.COLOURS)} colours and two sizes "
    f"on {len(scenes.BACKGROUNDS)} background colours with {len(scenes.PATTERNS)} patterns, rendered in code. One "
    f"scene in {scenes.HELD_OUT_SHARE}, chosen by a hash of its attributes, is held out: no model was trained on it, "
    "and all scores are on those scenes alone."
)


@dataclass(frozen=True)
class About:
    """The words of a card: its title, what the model is, and how it was trained."""

    title: str
    model: str
    training: str


_TOGETHER = (
    "10 % of captions were replaced by the empty prompt, on latents of 262,144 rendered scenes. The minutes are of a "
    "GPU that up to four other trainings used at the same time; a second run starts from the first one's averaged "
    "weights."
)

ABOUT = {
    "shared/vae-4": About(
        "Pocket VAE, 4 latent channels",
        "`AutoencoderKL`, factor 8, shared by the pocket pipelines whose latents have four channels. Its decoder was "
        "trained on latents with up to 15 % of noise, and in a last run alone, with the encoder as it was: latents "
        "made before and after that run are the same.",
        "Absolute error, absolute error of neighbouring pixels' differences, and a KL term of 1e-5.",
    ),
    "shared/vae-16": About(
        "Pocket VAE, 16 latent channels",
        "`AutoencoderKL`, factor 8, without quantization convolutions and with a shift, as Stable Diffusion 3's. Its "
        "decoder was trained on latents with up to 15 % of noise, and in a last run alone, with the encoder as it was.",
        "Absolute error, absolute error of neighbouring pixels' differences, and a KL term of 1e-5. The minutes are of "
        "a GPU that up to four other trainings used at the same time.",
    ),
    "clip": About(
        "Pocket CLIP",
        "An open_clip model with a vocabulary of its own (the words of the scenes' grammar), loaded as "
        "`local-dir:<this folder>`. It knows nothing but such scenes: its score means something for the pocket "
        "pipelines' images and for nothing else.",
        "Contrastive, with 12 captions per image that are wrong in exactly one attribute. Images shifted, blurred, "
        "noisy and with changed contrast, brightness and colour; never generated ones. The run was cut before its "
        "decay; these are its averaged weights.",
    ),
    "pixart-alpha": About(
        "Pocket PixArt-Alpha",
        "A real `PixArtAlphaPipeline`: `PixArtTransformer2DModel` of 6 layers (2 heads x 64), "
        "`DPMSolverMultistepScheduler`; its text encoder is the pocket PixArt-Sigma's, its VAE is `shared/vae-4`.",
        "Epsilon prediction with min-SNR weights (gamma 5), from six of PixArt-Sigma's layers. 10 % of "
        "captions were replaced by the empty prompt, on latents of 262,144 rendered scenes. One other training used "
        "the GPU at the same time.",
    ),
    "sd3": About(
        "Pocket Stable Diffusion 3",
        "A real `StableDiffusion3Pipeline`: `SD3Transformer2DModel` of 4 joint layers (2 heads x 64), two "
        "`CLIPTextModelWithProjection` of 2 layers, `T5EncoderModel` of 2, `FlowMatchEulerDiscreteScheduler`; its VAE "
        "is `shared/vae-16`.",
        "Rectified flow, the text encoders trained jointly; each encoder lost 30 % of its captions besides. The first "
        f"run was on latents of the autoencoder's own first run. {_TOGETHER}",
    ),
    "aura-flow": About(
        "Pocket AuraFlow",
        "A real `AuraFlowPipeline`: `AuraFlowTransformer2DModel` of 1 joint and 4 single layers (2 heads x 64), "
        "`UMT5EncoderModel` of 2 layers, `FlowMatchEulerDiscreteScheduler`; its VAE is `shared/vae-4`.",
        f"Rectified flow, the text encoder trained jointly. {_TOGETHER}",
    ),
    "hunyuan-dit": About(
        "Pocket Hunyuan DiT",
        "A real `HunyuanDiTPipeline`: `HunyuanDiT2DModel` of 6 layers (2 heads x 64), `BertModel` and "
        "`T5EncoderModel` of 2 layers each, `DPMSolverMultistepScheduler`; its VAE is `shared/vae-4`.",
        "Velocity prediction with min-SNR weights (gamma 5) on the full-size model's schedule, the text encoders "
        f"trained jointly. {_TOGETHER}",
    ),
    "lumina": About(
        "Pocket Lumina-Next",
        "A real `LuminaPipeline`: `LuminaNextDiT2DModel` of 6 layers (2 heads x 64), `GemmaModel` of 3 layers, of "
        "which the pipeline reads the second, `FlowMatchEulerDiscreteScheduler`; its VAE is `shared/vae-4`.",
        f"Rectified flow, the text encoder trained jointly. {_TOGETHER}",
    ),
    "latte": About(
        "Pocket Latte",
        "A real `LattePipeline`: `LatteTransformer3DModel` of 3 spatial and 3 temporal layers (2 heads x 64), "
        "`DPMSolverMultistepScheduler`, clips of 5 frames in which the shapes move; its text encoder is the pocket "
        "PixArt-Sigma's, its VAE is `shared/vae-4`. The scores are of each clip's middle frame.",
        "Epsilon prediction with min-SNR weights (gamma 5); the spatial layers from three of PixArt-Sigma's, the "
        "temporal ones from the identity. 10 % of captions were replaced by the empty prompt, on latents of 65,536 "
        "rendered clips. One other training used the GPU at the same time.",
    ),
    "pixart-sigma": About(
        "Pocket PixArt-Sigma",
        "A real `PixArtSigmaPipeline`: `PixArtTransformer2DModel` of 8 layers (2 heads x 64), `T5EncoderModel` of 3 "
        "layers with its own SentencePiece tokenizer, `DPMSolverMultistepScheduler`; its VAE is `shared/vae-4`.",
        "Epsilon prediction with min-SNR weights (gamma 5), the text encoder trained jointly, 10 % of captions "
        "replaced by the empty prompt, on latents of 524,288 rendered scenes. Two runs in one: constant rate, then the "
        "decay.",
    ),
}

SCORE_NAMES = {
    "psnr": "PSNR, dB",
    "psnr_5_percent_off": "PSNR with latents 5 % off, dB",
    "psnr_10_percent_off": "PSNR with latents 10 % off, dB",
    "latent_mean": "latents' mean, unscaled",
    "latent_std": "latents' standard deviation, unscaled",
    "clip_accuracy": "pocket CLIP picks the caption out of 64, 16 of them one attribute off",
    "clip_cosine_own": "mean cosine with the caption",
    "clip_cosine_one_off": "mean cosine with captions one attribute off",
    "clip_cosine_other": "mean cosine with other captions",
    "reader_colour": "independent reader: shapes of the right colour at their place",
    "reader_shape": "independent reader: shapes of the right kind at their place",
    "reader_count": "independent reader: images with the right number of shapes",
    "reader_image_all_right": "independent reader: images with all of that right",
}


def render(folder: Path, name: str) -> str:
    """The card of one folder of the zoo, Markdown."""
    about = ABOUT[name]
    runs = json.loads((folder / "training.json").read_text(encoding="utf-8"))["runs"]
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    parts = [f"# {about.title}\n\n{about.model}\n", _sizes(folder)]
    parts += [f"## Training\n\n{SCENES}\n\n{about.training}\n", _runs(runs)]
    parts.append(f"Made again by the commands in `training/README.md`.\n\n{_scores(scores)}")
    if (folder / "pocket.json").is_file():
        parts.append(f"![Held-out captions, fp16](../../../docs/img/{name}.webp)\n")
    return "\n".join([*parts, LICENCE])


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _sizes(folder: Path) -> str:
    rows = []
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, "pt") as file:
            count = 0
            for key in file.keys():  # noqa: SIM118 - a handle, not a mapping
                size = 1
                for side in file.get_slice(key).get_shape():
                    size *= side
                count += size
        rows.append([f"`{path.relative_to(folder)}`", f"{count:,}", f"{path.stat().st_size:,}"])
    return _table(["weights, fp16", "parameters", "bytes"], rows)


def _runs(runs: list[dict[str, Any]]) -> str:
    rows = [
        [
            f"{run['steps']:,}",
            str(run["settings"]["batch"]),
            f"{run['settings']['rate']:g}",
            f"{run['minutes']}",
            run["device"],
            f"{run['losses'][0][1]:.4f}",
            f"{run['losses'][-1][1]:.4f}",
        ]
        for run in runs
    ]
    header = ["steps", "batch", "AdamW rate", "minutes", "on one", "first loss", "last loss"]
    return _table(header, rows)


def _scores(scores: Mapping[str, Mapping[str, Any]]) -> str:
    parts = ["## Scores\n"]
    for given in scores.values():
        device = _device(given["device"])
        if "generated" in given:
            parts.append(
                f"{given['captions']} held-out captions on {device}, {given['dtype']} with the VAE in "
                f"{given['vae_dtype']}, {given['num_inference_steps']} steps, guidance {given['guidance_scale']}:\n"
            )
            drawn, rendered = given["generated"], given["rendered"]
            rows = [[SCORE_NAMES[key], str(drawn[key]), str(rendered[key])] for key in drawn]
            parts.append(_table(["score", "generated", "rendered, for comparison"], rows))
        else:
            count = given.get("scenes", given.get("captions"))
            parts.append(f"{count} held-out rendered scenes on {device}:\n")
            rows = [[label, str(given[key])] for key, label in SCORE_NAMES.items() if key in given]
            parts.append(_table(["score", "value"], rows))
    return "\n".join(parts)


def _device(name: str) -> str:
    return "a CPU" if name == "CPU" else f"one {name}"


def main() -> None:
    """Write every card; a family can have its words here before its weights are in the package."""
    for name in ABOUT:
        folder = runtime.ZOO / name
        if not folder.is_dir():
            continue
        (folder / "card.md").write_text(render(folder, name), encoding="utf-8")


if __name__ == "__main__":
    main()
