"""A pocket pipeline as an ordinary Diffusers folder: shared components lie in it, and its card is its README."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from qregress._version import __version__
from qregress.errors import ConfigError, SourceError
from qregress.pipelines import builtin_prompts
from qregress.pipelines.digest import files
from qregress.pipelines.folder import Folder

_CARD, _README = "card.md", "README.md"
#: Says which components are shared, which none is any more, and how to call the pipeline, which the README says.
_SHEET = "pocket.json"
#: What is beside the package in the repository is in no exported folder.
_RELATIVE = r"\((?![a-z]+:|#)[^)]*\)"
_PICTURE = re.compile(rf"^!\[[^\]]*\]{_RELATIVE}\n+", re.MULTILINE)
_LINK = re.compile(rf"!?\[([^\]]*)\]{_RELATIVE}")
_HEADING = re.compile(r"^## ", re.MULTILINE)

#: Stored in float16, which some CPUs hardly compute in; the argument for a dtype has changed its name, ``to`` has not.
_SNIPPET = """\
import torch
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained({place}).to(torch.float32)
{made} = pipeline(
    {prompt},
    generator=torch.Generator().manual_seed(0),
{arguments}).{output}[0]
{save}
"""
_IMAGE = {"made": "image", "output": "images", "save": 'image.save("image.png")'}
_VIDEO = {
    "made": "frames",
    "output": "frames",
    "save": 'frames[0].save("video.gif", save_all=True, append_images=frames[1:], duration=200, loop=0)',
}

_USE = """\
## Use

Exported by `qregress zoo export {name}`, qregress {version}; "this repository", `training/` and `docs/` are those of
qregress. In this folder:

```python
{snippet}```

qregress itself runs it in float16, on a CPU with the VAE in float32:
`torch_dtype={{"vae": torch.float32, "default": torch.float16}}`, in newer releases of Diffusers `dtype`. Most pipelines
do not convert latents to the VAE's dtype: then ask for `output_type="latent"` and decode them yourself.

"""


def export(folder: Folder, target: Path) -> int:
    """Copy a pocket pipeline to a new folder, and return the number of its files.

    The folder appears whole, by one rename, and never in the place of anything but an empty folder. Raises
    ``ConfigError`` for a folder that is taken or cannot be written, ``SourceError`` for files of the package that
    cannot be read.
    """
    contents = _contents(folder)
    try:
        _check_free(target)
        # A rename would replace a link, not what it leads to.
        _put(Path(os.path.realpath(target)), contents)
    except OSError as error:
        why = f"cannot be written: {error.strerror}"
        raise ConfigError(f"{target}: {why}; name a new folder, in one that you may write to") from None
    return len(contents)


def snippet(folder: Folder, place: str) -> str:
    """Python that loads an exported folder from ``place`` and calls it with the arguments that it was made for."""
    arguments = "".join(f"    {name}={value!r},\n" for name, value in folder.call.items())
    prompt, kind = json.dumps(builtin_prompts()[0]), _VIDEO if folder.family.frames else _IMAGE
    return _SNIPPET.format(place=json.dumps(place), prompt=prompt, arguments=arguments, **kind)


def _contents(folder: Folder) -> dict[str, bytes]:
    """Relative name -> bytes of all files of the exported folder."""
    found = {name: _read(path) for name, path in files(folder).items() if name != _SHEET}
    found[_README] = _readme(folder).encode()
    for component, path in folder.shared.items():
        if (path / _CARD).is_file():
            found[f"{component}/{_README}"] = _card(path).encode()
    return found


def _readme(folder: Folder) -> str:
    """The card with shared components named as they are here, and how to call the pipeline."""
    text = _card(folder.path)
    for component, path in folder.shared.items():
        text = text.replace(f"`shared/{path.name}`", f"`{component}/`")
    use = _USE.format(name=folder.path.name, version=__version__, snippet=snippet(folder, "."))
    heading = _HEADING.search(text)
    at = heading.start() if heading else len(text)
    return f"{text[:at].rstrip()}\n\n{use}{text[at:]}".rstrip() + "\n"


def _card(folder: Path) -> str:
    """Without pictures that lie elsewhere in the repository, and with links to what lies there as bare text."""
    return _LINK.sub(r"\1", _PICTURE.sub("", _read(folder / _CARD).decode("utf-8")))


def _check_free(target: Path) -> None:
    """Raise ``ConfigError`` unless there is nothing, or an empty folder that nobody works in."""
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        what = "a link to nowhere" if target.is_symlink() else "a file, not a folder"
        raise ConfigError(f"{target}: is {what}; name a new folder")
    if any(target.iterdir()):
        raise ConfigError(f"{target}: is not empty, and nothing is ever overwritten; name a new folder")
    if target.samefile(Path.cwd()):
        # It would be replaced, and the shell left in a folder that is gone.
        raise ConfigError(f"{target}: is the current folder; name a new folder in it")


def _put(target: Path, contents: Mapping[str, bytes]) -> None:
    """Write files into a folder beside and rename it; parents that are missing come with it. Raises ``OSError``."""
    top = target
    while not top.parent.exists():
        top = top.parent
    temporary = top.with_name(f".{uuid.uuid4().hex}")  # tempfile's own are for their owner's eyes only
    inside = temporary / target.relative_to(top)
    try:
        for name, data in contents.items():
            (inside / name).parent.mkdir(parents=True, exist_ok=True)
            (inside / name).write_bytes(data)
        temporary.rename(top)  # fails where something has come into it meanwhile
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}; install qregress again") from None
