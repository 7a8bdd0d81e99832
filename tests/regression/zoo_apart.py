"""Pocket pipelines in a process that may not reach a network: ``python zoo_apart.py FOLDER``.

Draws with each of them as qregress loads it, and with a copy of it in FOLDER as Diffusers alone loads that; writes the
images to FOLDER, and what tried to reach a network. Imported, it is what draws in the other process.
"""

from __future__ import annotations

import json
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from qregress import pipelines
from qregress.pipelines import pocket
from qregress.pipelines.assemble import accept_latents
from qregress.pipelines.export import export

STEPS = 2
#: What any code under Python asks the system for, whichever library it is in, and however early that was imported.
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg")


def draw(pipeline: DiffusionPipeline, call: dict[str, Any]) -> torch.Tensor:
    """The image of the first builtin prompt, as a pipeline returns it: float32 in [0, 1]."""
    output = pipeline(
        prompt=pipelines.builtin_prompts()[0],
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
        **call | {"num_inference_steps": STEPS},
    )
    return torch.as_tensor(output[0])


def load_plain(folder: Path) -> DiffusionPipeline:
    """As a user of Diffusers alone loads a folder, in the dtypes of qregress; its VAE is told to convert latents."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the argument's new name is unknown to older releases
        pipeline = DiffusionPipeline.from_pretrained(
            str(folder), torch_dtype={"vae": torch.float32, "default": torch.float16}
        )
    accept_latents(pipeline.vae)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def main() -> None:
    """Draw everything, without a network."""
    attempts: list[str] = []

    def forbid(event: str, arguments: tuple[object, ...]) -> None:
        if event in NETWORK:
            attempts.append(f"{event}: {arguments[-2:]}")
            raise OSError("no network in this test")

    sys.addaudithook(forbid)
    try:
        socket.create_connection(("huggingface.co", 443), timeout=1)
    except OSError:
        guarded = len(attempts)
    attempts.clear()
    folder = Path(sys.argv[1])
    for name in pocket.names():
        source = pocket.find(name)
        drawn = {"pocket": draw(pipelines.load(source, "float16", "cpu"), source.call)}
        export(source, folder / name)
        drawn["plain"] = draw(load_plain(folder / name), source.call)
        torch.save(drawn, folder / f"{name}.pt")
    (folder / "network.json").write_text(json.dumps({"guarded": guarded, "attempts": attempts}), encoding="utf-8")


if __name__ == "__main__":
    main()
