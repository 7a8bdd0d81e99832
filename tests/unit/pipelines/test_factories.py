"""Registered factories: what becomes of them, and what is wrong with one is a line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from qregress import config, pipelines, registry
from qregress.errors import ConfigError, FactoryError, SourceError
from qregress.matrix import Pipeline
from qregress.pipelines import factories
from qregress.pipelines.assemble import check_apart, family_of
from qregress.produce.variant import assemble
from qregress.produce.worker import describe, details
from qregress.quantize.base import Spec
from qregress.quantize.quanto import apply
from tests.making import CONFIG, write_project
from tests.unit.modules import import_text

HEAD = "import qregress\n"
PLAIN = """
@qregress.pipeline("mine", components=["transformer"])
def mine(dtype, device):
    raise ZeroDivisionError("a bug")
"""


@pytest.fixture(autouse=True)
def _forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers, imports or puts on the import path is forgotten with it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    with registry.scope():
        yield
    as_in_another_process(tmp_path)


def as_in_another_process(folder: Path) -> None:
    """Nothing is registered or imported from a folder, nor is it on the import path."""
    registry._registered.clear()
    sys.path[:] = [entry for entry in sys.path if not entry.startswith(str(folder))]
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(folder)):
            del sys.modules[name]


def conftest(folder: Path, text: str = PLAIN) -> tuple[Pipeline, ...]:
    """What a conftest.py registers."""
    (folder / "conftest.py").write_text(HEAD + text)
    factories.import_conftest(folder)
    return pipelines.registered()


def test_registered(tmp_path: Path) -> None:
    """Given a registered function, then it is a pipeline with all that a worker needs, and crosses a pipe."""
    (found,) = conftest(tmp_path)
    assert (found.name, found.source, found.devices) == ("mine", "factory:mine", ("cpu", "cuda"))
    assert found.factory is not None
    assert (found.factory.file, found.factory.components) == (str(tmp_path / "conftest.py"), ("transformer",))
    assert str(tmp_path) in found.factory.search
    assert pipelines.components(found) == ("transformer",)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Pipeline) == found


@pytest.mark.parametrize("text", ["x = 1\n", "# qregress pipelines\nraise ValueError\n", "pipeline()\n"])
def test_a_conftest_without_factories_is_not_imported(text: str, tmp_path: Path) -> None:
    """Given a conftest.py that does not speak of factories, or none, then nothing is imported."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "conftest.py").write_text(text)
    before = set(sys.modules)
    factories.import_conftest(tmp_path)
    factories.import_conftest(tmp_path / "sub")
    assert set(sys.modules) == before


LOOP = """
for scale in (1, 2):
    @qregress.pipeline(f"lora-{scale}", call={"scale": scale, "image": object()}, trained=False)
    def make(dtype, device, scale=scale):
        return scale
qregress.pipeline("lambda")(lambda dtype, device: 3)
"""


def test_found_in_another_process(tmp_path: Path) -> None:
    """Given functions that no attribute names, when nothing is registered yet, then importing again finds each."""
    found = {pipeline.name: pipeline for pipeline in conftest(tmp_path, LOOP)}
    made = {}
    for name, pipeline in found.items():
        with registry.scope():
            as_in_another_process(tmp_path)
            made[name] = factories.find(pipeline)
    assert {name: each.function(None, "cpu") for name, each in made.items()} == {"lora-1": 1, "lora-2": 2, "lambda": 3}
    assert made["lora-2"].call["scale"] == 2
    assert (made["lora-1"].trained, made["lambda"].trained) == (False, True)


def test_found_in_this_process(tmp_path: Path) -> None:
    """Given a function that this process has registered, then nothing is imported to find it."""
    (found,) = conftest(tmp_path)
    (tmp_path / "conftest.py").unlink()
    with pytest.raises(ZeroDivisionError):
        factories.find(found).function(None, "cpu")


def test_modules_beside_a_conftest(tmp_path: Path) -> None:
    """Given helpers beside it and in its package, then they are imported as for pytest, by the worker too."""
    package = tmp_path / "checks"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "near_helper.py").write_text("scale = 2")
    (tmp_path / "far_helper.py").write_text("scale = 3")
    text = "from . import near_helper\nimport far_helper\n" + PLAIN.replace("raise", "return near_helper.scale #")
    (found,) = conftest(package, text)
    as_in_another_process(tmp_path)
    assert pipelines.find(found).function(None, "cpu") == 2  # type: ignore[union-attr]


