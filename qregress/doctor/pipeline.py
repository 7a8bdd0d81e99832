"""One pipeline: which of its components does what, and whether that is known or guessed. No weights are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qregress import config as configuration
from qregress import pipelines
from qregress._version import __version__
from qregress.config import Config
from qregress.doctor.facts import Cells, Diagnosis, Fact, Section
from qregress.errors import ConfigError, nearest
from qregress.matrix import FINAL, REFERENCE, Factory, Pipeline, Setting
from qregress.pipelines import factories
from qregress.pipelines.architecture import Architecture
from qregress.pipelines.families import Family, final_projection
from qregress.pipelines.folder import Described, Folder, read_json
from qregress.pipelines.hub import Repository
from qregress.units import format_bytes


def describe(name: str, path: Path) -> Diagnosis:
    """A pipeline of a configuration, or a source as a configuration would name it.

    Raises ``ConfigError`` where it is neither, ``SourceError`` where its files are not whole.
    """
    pipeline, loaded = None, None
    if ":" not in name:  # a source is looked at without a configuration, which may be what is wrong
        loaded = configuration.load(path, factories.of_folder(Path.cwd()))
        named = {pipeline.name: pipeline for pipeline in loaded.pipelines}
        if name not in named:
            raise ConfigError(f"{path}: no pipeline '{name}'; {nearest(name, named)}, or a source as in pocket:sd3")
        pipeline = named[name]
    sections = []
    if pipeline is not None and pipeline.factory is not None:
        verdict = "its roles are known when a run has called it"
        sections.append(_registered(pipeline.factory))
    else:
        found = pipelines.check(pipeline.source if pipeline is not None else name)
        look = "inferred: look whether that is right; a setting may name components and modules itself"
        verdict = f"{found.class_name}, {look if found.family.inferred else 'a known class'}"
        sections.append(_described(found, pipeline.source if pipeline is not None else name))
    if pipeline is not None and loaded is not None:
        sections.append(_settings(pipeline, loaded))
    return Diagnosis(
        qregress=__version__,
        sections=tuple(sections),
        cells=Cells(),
        problems=(),
        verdict=f"{name}: {verdict}",
        code=0,
    )


def _registered(factory: Factory) -> Section:
    """A function is not called here: it may load anything."""
    names = ", ".join(factory.components) if factory.components is not None else "it does not say"
    return Section(f"registered in {factory.file}", (Fact(name="components", state="ok", detail=names),))


def _described(found: Described, name: str) -> Section:
    family = found.family
    how = "inferred from its components' types" if family.inferred else "known"
    module = _skeleton(found, family)
    facts = [
        Fact(name="class", state="ok", detail=f"{found.class_name}, {how}"),
        *(
            Fact(name="denoiser", state="ok", detail=_component(found, name))
            for name in (family.denoiser, *family.more_denoisers)
        ),
        *_text_encoders(found, family),
        _vae(found, family),
        _final(family, module),
        _fuses(family, module),
    ]
    roles = {family.denoiser, *family.more_denoisers, *family.text_encoders, family.vae}
    others = [name for name in found.components if name not in roles]
    facts += [Fact(name="no role", state="ok", detail=f"{_component(found, name)}, as it is") for name in others]
    trained = "trained" if found.trained else "random weights: quality is not judged"
    facts.append(Fact(name="weights", state="ok", detail=trained))
    if found.call:
        call = ", ".join(f"{key}={value!r}" for key, value in found.call.items())
        facts.append(Fact(name="every call", state="ok", detail=call))
    if isinstance(found, Repository) and found.missing:
        how = "a run that needs it fetches it"
        facts.append(Fact(name="to be fetched", state="absent", detail=format_bytes(found.missing), how=how))
    title = str(found.path) if isinstance(found, Folder) and found.commit is None else name
    return Section(title, tuple(facts))


def _text_encoders(found: Described, family: Family) -> list[Fact]:
    if not family.text_encoders:
        return [Fact(name="text encoders", state="absent", detail="none")]
    return [
        Fact(name=f"text encoder {place}", state="ok", detail=_component(found, name))
        for place, name in enumerate(family.text_encoders, 1)
    ]


def _vae(found: Described, family: Family) -> Fact:
    if family.vae is None:
        return Fact(name="VAE", state="absent", detail="none")
    detail = f"{_component(found, family.vae)}; never quantized unless a setting names it"
    return Fact(name="VAE", state="ok", detail=detail)


def _final(family: Family, module: Any) -> Fact:
    name = family.final
    if name is None and module is not None:
        name = final_projection(name for name, _ in module.named_modules())
    if name is None:
        how = "name it in exclude as its module is called"
        return Fact(name="final projection", state="absent", detail="not known", how=how)
    return Fact(name="final projection", state="ok", detail=f'{name}; exclude = ["{FINAL}"] leaves it out')


def _fuses(family: Family, module: Any) -> Fact:
    fuses = family.fuses_qkv if module is None else hasattr(module, "fuse_qkv_projections")
    detail = {True: "can be fused", False: "cannot be fused", None: "not known"}[fuses]
    return Fact(name="QKV projections", state="ok", detail=detail)


def _component(found: Described, name: str) -> str:
    """Attribute, class, and bytes of its weights where there are files."""
    told = f"{name}: {found.kinds[name][1]}"
    if isinstance(found, Repository):
        return f"{told}, {format_bytes(found.size(name))}"
    if not isinstance(found, Folder):
        return told
    place = found.shared.get(name, found.path / name)
    stored = sum(file.stat().st_size for file in place.glob("*.safetensors"))
    return f"{told}, {format_bytes(stored)}{', shared' if name in found.shared else ''}"


def _skeleton(found: Described, family: Family) -> Any:
    """The denoiser without weights, ``None`` where this diffusers does not have its class or cannot build it."""
    name = family.denoiser
    if isinstance(found, Architecture):
        config = found.parts[name].config
    elif isinstance(found, Repository):
        config = read_json(found.path / name / "config.json")
    elif isinstance(found, Folder):
        config = read_json(found.shared.get(name, found.path / name) / "config.json")
    else:
        return None
    try:
        import diffusers
        import torch

        with torch.device("meta"):
            return getattr(diffusers, found.kinds[name][1]).from_config(config)
    except Exception:  # noqa: BLE001 - a class of one's own, or libraries that cannot be imported: plain doctor says so
        return None


def _settings(pipeline: Pipeline, config: Config) -> Section:
    """What each setting of the configuration quantizes."""
    cells = [cell for cell in config.cells() if cell.pipeline.name == pipeline.name]
    settings = {cell.setting.name: cell.setting for cell in cells if cell.setting.name != REFERENCE}
    facts = [Fact(name=name, state="ok", detail=_asked(setting)) for name, setting in settings.items()]
    return Section(f"settings of {config.path}", tuple(facts) or (Fact(name="none", state="absent"),))


def _asked(setting: Setting) -> str:
    weights = ", ".join(f"{component} {kind}" for component, kind in setting.weights.items())
    exclude = f", without {', '.join(setting.exclude)}" if setting.exclude else ""
    return f"{weights}{exclude}; computes in {setting.dtype}"
