"""qregress.toml to a validated matrix; what is wrong with one is in ``test_bad_config.py``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qregress import config, pipelines
from qregress.errors import ConfigError
from qregress.matrix import Setting
from qregress.pipelines import pocket
from tests.architecture_making import write_small
from tests.making import CONFIG, INT8, INT8_TE, REFERENCE, write_folder, write_project


def load(folder: Path, text: str = CONFIG) -> config.Config:
    """Write a project into a folder and load its configuration."""
    return config.load(write_project(folder, text))


def test_whole_configuration(tmp_path: Path) -> None:
    """Given a configuration, when it is loaded, then its cells are in their stable order."""
    loaded = load(tmp_path)
    assert [cell.id for cell in loaded.cells()] == [REFERENCE, INT8, INT8_TE]
    assert loaded.pipelines[0].devices == ("cpu", "cuda")
    assert loaded.settings[0] == Setting(name="int8", weights={"transformer": "int8"})
    assert loaded.workloads[0].prompts == ("a small red circle", "a large blue square")
    assert loaded.budgets.of(INT8)["lpips"].value == 0.05


def test_defaults(tmp_path: Path) -> None:
    """Given a pipeline and no more, then there is one workload of the built-in prompts, and a path means CUDA."""
    loaded = load(tmp_path, '[pipelines.pixart]\nsource = "path:pipeline"')
    assert [cell.id for cell in loaded.cells()] == [REFERENCE]
    assert loaded.pipelines[0].devices == ("cuda",)
    assert loaded.workloads[0].prompts == pipelines.builtin_prompts()
    assert (loaded.metrics.lpips, loaded.metrics.clip) == ("st-alex", "pocket")
    assert (loaded.run.deadline_s, loaded.run.latency_pairs, loaded.run.latency_time_s) == (900.0, 6, 20.0)


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a configuration in another folder, when it is loaded from here, then its paths start beside it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sub"
    folder.mkdir()
    (folder / "prompts.txt").write_text("a red star\n\n  a blue ring  \n")
    loaded = load(folder, CONFIG.replace('["a small red circle", "a large blue square"]', '"prompts.txt"'))
    assert loaded.pipelines[0].source == f"path:{folder / 'pipeline'}"
    assert loaded.workloads[0].prompts == ("a red star", "a blue ring")


def test_architectures_of_files_are_relative_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given an architecture in a file, seeded or not, then its path starts beside the configuration; a name is none."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sub"
    folder.mkdir()
    write_small("sd3", folder / "tiny.toml")
    sources = {"a": "random:tiny.toml", "b": "random:tiny.toml@3", "c": "random:sd3"}
    loaded = load(folder, "\n".join(f'[pipelines.{name}]\nsource = "{source}"' for name, source in sources.items()))
    found = {pipeline.name: pipeline for pipeline in loaded.pipelines}
    assert [found[name].source for name in "abc"] == [
        f"random:{folder / 'tiny.toml'}@0",
        f"random:{folder / 'tiny.toml'}@3",
        "random:sd3@0",
    ]
    assert found["a"].devices == ("cuda",)
    assert found["a"].roles is not None
    assert found["a"].roles.text_encoders == ("text_encoder", "text_encoder_2", "text_encoder_3")


def test_count_takes_the_first_prompts(tmp_path: Path) -> None:
    """Given a count, then as many prompts are taken from the front."""
    loaded = load(tmp_path, CONFIG.replace("[budgets]", "count = 1\n[budgets]"))
    assert loaded.workloads[0].prompts == ("a small red circle",)


def test_setting_with_all_keys(tmp_path: Path) -> None:
    """Given a dtype and excluded modules, then the setting has them."""
    text = CONFIG.replace('"int8" }\n[settings."', '"int8" }\nexclude = ["proj_out"]\ndtype = "bfloat16"\n[settings."')
    assert load(tmp_path, text).settings[0] == Setting(
        name="int8", weights={"transformer": "int8"}, exclude=("proj_out",), dtype="bfloat16"
    )


def test_run_table(tmp_path: Path) -> None:
    """Given a [run] table, then its texts are seconds."""
    loaded = load(tmp_path, CONFIG + '[run]\ndeadline = "2 min"\nlatency_pairs = 9\nlatency_time = "500 ms"')
    assert (loaded.run.deadline_s, loaded.run.latency_pairs, loaded.run.latency_time_s) == (120.0, 9, 0.5)


def test_find(tmp_path: Path) -> None:
    """Given a folder without a configuration, then the embedded one is found; with one, that one."""
    assert config.find(tmp_path) == config.embedded_path()
    (tmp_path / "qregress.toml").touch()
    assert config.find(tmp_path) == tmp_path / "qregress.toml"


def test_embedded_configuration_names_the_studys_settings(tmp_path: Path) -> None:
    """Given the embedded configuration with a stand-in for its weights, then it loads, with eight prompts."""
    write_folder(tmp_path / "pipeline")
    text = config.embedded_path().read_text().replace("pocket:pixart-sigma", "path:pipeline")
    (tmp_path / "qregress.toml").write_text(text)
    loaded = config.load(tmp_path / "qregress.toml")
    names = [setting.name for setting in loaded.settings]
    assert names == ["float8+te", "int8", "int4"]
    assert [(len(load.prompts), load.steps) for load in loaded.workloads] == [(8, None)]


def test_a_clip_folder_is_relative_to_the_configuration(tmp_path: Path) -> None:
    """Like every path in a configuration, whatever folder the command is started in."""
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "open_clip_config.json").write_text("{}", encoding="utf-8")
    path = tmp_path / "qregress.toml"
    text = '[pipelines.pixart-sigma]\nsource = "pocket:pixart-sigma"\n[metrics]\nclip = "local-dir:clip"\n'
    path.write_text(text, encoding="utf-8")
    assert config.load(path).metrics.clip == f"local-dir:{tmp_path / 'clip'}"


def test_call_arguments_of_a_pipeline(tmp_path: Path) -> None:
    """Given arguments that every call of a pipeline needs, then they are kept as they are."""
    text = '[pipelines.a]\nsource = "pocket:pixart-sigma"\ncall = { use_resolution_binning = false }\n'
    (tmp_path / "qregress.toml").write_text(text, encoding="utf-8")
    assert config.load(tmp_path / "qregress.toml").pipelines[0].call == {"use_resolution_binning": False}


SELECTIONS = CONFIG + '[selections]\nfast = ["pixart/int8"]\n[run]\nselect = "fast"\n'


def test_selections(tmp_path: Path) -> None:
    """Given selections, then the configuration's own choice holds where none is named, and all is everything."""
    loaded = load(tmp_path, SELECTIONS)
    assert loaded.selection(None) == ("fast", [INT8])
    assert loaded.selection("all") == ("all", [REFERENCE, INT8, INT8_TE])
    assert load(tmp_path / "other").selection(None)[0] == "all"
    with pytest.raises(ConfigError, match="no selection 'fest'; did you mean 'fast'"):
        loaded.selection("fest")