def test_a_module_is_imported_by_its_name(tmp_path: Path) -> None:
    """Given a factory in a module that has a name, then the worker imports that, and has its classes once."""
    import_text(tmp_path, "own_pipelines", HEAD + "class A: ...\n" + PLAIN.replace("raise", "return A() #"))
    (found,) = pipelines.registered()
    as_in_another_process(tmp_path)
    made = factories.find(found).function(None, "cpu")
    assert type(made) is sys.modules["own_pipelines"].A


BAD = {
    "no-parentheses": ("@qregress.pipeline\ndef f(d, w): ...", "a registered pipeline has no name; write @qregress"),
    "name": ("@qregress.pipeline('a/b')\ndef f(d, w): ...", "has the name 'a/b', not one of letters"),
    "no-function": ("qregress.pipeline('a')(3)", "pipeline 'a': registers int; expected a function"),
    "components": ("@qregress.pipeline('a', components='vae')\ndef f(d, w): ...", "components: expected a list of"),
    "no-components": ("@qregress.pipeline('a', components=())\ndef f(d, w): ...", "components: empty; name at least"),
    "devices": (
        "@qregress.pipeline('a', devices=['gpu'])\ndef f(d, w): ...",
        "devices: unknown device 'gpu'; did you mean 'cpu'?",
    ),
    "device-types": ("@qregress.pipeline('a', devices=[1])\ndef f(d, w): ...", "devices: expected a list of texts"),
    "no-devices": ("@qregress.pipeline('a', devices=[])\ndef f(d, w): ...", "devices: empty; name at least one"),
    "call": ("@qregress.pipeline('a', call=[1])\ndef f(d, w): ...", "call: expected a dict of arguments, found list"),
    "twice": ("for _ in 'ab':\n    @qregress.pipeline('a')\n    def f(d, w): ...", "pipeline 'a' is registered twice"),
    "import": ("qregress.pipeline('a')(undefined)", "cannot be imported: NameError: name 'undefined' is not defined"),
    "syntax": ("qregress.pipeline(", "cannot be imported: SyntaxError: '(' was never closed"),
}


@pytest.mark.parametrize(("text", "says"), BAD.values(), ids=BAD)
def test_mistake(text: str, says: str, tmp_path: Path) -> None:
    """Given a registration with one mistake, then one line names the file and the mistake."""
    with pytest.raises(ConfigError) as caught:
        conftest(tmp_path, text)
    assert says in str(caught.value)
    assert str(tmp_path / "conftest.py") in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_two_files_with_one_name(tmp_path: Path) -> None:
    """Given the same name in two files, then the line names both; a file imported twice is one."""
    conftest(tmp_path)
    assert len(conftest(tmp_path)) == 1
    (tmp_path / "sub").mkdir()
    with pytest.raises(ConfigError, match=r"registered twice, in .*conftest\.py, line 3, and in .*sub/conftest\.py"):
        conftest(tmp_path / "sub")


def test_not_on_import() -> None:
    """Given a function that something other than an import registers, then no worker could find it."""
    registry.pipeline("mine")(test_not_on_import)
    with pytest.raises(ConfigError, match=r"pipeline 'mine': was not registered by importing a file"):
        pipelines.registered()


def test_a_worker_cannot_find_it(tmp_path: Path) -> None:
    """Given a file that registers here and not in a worker, or cannot be imported there, then one line says so."""
    (found,) = conftest(tmp_path)
    as_in_another_process(tmp_path)
    (tmp_path / "conftest.py").write_text("")
    with pytest.raises(FactoryError, match=r"conftest\.py: registers no pipeline 'mine' when the worker imports it"):
        pipelines.find(found)
    as_in_another_process(tmp_path)
    (tmp_path / "conftest.py").write_text("raise OSError('no disk')")
    with pytest.raises(FactoryError, match=r"cannot be imported by the worker: OSError: no disk") as caught:
        pipelines.find(found)
    assert "raise OSError('no disk')" in details(caught.value)


def install(folder: Path, value: str) -> None:
    """An installed package with an entry point."""
    info = folder / "own-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[qregress.pipelines]\nown = {value}\n")
    sys.path.insert(0, str(folder))


