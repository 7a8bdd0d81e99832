"""``random:``: what an architecture is made of, as data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qregress import pipelines
from qregress.errors import QregressError
from qregress.pipelines import architecture
from qregress.pipelines.digest import source_sha256
from tests.architecture_making import SMALL, write_small


def test_names() -> None:
    """All seven families of the study are there, small ones for tests too."""
    expected = {"pixart-sigma", "pixart-alpha", "sd3", "aura-flow", "hunyuan-dit", "lumina", "latte"}
    assert set(architecture.names()) == set(SMALL) == expected


@pytest.mark.parametrize("name", architecture.names())
def test_find(name: str) -> None:
    """Given a name, then its roles are those of the family, its weights are random, and it runs on CUDA alone."""
    found = pipelines.check(f"random:{name}")
    assert (found.trained, found.default_devices, found.family.inferred) == (False, ("cuda",), False)
    assert {found.family.denoiser, *found.family.text_encoders, "vae"} == set(found.components)
    assert {"scheduler", "tokenizer"} <= set(found.kinds) - set(found.components)


def test_a_file_changes_an_architecture_table_by_table(tmp_path: Path) -> None:
    """Given a file with a base, then what it says is changed and all else is the base's, parts included."""
    path = tmp_path / "mine.toml"
    path.write_text(
        'base = "pixart-sigma"\n[components.transformer]\nconfig = { num_layers = 2 }\n'
        "[components.text_encoder.config]\nnum_layers = 1\n"
    )
    mine, base = architecture.find(str(path)), architecture.find("pixart-sigma")
    assert mine.parts["transformer"].config == base.parts["transformer"].config | {"num_layers": 2}
    assert mine.parts["text_encoder"].config == base.parts["text_encoder"].config | {"num_layers": 1}
    assert mine.parts["vae"] == base.parts["vae"]
    beside = tmp_path / "again.toml"
    beside.write_text('base = "mine.toml"\n')
    assert architecture.find(str(beside)).parts == mine.parts


def test_digest(tmp_path: Path) -> None:
    """Given another seed, another number, or another file for a tokenizer, then another digest; another name, none."""
    one = write_small("latte", tmp_path / "one.toml")
    two = tmp_path / "two.toml"
    two.write_text(one.read_text())
    three = tmp_path / "three.toml"
    three.write_text(
        one.read_text().replace('"num_layers": 2', '"num_layers": 3').replace("num_layers = 2", "num_layers = 3")
    )
    digests = [source_sha256(architecture.find(str(path))) for path in (one, two, three)]
    assert digests[0] == digests[1] == source_sha256(architecture.find(f"{one}@0"))
    assert digests[0] not in {digests[2], source_sha256(architecture.find(f"{one}@1"))}
    three.write_text(one.read_text() + '\n[components.tokenizer]\nfiles = "sd3/tokenizer_3"\n')
    assert source_sha256(architecture.find(str(three))) != digests[0]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("random:sd4", "unknown architecture 'sd4'; did you mean 'sd3'? allowed: aura-flow, hunyuan-dit, la"),
        ("random:", "unknown architecture ''; allowed: aura-flow, "),
        ("random:sd3@x", "random: '@x' is no seed; write a whole number from 0 behind the @, or leave it out"),
        ("random:sd3@-1", "random: '@-1' is no seed; "),
        (f"random:sd3@{2**63}", f"random: '@{2**63}' is no seed; "),
        ("random:nowhere.toml", "nowhere.toml: cannot be read: No such file or directory; expected an architecture"),
    ],
)
def test_wrong_source(source: str, says: str) -> None:
    """Given what is no architecture, then one line says what is."""
    with pytest.raises(QregressError) as caught:
        pipelines.check(source)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("base = ", "not valid TOML"),
        ("base = 3", "base: expected a name, found 3"),
        ('base = "sd4"', "unknown architecture 'sd4'; did you mean 'sd3'?"),
        ('base = "it.toml"', "is its own base"),
        ('base = "sd3"\nnames = 1', "Object contains unknown field `names`"),
        ('pipeline = "X"', "components: expected a table of tables"),
        ('base = "sd3"\n[components.vae]\ngain = "x"', "Expected `float`, got `str` - at `$.components[...].gain`"),
        ('base = "sd3"\n[components.vae]\nclass = "VAE"', "components.vae.class: 'VAE' is no diffusers.CLASS"),
        ('base = "sd3"\n[components.tokenizer]\nfiles = "sd4"', "tokenizer.files: the zoo has no folder 'sd4'"),
        ('base = "sd3"\n[components.vae]\npart = "vea"', "vea.toml: cannot be read: No such file or directory"),
    ],
)
def test_wrong_file(text: str, says: str, tmp_path: Path) -> None:
    """Given a file that is none, then one line says what is wrong with which."""
    path = tmp_path / "it.toml"
    path.write_text(text)
    with pytest.raises(QregressError) as caught:
        pipelines.check(f"random:{path}")
    assert says in str(caught.value)


def test_no_torch_is_imported() -> None:
    """Collecting tests of full-size pipelines takes no second."""
    code = "import sys; from qregress import pipelines; pipelines.check('random:sd3'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