def test_roles_in_a_configuration(tmp_path: Path) -> None:
    """Given roles in place of components, then cells name the components of their own pipeline."""
    text = CONFIG.replace("transformer =", "denoiser =").replace("text_encoder =", "text_encoders =")
    cells = {cell.id: cell.setting.weights for cell in load(tmp_path, text).cells()}
    assert cells[INT8] == {"transformer": "int8"}
    assert cells[INT8_TE] == {"transformer": "int8", "text_encoder": "int8"}


def test_a_role_that_nobody_has(tmp_path: Path) -> None:
    """Given a setting for text encoders alone and a pipeline without any, then one line says so."""
    path = write_project(tmp_path, CONFIG.replace('transformer = "int8" }\n[', 'text_encoders = "int8" }\n['))
    index = tmp_path / "pipeline" / "model_index.json"
    entries = json.loads(index.read_text())
    index.write_text(json.dumps(entries | {"text_encoder": [None, None]}))
    with pytest.raises(
        ConfigError, match=r"settings\.int8\.weights\.text_encoders: pipeline 'pixart' has no text encoders"
    ):
        config.load(path)


def test_a_role_that_nobody_has_beside_one(tmp_path: Path) -> None:
    """Given a denoiser and text encoders, and none of the latter, then half of a setting is not run for the whole."""
    text = CONFIG.replace('transformer = "int8" }\n[', 'denoiser = "int8", text_encoders = "int8" }\n[')
    path = write_project(tmp_path, text)
    index = tmp_path / "pipeline" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"text_encoder": [None, None]}))
    with pytest.raises(ConfigError, match=r"pipeline 'pixart' has no text encoders"):
        config.load(path)