def test_entry_point(tmp_path: Path) -> None:
    """Given a package with an entry point, then its function is registered, whether or not it was imported before."""
    (tmp_path / "own_package.py").write_text(HEAD + PLAIN + PLAIN.replace("mine", "other"))
    install(tmp_path, "own_package:mine")
    for _ in range(2):
        with registry.scope():
            assert [found.name for found in pipelines.registered()] == ["mine"]
    import_text(tmp_path, "uses_it", "import own_package")
    assert [found.name for found in pipelines.registered()] == ["mine"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("own_package:plain", "is no registered function; name one that has @qregress.pipeline"),
        ("own_package", "is no registered function"),
        ("own_package:gone", "cannot be imported: AttributeError"),
        ("no_package:f", "cannot be imported: ModuleNotFoundError: No module named 'no_package'"),
    ],
)
def test_wrong_entry_point(value: str, says: str, tmp_path: Path) -> None:
    """Given an entry point that names no factory, then one line names it."""
    (tmp_path / "own_package.py").write_text("def plain(dtype, device): ...")
    install(tmp_path, value)
    with pytest.raises(ConfigError) as caught:
        pipelines.registered()
    assert str(caught.value).startswith(f"entry point 'own = {value}' of qregress.pipelines: {says}")


def test_conftests_of_a_folder(tmp_path: Path) -> None:
    """Given factories in conftest.py and in tests/conftest.py, then a verb knows both, and nothing stays registered.

    A folder below, one that is hidden, and a conftest.py that speaks of no factory are none of its business.
    """
    for folder, text in {
        ".": PLAIN,
        "tests": PLAIN.replace("mine", "from_tests"),
        "tests/deep": PLAIN.replace("mine", "too_deep"),
        ".hidden": PLAIN.replace("mine", "hidden"),
        "other": "raise ValueError\n",
    }.items():
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "conftest.py").write_text(text if folder == "other" else HEAD + text)
    assert [pipeline.name for pipeline in factories.of_folder(tmp_path)] == ["mine", "from_tests"]
    assert registry.registered() == ()
    (tmp_path / "conftest.py").unlink()
    as_in_another_process(tmp_path)
    (found,) = factories.of_folder(tmp_path)
    assert (found.name, found.source) == ("from_tests", "factory:from_tests")


def test_a_conftest_of_tests_that_cannot_be_imported(tmp_path: Path) -> None:
    """Given a tests/conftest.py with a mistake, then one line names it."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "conftest.py").write_text(HEAD + "qregress.pipeline('a')(undefined)")
    with pytest.raises(ConfigError, match=r"tests/conftest\.py: cannot be imported: NameError"):
        factories.of_folder(tmp_path)


def test_beside_a_configuration(tmp_path: Path) -> None:
    """Given a file with pipelines, then a factory joins them under its settings, and budgets may name it."""
    text = CONFIG.replace(', text_encoder = "int8"', "")
    path = write_project(tmp_path, text + '[budgets."mine/int8/*"]\nlpips = 0.01\n')
    loaded = config.load(path, conftest(tmp_path))
    assert [cell.id for cell in loaded.cells() if "int8/" in cell.id] == ["mine/int8/bs1", "pixart/int8/bs1"]
    assert loaded.budgets.of("mine/int8/bs1")["lpips"].value == 0.01
    with pytest.raises(ConfigError, match="matches no cell"):
        config.load(path)


def test_instead_of_pipelines(tmp_path: Path) -> None:
    """Given a file without pipelines, then the matrix is of the factories."""
    path = write_project(tmp_path, '[settings.int8]\nweights = { transformer = "int8" }\n')
    loaded = config.load(path, conftest(tmp_path))
    assert [cell.id for cell in loaded.cells()] == ["mine/reference/bs1", "mine/int8/bs1"]


def test_a_component_that_it_does_not_have(tmp_path: Path) -> None:
    """Given a setting that names another component than the factory's, then that is told before anything is loaded."""
    path = write_project(tmp_path)
    with pytest.raises(ConfigError, match=r"weights\.text_encoder: pipeline 'mine' has no component 'text_encoder'"):
        config.load(path, conftest(tmp_path))
    unsaid = conftest(tmp_path, PLAIN.replace(', components=["transformer"]', ""))
    assert "mine/int8+te/bs1" in [cell.id for cell in config.load(path, unsaid).cells()]


def test_a_name_that_the_file_has(tmp_path: Path) -> None:
    """Given a factory with a configured pipeline's name, then one line names both places."""
    path = write_project(tmp_path)
    says = r"qregress\.toml: pipelines\.pixart: the name is taken by @qregress\.pipeline in .*conftest\.py; choose"
    with pytest.raises(ConfigError, match=says):
        config.load(path, conftest(tmp_path, PLAIN.replace('"mine"', '"pixart"')))


def test_embedded_settings(tmp_path: Path) -> None:
    """Given no file, then a factory gets the embedded settings that it has the components for, and no budget."""
    text = PLAIN.replace('"mine"', '"pixart-sigma"')
    loaded = config.load(config.embedded_path(), conftest(tmp_path, text))
    names = ["reference", "int8", "int4"]
    assert [cell.id for cell in loaded.cells()] == [f"pixart-sigma/{name}/bs1" for name in names]
    assert loaded.budgets.of("pixart-sigma/int8/bs1") == {}


