"""Which bytes a pipeline is made of: the part of a baseline's key that no name can stand for."""

from __future__ import annotations

import hashlib
from pathlib import Path

from qregress.metrics.weights import digest_file
from qregress.pipelines.folder import Folder

#: What lies in a folder and changes no image.
_PAPERS = {".md", ".png", ".webp", ".jpg"}


def source_sha256(folder: Folder) -> str:
    """SHA-256 over the relative names and contents of a pipeline's own and shared files, hex."""
    digest = hashlib.sha256()
    for root in ("", *sorted(folder.shared)):
        base: Path = folder.shared[root] if root else folder.path
        for path in sorted(base.rglob("*")):
            if path.is_file() and path.suffix not in _PAPERS and path.name not in {"training.json", "scores.json"}:
                digest.update(f"{root}/{path.relative_to(base).as_posix()} {digest_file(path)}\n".encode())
    return digest.hexdigest()