def test_the_embedded_selection_is_one_pipeline() -> None:
    """Given the embedded configuration, then plain runs take a named part of it, and all families are in the whole."""
    loaded = config.load(config.embedded_path())
    name, quick = loaded.selection(None)
    _, everything = loaded.selection("all")
    assert name == "quick"
    assert {cell.partition("/")[0] for cell in quick} == {"pixart-sigma"}
    assert {cell.partition("/")[0] for cell in everything} == set(pocket.names())
    for pipeline in pocket.names():
        assert {f"{pipeline}/{setting}/bs1" for setting in ("reference", "int8", "float8+te")} <= set(everything)


@pytest.mark.parametrize(
    ("pipeline", "setting", "says"),
    [
        (
            "latte",
            'weights = { denoiser = "int8" }\nfuse_qkv = true',
            "denoiser of pipeline 'latte' has no fuse_qkv_projections",
        ),
        (
            "sd3",
            'weights = { text_encoders = "int8" }\nfuse_qkv = true',
            "weights leave transformer of 'sd3' as it is",
        ),
        ("sd3", 'weights = { text_encoders = "int8" }\nqat = {}', "qat: weights leave transformer of 'sd3' as it is"),
        (
            "sd3",
            'weights = { denoiser = "int8" }\nactivations = { text_encoders = "int8" }',
            "activations.text_encoder: 'sd3' has no such component whose weights are quantized",
        ),
    ],
)
def test_what_a_pipeline_cannot_do(pipeline: str, setting: str, says: str, tmp_path: Path) -> None:
    """Given a key for a component that the setting leaves, or that cannot do it, then it is told at once."""
    path = tmp_path / "qregress.toml"
    path.write_text(f'[pipelines.{pipeline}]\nsource = "pocket:{pipeline}"\n[settings.some]\n{setting}\n')
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert says in str(caught.value)


def test_a_setting_with_everything(tmp_path: Path) -> None:
    """Given every key of a setting, then each is read, and roles become components where the pipeline is known."""
    path = tmp_path / "qregress.toml"
    path.write_text(
        '[pipelines.sd3]\nsource = "pocket:sd3"\n[settings.some]\n'
        'weights = { denoiser = "int8", text_encoders = "float8" }\nactivations = { denoiser = "int8" }\n'
        'calibration = 2\ninclude = ["*attn*"]\nexclude = ["final_projection"]\ndtype = "bfloat16"\n'
        'reference = "same-dtype"\noffload = "model"\nqat = { steps = 9 }\n'
        '[settings.saved]\nweights = { denoiser = "int8" }\nroundtrip = true\nfuse_qkv = true\n'
    )
    settings = {cell.setting.name: cell.setting for cell in config.load(path).cells()}
    setting = settings["some"]
    assert (settings["saved"].roundtrip, settings["saved"].fuse_qkv) == (True, True)
    assert setting.weights == {"transformer": "int8"} | dict.fromkeys(
        ("text_encoder", "text_encoder_2", "text_encoder_3"), "float8"
    )
    assert (setting.activations, setting.calibration) == ({"transformer": "int8"}, 2)
    assert (setting.include, setting.exclude) == (("*attn*",), ("proj_out",))
    assert (setting.dtype, setting.reference, setting.offload) == ("bfloat16", "same-dtype", "model")
    assert (setting.fuse_qkv, setting.roundtrip, setting.compile) == (False, False, False)
    assert setting.qat is not None
    assert (setting.qat.steps, setting.qat.prompts) == (9, 24)
