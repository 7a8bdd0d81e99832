"""Save what was quantized, load it again, and generate once more: the images must be the same."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from diffusers import DiffusionPipeline

from qregress.matrix import Setting
from qregress.metrics.latents import relative_l2
from qregress.produce.generate import Generated
from qregress.produce.variant import assemble, modules
from qregress.quantize import load_saver
from qregress.record import Roundtrip


def roundtrip(
    pipeline: DiffusionPipeline,
    setting: Setting,
    made: Generated,
    run: Callable[[DiffusionPipeline], Generated],
    folder: Path,
) -> Roundtrip:
    """Through a temporary folder inside ``folder``.

    ``made``: images of some prompts before; ``run`` generates the same again with another pipeline. That a library
    cannot save or load what it quantized is a result like any other.
    """
    saver, parts = load_saver(setting.backend), modules(pipeline)
    dtype = str(made.latents.dtype).removeprefix("torch.")
    nbytes: dict[str, int] = {}
    loaded = {}
    with tempfile.TemporaryDirectory(dir=folder, prefix="roundtrip-") as name:
        for component in setting.weights:
            place = Path(name) / component
            try:
                saver.save(parts[component], place)
                nbytes[component] = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
                loaded[component] = saver.load(place, parts[component])
            except (
                OSError,
                ValueError,
                KeyError,
                TypeError,
                AttributeError,
                RuntimeError,
                NotImplementedError,
            ) as error:
                text = " ".join(str(error).split())
                what = f"{component} ({type(parts[component]).__name__})"
                why = f"{what} cannot be saved and loaded: {type(error).__name__}: {text[:300]}"
                return Roundtrip(disk_bytes=0, components={}, equal=False, latents=(), dtype=dtype, message=why)
    again = run(assemble(pipeline, loaded))
    return Roundtrip(
        disk_bytes=sum(nbytes.values()),
        components=nbytes,
        equal=again.equals(made),
        latents=tuple(relative_l2(a, b) for a, b in zip(again.latents, made.latents, strict=True)),
        dtype=dtype,
    )