def test_no_such_source_in_a_file(tmp_path: Path) -> None:
    """Given a source factory: in a file, then it is unknown there: a factory needs no entry."""
    path = write_project(tmp_path, CONFIG.replace("path:pipeline", "factory:mine"))
    with pytest.raises(ConfigError, match="unknown source 'factory:'"):
        config.load(path, conftest(tmp_path))


@pytest.fixture(scope="module")
def pocket() -> Any:
    """A pipeline that a factory may return."""
    return pipelines.load("pocket:pixart-sigma", "float16", "cpu")


def made(result: Any, components: tuple[str, ...] | None = None) -> factories.Made:
    """A factory that returns this, or raises it."""

    def function(dtype: torch.dtype, device: str) -> Any:
        assert (dtype, device) == (torch.float16, "cpu")
        if isinstance(result, Exception):
            raise result
        return result

    return factories.Made(origin="factory 'mine' (here)", function=function, components=components)


def load(result: Any, components: tuple[str, ...] | None = None) -> Any:
    """Call it as the bench does."""
    return pipelines.load(made(result, components), "float16", "cpu")


def test_what_a_factory_returns(pocket: Any) -> None:
    """Given a pipeline of a class of one's own, then it is taken as it is, in evaluation mode."""
    own = type("Own", (type(pocket),), {})(**pocket.components)
    own.transformer.train()
    assert load(own, ("transformer", "vae")) is own
    assert not own.transformer.training
    assert not family_of(own).inferred


def test_what_a_factory_must_not_return(pocket: Any) -> None:
    """Given nothing, an error, another component or class, then one line names the factory and what it did."""
    start = r"factory 'mine' \(here\): "
    with pytest.raises(FactoryError, match=start + "returned NoneType; expected an unquantized DiffusionPipeline"):
        load(None)
    with pytest.raises(FactoryError, match=start + "returned no component 'unet'; allowed: text_encoder, transf"):
        load(pocket, ("unet",))
    with pytest.raises(FactoryError, match=start + r"raised ValueError: no such LoRA") as caught:
        load(ValueError("no such\nLoRA"))
    assert describe(caught.value) == "factory 'mine' (here): raised ValueError: no such LoRA"
    assert "ValueError: no such\nLoRA" in details(caught.value)


def test_a_class_that_is_not_known(pocket: Any) -> None:
    """Given a pipeline in which nothing denoises, or whose class takes what is no component, then one line says so."""
    from diffusers import DiffusionPipeline

    class Strange(DiffusionPipeline):
        def __init__(self, vae: Any) -> None:
            super().__init__()
            self.register_modules(vae=vae)

    with pytest.raises(FactoryError, match="Strange is not known, and none of its components looks like a denoiser"):
        load(Strange(pocket.vae))
    with pytest.raises(FactoryError, match="Bare is no class as diffusers wants it"):
        load(type("Bare", (DiffusionPipeline,), {})())

    class Odd(type(pocket)):  # type: ignore[misc]
        def __init__(
            self, tokenizer: Any, text_encoder: Any, vae: Any, transformer: Any, scheduler: Any, n: int
        ) -> None:
            super().__init__(tokenizer, text_encoder, vae, transformer, scheduler)
            self.n = n

    with pytest.raises(FactoryError, match="Odd is no class as diffusers wants it: arguments that are no components"):
        load(Odd(**pocket.components, n=1))


def test_another_dtype_and_quantized_weights(pocket: Any) -> None:
    """Given weights in another dtype, or quantized ones in any component, then they are refused; a VAE may have any."""
    other = pipelines.load("pocket:pixart-sigma", "float32", "cpu")
    with pytest.raises(SourceError, match=r"text_encoder was loaded as torch\.float32, not as torch\.float16; the fac"):
        load(assemble(pocket, {"text_encoder": other.text_encoder}))
    apply(other.vae, Spec(weights="int8"))
    with pytest.raises(SourceError, match="vae is quantized already"):
        load(assemble(pocket, {"vae": other.vae}))


def test_the_same_modules_twice(pocket: Any) -> None:
    """Given a factory that keeps its modules between two calls, then that is refused: they had another dtype."""
    other = pipelines.load("pocket:pixart-sigma", "float16", "cpu")
    check_apart(other, pocket)
    with pytest.raises(FactoryError, match="returned the same vae twice, for two dtypes; make a new one in every call"):
        check_apart(assemble(other, {"vae": pocket.vae}), pocket)
