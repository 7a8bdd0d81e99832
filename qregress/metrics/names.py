"""What may stand in ``[metrics]``: checked before anything heavy is imported or any model is loaded."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from qregress.metrics.weights import MetricError

LPIPS_NAMES = ("st-alex", "alex", "vgg", "squeeze")

POCKET_CLIP = "pocket"
HUB_PREFIX = "hf-hub:"
FOLDER_PREFIX = "local-dir:"

CLIP_FORMS = (
    f"'{POCKET_CLIP}', '{HUB_PREFIX}<owner>/<repository>', '{FOLDER_PREFIX}<folder>', "
    "or '<model>/<pretrained tag>' as in 'ViT-B-32/laion2b_s34b_b79k'"
)


def validate_clip_name(spec: str) -> None:
    """Check a CLIP name as far as that is cheap: its form, and that a folder is one. The rest shows when it is loaded.

    Raises ``MetricError`` with one line that says which forms are allowed.
    """
    if spec == POCKET_CLIP:
        return
    if spec.startswith(FOLDER_PREFIX):
        folder = Path(spec.removeprefix(FOLDER_PREFIX))
        if spec == FOLDER_PREFIX or not (folder / "open_clip_config.json").is_file():
            raise MetricError(f"clip = '{spec}': expected a folder with open_clip_config.json and weights in it")
        return
    name = spec.removeprefix(HUB_PREFIX)
    left, slash, right = name.rpartition("/")
    if not (left and slash and right) or any(character.isspace() for character in name):
        near = f"did you mean '{POCKET_CLIP}'? " if get_close_matches(spec, [POCKET_CLIP]) else ""
        raise MetricError(f"clip = '{spec}': not a name of a CLIP model; {near}allowed: {CLIP_FORMS}")
