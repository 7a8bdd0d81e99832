"""The cache of the Hugging Face hub: where, how big, what is in it. The hub itself is not asked here."""

from __future__ import annotations

import msgspec

from qregress.doctor.facts import Fact
from qregress.errors import one_line
from qregress.units import format_bytes


class Cache(msgspec.Struct, frozen=True):
    """Model repositories and their bytes; ``problem``: why nothing is known of them."""

    folder: str = ""
    repositories: dict[str, int] = {}
    offline: bool = False
    problem: str = ""


def scan() -> Cache:
    """Look through the cache that this environment's huggingface_hub uses."""
    try:
        from huggingface_hub import CacheNotFound, scan_cache_dir
        from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE
    except ImportError as error:
        return Cache(problem=f"huggingface_hub cannot be imported ({error})")
    try:
        found = scan_cache_dir(HF_HUB_CACHE)
    except CacheNotFound:
        return Cache(str(HF_HUB_CACHE), offline=HF_HUB_OFFLINE)
    except (OSError, ValueError) as error:
        return Cache(str(HF_HUB_CACHE), offline=HF_HUB_OFFLINE, problem=one_line(error, None))
    models = {repo.repo_id: int(repo.size_on_disk) for repo in found.repos if repo.repo_type == "model"}
    return Cache(str(HF_HUB_CACHE), models, offline=HF_HUB_OFFLINE)


def fact(cache: Cache) -> Fact:
    """Never a problem: what a run needs of it is fetched."""
    name = "hub cache"
    if cache.problem:
        return Fact(name=name, state="absent", detail=f"{cache.folder}: {cache.problem}".removeprefix(": "))
    if not cache.repositories:
        return Fact(name=name, state="absent", detail=f"none (it would be {cache.folder})")
    count, size = len(cache.repositories), format_bytes(sum(cache.repositories.values()))
    return Fact(name=name, state="ok", detail=f"{cache.folder}: {count} model{'s' * (count > 1)}, {size}")
