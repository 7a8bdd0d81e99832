"""Train the pocket CLIP: `python -m training.clip --folder runs/clip --steps 20000`.

Contrastive learning on rendered scenes alone, never on generated images: each image must prefer its own caption to the
batch's other captions and to captions of scenes that differ from its own in one attribute, and each caption its image.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional

from training import clip_model, data, runtime, scenes, text
from training.runtime import Length, Optimizer, Trainer

SETTINGS = Optimizer(rate=1e-3, batch=512, warmup=1000, decay=0.5, ema=0.999, weight_decay=0.05)
NEGATIVES = 12  # captions one attribute off, for each image
POOL = 262144  # rendered scenes
MOST_LOGIT_SCALE = 4.6052  # ln 100, as in CLIP


def augment(image: Tensor, generator: torch.Generator) -> Tensor:
    """Images (N, 3, H, W) in [-1, 1] as a decoder, a codec or a camera might change them.

    Each is shifted by up to 4 pixels, some are blurred; contrast, brightness and colour move a little, noise is added.
    A colour stays nearest to its own name.
    """
    count, device = image.shape[0], image.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator, device=device) * 2 - 1

    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1
    theta[:, :, 2] = uniform(2) * (8 / image.shape[-1])
    grid = functional.affine_grid(theta, list(image.shape), align_corners=False)
    image = functional.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    side = torch.arange(-3, 4, device=device, dtype=torch.float32)
    sigma = (0.2 + 1.3 * uniform(1).abs())[:, :, None]
    kernel = torch.softmax(-(side**2) / (2 * sigma**2), dim=2)
    flat = image.reshape(1, -1, *image.shape[2:])
    weight = kernel.repeat_interleave(3, dim=0)
    groups = flat.shape[1]
    blurred = functional.conv2d(flat, weight[:, :, :, None], padding=(3, 0), groups=groups)
    blurred = functional.conv2d(blurred, weight[:, :, None, :], padding=(0, 3), groups=groups).view_as(image)
    image = torch.where((uniform(1, 1, 1) > 0).expand_as(image), blurred, image)
    image = image * (1 + 0.08 * uniform(1, 1, 1)) + 0.05 * uniform(1, 1, 1) + 0.04 * uniform(3, 1, 1)
    noise = torch.randn(image.shape, generator=generator, device=device)
    image = image + 0.08 * uniform(1, 1, 1).clamp(min=0) * noise
    return image.clamp(-1, 1)


def loss(model: CLIP, image: Tensor, captions: Tensor) -> Tensor:
    """Contrastive loss of images (N, 3, H, W) and token ids (N, 1 + negatives, length), own caption first."""
    count, several, length = captions.shape
    with torch.autocast(image.device.type, torch.bfloat16, enabled=image.device.type == "cuda"):
        seen = model.encode_image(image, normalize=True).float()
        read = model.encode_text(captions.view(-1, length), normalize=True).float()
    read = read.view(count, several, -1)
    scale = model.logit_scale.clamp(max=MOST_LOGIT_SCALE).exp()
    across = scale * seen @ read[:, 0].T
    hard = scale * torch.einsum("nd,nkd->nk", seen, read[:, 1:])
    target = torch.arange(count, device=image.device)
    by_image = functional.cross_entropy(torch.cat((across, hard), dim=1), target)
    # Own hard negatives alone as well: in the large sum above, a few of them would weigh little.
    among = torch.cat((across.diagonal()[:, None], hard), dim=1)
    by_attribute = functional.cross_entropy(among, torch.zeros_like(target))
    return by_image + functional.cross_entropy(across.T, target) + by_attribute


def word_table() -> text.WordTable:
    """Token ids of captions, as `open_clip.get_tokenizer` gives them for the exported folder."""
    import tempfile

    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as scratch:
        text.save_clip_tokenizer(Path(scratch), clip_model.LENGTH)
        tokenizer = AutoTokenizer.from_pretrained(scratch)

    def encode(prompts: list[str]) -> Tensor:
        ids = tokenizer(
            prompts, padding="max_length", max_length=clip_model.LENGTH, truncation=True, return_tensors="pt"
        ).input_ids
        return torch.as_tensor(ids)

    return text.WordTable(encode, 0, clip_model.LENGTH)


@torch.no_grad()
def evaluate(model: CLIP, device: torch.device, count: int = 1024) -> dict[str, float]:
    """Accuracy of picking the caption out of 64 (16 of them hard negatives) on held-out scenes, and mean cosines."""
    codes, pictures = data.images(count, 11, device, held=True)
    generator = torch.Generator(device).manual_seed(11)
    hard = scenes.hard_negatives(codes, 16, generator)
    others = scenes.sample(count * 47, generator, held=None).view(count, 47, -1)
    options = torch.cat((codes[:, None], hard, others), dim=1)
    table = word_table()
    correct, cosines = 0, torch.zeros(3, device=device)
    for start in range(0, count, 64):
        image = data.signed(pictures[start : start + 64])
        chosen = options[start : start + 64]
        seen = model.encode_image(image, normalize=True)
        lines = text.words(chosen.flatten(0, 1))
        read = model.encode_text(table(lines), normalize=True).view(*chosen.shape[:2], -1)
        score = torch.einsum("nd,nkd->nk", seen, read)
        correct += int((score.argmax(dim=1) == 0).sum())
        cosines += torch.stack((score[:, 0].sum(), score[:, 1:17].mean(dim=1).sum(), score[:, 17:].mean(dim=1).sum()))
    own, near, far = (cosines / count).tolist()
    figures = {"accuracy": correct / count, "cosine_own": own, "cosine_one_off": near, "cosine_other": far}
    return {name: round(value, 4) for name, value in figures.items()}


def train(folder: Path, length: Length, settings: Optimizer, arguments: argparse.Namespace, every: int = 200) -> CLIP:
    """Train or continue in `folder`; returns the averaged model."""
    device = runtime.device()
    torch.manual_seed(0)
    model, pool = clip_model.build(), arguments.pool
    if arguments.start:
        runtime.load_average({"clip": model}, arguments.start)
    model.to(device)
    trainer = Trainer({"clip": model}, settings, length, folder)
    codes, pictures = data.images(pool, 2, device)
    table = word_table()
    compiled = runtime.compiled(loss)
    generator = trainer.generator
    saved = time.monotonic()
    while not trainer.done():
        rows = torch.randint(pool, (settings.batch,), generator=generator, device=device)
        image = augment(data.signed(pictures[rows]), generator)
        own = codes[rows]
        options = torch.cat((own[:, None], scenes.hard_negatives(own, NEGATIVES, generator)), dim=1).flatten(0, 1)
        template = (torch.rand(options.shape[0], generator=generator, device=device) < 0.25).long()
        captions = table(text.words(options, template)).view(settings.batch, 1 + NEGATIVES, -1)
        trainer.update(compiled(model, image, captions))
        if trainer.step % every == 0 or trainer.step == 50:
            trainer.report("clip")
        if time.monotonic() - saved > 120:
            trainer.save()
            saved = time.monotonic()
    trainer.report("clip")
    trainer.save()
    trainer.use_average()
    return model


def load(folder: Path) -> CLIP:
    """The averaged model of a checkpoint."""
    model = clip_model.build()
    runtime.load_average({"clip": model}, folder)
    return model.to(runtime.device()).eval().requires_grad_(False)


def main() -> None:
    """Train, then print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=int, default=POOL, help="rendered scenes")
    arguments, length = runtime.arguments(parser)
    settings, folder = runtime.override(SETTINGS, arguments), arguments.folder
    model = train(folder, length, settings, arguments)
    figures = evaluate(model.eval(), runtime.device(), 64 if arguments.pool < 1000 else 1024)
    print(f"clip {figures}", flush=True)
    runtime.write_json(folder / "figures.json", figures)


if __name__ == "__main__":
    main()
