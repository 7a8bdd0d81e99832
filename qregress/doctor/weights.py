"""The weights of metrics: there and whole, to be downloaded, or neither. Nothing is downloaded."""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import structs

from qregress.config import Metrics
from qregress.doctor.facts import Fact, absence, told
from qregress.doctor.hub import Cache
from qregress.errors import QregressError, typed_line
from qregress.metrics.names import FOLDER_PREFIX, HUB_PREFIX, LPIPS_NAMES, POCKET_CLIP
from qregress.pipelines.folder import check_safetensors, read_json
from qregress.pipelines.pocket import zoo
from qregress.units import format_bytes

_NO_NETWORK = "without a network, put it there by hand"


def weights(named: Metrics | None, cache: Cache) -> tuple[Fact, ...]:
    """A fact for each metric that has a name of its own, and for the configuration's CLIP where that is another."""
    lpips = named.lpips if named is not None else ""
    clip = named.clip if named is not None else ""
    found = [_shift_tolerant(named=lpips == "st-alex")]
    found += [_backbone(name, named=lpips == name) for name in LPIPS_NAMES if name != "st-alex"]
    found.append(_pocket_clip(named=clip == POCKET_CLIP))
    if clip and clip != POCKET_CLIP:
        found.append(_named_clip(clip, cache))
    mark = "; named by the configuration"
    return tuple(structs.replace(fact, detail=fact.detail + mark) if fact.named else fact for fact in found)


def _shift_tolerant(*, named: bool) -> Fact:
    """Loaded, as only that shows that the file is whole."""
    from qregress.metrics.shift_tolerant import load_shift_tolerant, weights_file

    name = "lpips st-alex"
    try:
        _, identity = load_shift_tolerant()
    except QregressError as error:
        return _lacking(name, error, named=named)
    size = format_bytes(weights_file().stat().st_size)
    return Fact(name=name, state="ok", detail=f"{size}, sha256 {identity.sha256[:12]}", named=named)


def _backbone(metric: str, *, named: bool) -> Fact:
    """One of torchvision's networks, in the cache that torch.hub downloads to."""
    from qregress.metrics.lpips import backbone
    from qregress.metrics.weights import digest_file

    name = f"lpips {metric}"
    try:
        known = backbone(metric)
    except Exception as error:  # noqa: BLE001 - torch and torchvision that do not fit each other raise anything
        detail = f"torchvision: {typed_line(error, 200)}"
        return Fact(name=name, state=absence(named=named), detail=detail, how="pip install torchvision", named=named)
    size = f"{known.mebibytes:.0f} MiB" if known.mebibytes else "unknown size"
    if not known.file.is_file():
        how = f"the first run that needs it gets {known.url}; {_NO_NETWORK}"
        detail, cost = f"{known.file.name} is not in {known.file.parent}", f"a download of {size}"
        return Fact(name=name, state="later" if named else "absent", detail=detail, cost=cost, how=how, named=named)
    start = re.search(r"-([0-9a-f]{8,})\.", known.file.name)
    try:
        whole = start is None or digest_file(known.file).startswith(start[1])
    except OSError as error:
        whole, size = False, error.strerror or "unreadable"
    if whole:
        return Fact(name=name, state="ok", detail=f"{known.file}, {size}", named=named)
    detail, how = f"{known.file} is damaged", f"delete it; the next run gets {known.url}"
    return Fact(name=name, state=absence(named=named), detail=detail, how=how, named=named)


def _pocket_clip(*, named: bool) -> Fact:
    """Files of the package: read, and their sizes compared with what they promise."""
    folder, name = zoo() / "clip", "clip pocket"
    try:
        for file in ("open_clip_config.json", "tokenizer.json", "tokenizer_config.json"):
            read_json(folder / file)
        size = _whole(folder / "open_clip_model.safetensors")
    except QregressError as error:
        detail, _ = told(error)
        how = "pip install --force-reinstall qregress, or git checkout of that folder"
        return Fact(name=name, state=absence(named=named), detail=detail, how=how, named=named)
    return Fact(name=name, state="ok", detail=size, named=named)


def _named_clip(spec: str, cache: Cache) -> Fact:
    """The configuration's own CLIP: a folder, or a repository in the hub's cache."""
    name = f"clip {spec}"
    try:
        if spec.startswith(FOLDER_PREFIX):
            return Fact(name=name, state="ok", detail=_folder(Path(spec.removeprefix(FOLDER_PREFIX))), named=True)
        repository = _repository(spec)
    except QregressError as error:
        return _lacking(name, error, named=True)
    if repository in cache.repositories:
        size = format_bytes(cache.repositories[repository])
        return Fact(name=name, state="ok", detail=f"{repository} is in the hub's cache, {size}", named=True)
    detail, how = f"{repository} is not in the hub's cache", f"hf download {repository}"
    if cache.offline:
        how = f"unset HF_HUB_OFFLINE, or on a machine with a network: {how}"
        return Fact(name=name, state="missing", detail=f"{detail}, and HF_HUB_OFFLINE is set", how=how, named=True)
    cost = "a download, mostly 0.3 to 4 GiB"
    return Fact(name=name, state="later", detail=detail, cost=cost, how=f"{how}, or the first run gets it", named=True)


def _folder(folder: Path) -> str:
    read_json(folder / "open_clip_config.json")
    files = sorted(folder.glob("*.safetensors"))
    return (
        ", ".join(f"{file.name} {_whole(file)}" for file in files)
        or "its weights are no safetensors file: not looked at"
    )


def _repository(spec: str) -> str:
    """The hub's repository of a CLIP. Raises ``MetricError`` where open_clip has no such model or weights."""
    if spec.startswith(HUB_PREFIX):
        return spec.removeprefix(HUB_PREFIX).partition("@")[0]
    import open_clip

    from qregress.metrics.clip import open_clip_name

    model, tag = open_clip_name(spec)
    held = str(open_clip.get_pretrained_cfg(model, tag).get("hf_hub", ""))
    return "/".join(held.split("/")[:2])


def _whole(file: Path) -> str:
    check_safetensors(file)
    return format_bytes(file.stat().st_size)


def _lacking(name: str, error: QregressError, *, named: bool) -> Fact:
    detail, how = told(error)
    return Fact(name=name, state=absence(named=named), detail=detail, how=how, named=named)
