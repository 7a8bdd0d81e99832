"""Mistakes that a configuration can have: what to replace, and what the error then says. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.making import CONFIG


class Mistake(NamedTuple):
    """``old`` is replaced by ``new``; the error names ``key`` and says ``says``."""

    old: str
    new: str
    key: str
    says: str

    def write(self, path: Path) -> None:
        """The configuration with this mistake."""
        assert self.old in CONFIG
        path.write_text(CONFIG.replace(self.old, self.new, 1))


_PIPELINE = 'source = "path:pipeline"'
_INT8 = 'weights = { transformer = "int8" }'
_PROMPTS = 'prompts = ["a small red circle", "a large blue square"]'
_BUDGET = "lpips = 0.05"
_NOT_TOML = "not valid TOML"

_STORE = 'store = "none"'
_WAIVER = {
    "cell": '"pixart/int8"',
    "check": '"quality.lpips"',
    "reason": '"known"',
    "issue": '"https://x.test/1"',
    "expires": "2027-06-30",
}


def _whole() -> str:
    """A waiver without a mistake."""
    return "\n".join(["[[waivers]]", *(f"{name} = {value}" for name, value in _WAIVER.items())])


def _waiver(key: str, says: str, header: str = "[[waivers]]", **changes: str | None) -> Mistake:
    """A whole waiver in front of the baselines, some values replaced; ``None``: left out."""
    fields = _WAIVER | changes
    lines = [f"{name} = {value}" for name, value in fields.items() if value is not None]
    return Mistake("[baselines]", "\n".join([header, *lines, "[baselines]"]), key, says)


def _setting(key: str, value: str, says: str, below: str = "") -> Mistake:
    """One more key of a setting, with a value that cannot be."""
    return Mistake(_INT8, f"{_INT8}\n{key} = {value}", f"settings.int8.{key}{below}", says)


MISTAKES = {
    "malformed": Mistake("[budgets]", "[budgets", "", _NOT_TOML),
    "twice": Mistake(_BUDGET, f"{_BUDGET}\n{_BUDGET}", "", _NOT_TOML),
    "table": Mistake("[budgets]", "[budget]", "budget", "unknown table; did you mean 'budgets'?"),
    "pipeline-key": Mistake("source =", "sourc =", "pipelines.pixart.sourc", "did you mean 'source'?"),
    "pipeline-no-key": Mistake(_PIPELINE, "", "pipelines.pixart", "missing required field `source`"),
    "pipeline-name": Mistake("[pipelines.pixart]", '[pipelines."a/b"]', "pipelines.'a/b'", "a name is made of letters"),
    "pipeline-table": Mistake("[pipelines.pixart]", "[[pipelines]]", "pipelines", "expected tables like"),
    "scheme": Mistake("path:pipeline", "pth:pipeline", "pipelines.pixart.source", "'pth:'; did you mean 'path'?"),
    "no-scheme": Mistake(
        "path:pipeline", "pipeline", "pipelines.pixart.source", "has no scheme; allowed: hub, path, pocket, random"
    ),
    "no-folder": Mistake("path:pipeline", "path:", "pipelines.pixart.source", "names no folder"),
    "folder": Mistake("path:pipeline", "path:pipelime", "pipelines.pixart.source", "no such folder"),
    "revision": Mistake("path:pipeline", "hub:a/b", "pipelines.pixart.source", "hub:a/b: names no revision"),
    "architecture": Mistake("path:pipeline", "random:sd4", "pipelines.pixart.source", "unknown architecture 'sd4'"),
    "pocket": Mistake("path:pipeline", "pocket:pixart-sigmo", "pipelines.pixart.source", "unknown pocket pipeline"),
    "device": Mistake('"cpu", "cuda"', '"cpu", "cudo"', "pipelines.pixart.devices", "did you mean 'cuda'?"),
    "no-device": Mistake('"cpu", "cuda"', "", "pipelines.pixart.devices", "empty; allowed: cpu, cuda"),
    "setting-key": Mistake(_INT8, f"{_INT8}\nexlude = []", "settings.int8.exlude", "did you mean 'exclude'?"),
    "setting-name": Mistake("[settings.int8]", "[settings.reference]", "settings.reference", "choose another name"),
    "component": Mistake("transformer =", "transformr =", "settings.int8.weights.transformr", "'transformer'?"),
    "weight-type": Mistake('"int8"', '"in8"', "settings.int8.weights.transformer", "did you mean 'int8'?"),
    "weight-kind": Mistake('"int8"', "8", "settings.int8.weights.transformer", "unknown weight type '8'; allowed:"),
    "no-weights": Mistake(_INT8, "weights = {}", "settings.int8.weights", "empty; name a component"),
    "dtype": Mistake(_INT8, f'{_INT8}\ndtype = "floot16"', "settings.int8.dtype", "did you mean 'float16'?"),
    "backend": Mistake(_INT8, f'{_INT8}\nbackend = "quonto"', "settings.int8.backend", "did you mean 'quanto'?"),
    "pipelines": Mistake(
        _INT8, f'{_INT8}\npipelines = ["pixert"]', "settings.int8.pipelines", "'pixert' matches no pipeline; did you"
    ),
    "role": Mistake("transformer =", "denoisers =", "settings.int8.weights.denoisers", "did you mean 'denoiser'?"),
    "selection": Mistake(
        "[baselines]",
        '[selections]\nfast = ["pixart/in8"]\n[baselines]',
        "selections.fast",
        "'pixart/in8' matches no cell",
    ),
    "selection-all": Mistake(
        "[baselines]", '[selections]\nall = ["pixart"]\n[baselines]', "selections.all", "choose another name"
    ),
    "selection-kind": Mistake(
        "[baselines]", '[selections]\nfast = "pixart"\n[baselines]', "selections.fast", "expected a list of cells"
    ),
    "select": Mistake(
        "[baselines]", '[run]\nselect = "fast"\n[baselines]', "run.select", "no selection 'fast'; allowed: all"
    ),
    "include": Mistake(_INT8, f'{_INT8}\ninclude = "attn"', "settings.int8.include", "expected `array`, got `str`"),
    "against": _setting("reference", '"fp32"', "unknown reference 'fp32'"),
    "offload": _setting("offload", '"cpu"', "unknown offload 'cpu'; allowed: group, model, none, sequential"),
    "compiled-and-offloaded": _setting("compile", 'true\noffload = "model"', "weights move between calls"),
    "fused-activations": _setting(
        "fuse_qkv", 'true\nactivations = { transformer = "int8" }', "with activations quanto cannot split"
    ),
    "saved-and-offloaded": _setting("roundtrip", 'true\noffload = "group"', "not where they could be saved from"),
    "saved-and-compiled": _setting("roundtrip", "true\ncompile = true", "what is loaded is not compiled"),
    "activation-type": _setting("activations", '{ transformer = "int4" }', "int4", ".transformer"),
    "activations-of-nothing": _setting("activations", '{ vae = "int8" }', "its weights are not quantized", ".vae"),
    "activations-of-another-backend": _setting(
        "activations", '{ transformer = "int8" }\nbackend = "diffusers"', "quantizes weights only; these quantize both"
    ),
    "activations-of-another-type": _setting(
        "activations", '{ transformer = "float8" }\nbackend = "torchao"', "expected 'int8'", ".transformer"
    ),
    "calibration": _setting("calibration", "0", "expected one prompt or more, found 0"),
    "include-of-another-backend": _setting("include", '["*"]\nbackend = "diffusers"', "cannot be told which modules"),
    "fuse-of-another-backend": _setting("fuse_qkv", 'true\nbackend = "diffusers"', "fusing must come before"),
    "roundtrip-of-another-backend": _setting("roundtrip", 'true\nbackend = "torchao"', "has no way to save"),
    "qat-of-another-backend": _setting("qat", '{}\nbackend = "torchao"', "cannot be trained through"),
    "qat-key": _setting("qat", "{ step = 3 }", "unknown field `step`"),
    "qat-steps": _setting("qat", "{ steps = 0 }", "expected one step and one prompt or more, found 0 and 24"),
    "qat-rate": _setting("qat", "{ rate = 0.0 }", "expected a number above zero, found 0.0", ".rate"),
    "qat-rate-infinite": _setting("qat", "{ rate = inf }", "expected a number above zero, found inf", ".rate"),
    "dtype-of-a-kernel": Mistake(
        _INT8,
        'weights = { transformer = "int4" }\nbackend = "torchao"',
        "settings.int8.dtype",
        'computes int4 weights in bfloat16 alone, not in float16; set dtype = "bfloat16"',
    ),
    "exclude": Mistake(_INT8, f'{_INT8}\nexclude = "proj_out"', "settings.int8.exclude", "expected `array`, got `str`"),
    "workload-key": Mistake(_PROMPTS, "promts = []", "workloads.bs1.promts", "did you mean 'prompts'?"),
    "seed": Mistake(_PROMPTS, "seed = -1", "workloads.bs1.seed", "expected zero or more, found -1"),
    "seed-type": Mistake(_PROMPTS, 'seed = "0"', "workloads.bs1.seed", "expected `int`, got `str`"),
    "steps": Mistake(_PROMPTS, "steps = 0", "workloads.bs1.steps", "expected one or more, found 0"),
    "steps-type": Mistake(_PROMPTS, "steps = 1.5", "workloads.bs1.steps", "got `float`"),
    "batch": Mistake(_PROMPTS, "batch_size = 0", "workloads.bs1.batch_size", "expected one or more, found 0"),
    "width": Mistake(_PROMPTS, "width = -8", "workloads.bs1.width", "expected one or more, found -8"),
    "guidance": Mistake(_PROMPTS, "guidance = nan", "workloads.bs1.guidance", "expected a number from zero, found nan"),
    "count": Mistake(_PROMPTS, f"{_PROMPTS}\ncount = 3", "workloads.bs1.count", "asks for 3 prompts of 2"),
    "no-prompts": Mistake(_PROMPTS, "prompts = []", "workloads.bs1.prompts", "name at least one prompt"),
    "empty-prompt": Mistake(_PROMPTS, 'prompts = ["a", " "]', "workloads.bs1.prompts", "an empty prompt"),
    "prompt-type": Mistake(_PROMPTS, "prompts = [1]", "workloads.bs1.prompts", "expected `str`, got `int`"),
    "prompt-file": Mistake(_PROMPTS, 'prompts = "promts.txt"', "workloads.bs1.prompts", "No such file"),
    "prompt-binary": Mistake(_PROMPTS, 'prompts = "binary"', "workloads.bs1.prompts", "not UTF-8"),
    "prompt-empty": Mistake(_PROMPTS, 'prompts = "empty"', "workloads.bs1.prompts", "an empty prompt list"),
    "lpips": Mistake("[budgets]", '[metrics]\nlpips = "st-alx"\n[budgets]', "metrics.lpips", "did you mean 'st-alex'?"),
    "clip": Mistake("[budgets]", '[metrics]\nclip = "pocet"\n[budgets]', "metrics.clip", "allowed: 'pocket'"),
    "metric": Mistake("[budgets]", '[metrics]\nlpip = "vgg"\n[budgets]', "metrics.lpip", "did you mean 'lpips'?"),
    "metrics": Mistake("\n[pipelines", '\nmetrics = "vgg"\n[pipelines', "metrics", "expected a table, found str"),
    "budget-key": Mistake(_BUDGET, "lpps = 0.05", "budgets.lpps", "did you mean 'lpips'?"),
    "budget-value": Mistake(_BUDGET, "lpips = -0.05", "budgets", "lpips: expected a number from zero, found -0.05"),
    "budget-type": Mistake(_BUDGET, "lpips = true", "budgets", "lpips: expected a number from zero, found True"),
    "budget-unit": Mistake(_BUDGET, 'memory = "5 GB"', "budgets", "one of B, KiB, MiB, GiB, TiB"),
    "budget-bare": Mistake(_BUDGET, "latency = 1.6", "budgets", 'latency: expected a text like "1.6 s" or "0.50x"'),
    "budget-factor": Mistake(_BUDGET, 'latency = "fastx"', "budgets", "latency: expected a number and one of x"),
    "budget-cell": Mistake(_BUDGET, '[budgets."pixort/int8"]\nlpips = 1', 'budgets."pixort/int8"', "matches no cell"),
    "run": Mistake("[budgets]", '[run]\ndeadline = "soon"\n[budgets]', "run.deadline", "expected a number and one of"),
    "run-pairs": Mistake("[budgets]", "[run]\nlatency_pairs = 0\n[budgets]", "run.latency_pairs", "found 0"),
    "run-blame": Mistake("[budgets]", '[run]\nblame = "no"\n[budgets]', "run.blame", "expected `bool`, got `str`"),
    "device-type": Mistake(
        _BUDGET, "device = 1", "budgets", 'device: expected a text like "cuda-nvidia-h100*", found 1'
    ),
    "device-empty": Mistake(_BUDGET, 'device = " "', "budgets", "device: expected a text like"),
    "device-scoped": Mistake(_BUDGET, '[budgets."pixart"]\ndevice = []', 'budgets."pixart"', "device: expected a text"),
    "waiver-check": _waiver("waivers[0].check", "did you mean 'quality.lpips'?", check='"quality.lpip"'),
    "waiver-cell": _waiver(
        "waivers[0].cell", "matches no cell; did you mean 'pixart/int8/bs1'?", cell='"pixart/int9/bs1"'
    ),
    "waiver-no-issue": _waiver("waivers[0]", "missing required field `issue`", issue=None),
    "waiver-link": _waiver("waivers[0].issue", "expected a link like https://…, found '#17'", issue='"#17"'),
    "waiver-link-spaces": _waiver("waivers[0].issue", "expected a link", issue='"https://x y"'),
    "waiver-reason": _waiver("waivers[0].reason", "empty; say why this check fails", reason='" "'),
    "waiver-no-reason": _waiver("waivers[0]", "missing required field `reason`", reason=None),
    "waiver-no-end": _waiver("waivers[0]", "missing required field `expires`", expires=None),
    "waiver-date-text": _waiver(
        "waivers[0].expires", "expected `date`, got `str`, as in 2027-06-30, without quotes", expires='"2027-06-30"'
    ),
    "waiver-datetime": _waiver("waivers[0].expires", "expected `date`, got `datetime`", expires="2027-06-30T00:00:00"),
    "waiver-zoned": _waiver("waivers[0].expires", "expected `date`, got `datetime`", expires="2027-06-30T00:00:00Z"),
    "waiver-year": _waiver("waivers[0].expires", "expected `date`, got `int`", expires="2027"),
    "waiver-key": _waiver("waivers[0].expire", "unknown key; did you mean 'expires'?", expire="2027-06-30"),
    "waiver-twice": _waiver("waivers[1].cell", "matches no cell", f"{_whole()}\n[[waivers]]", cell='"nothing"'),
    "waiver-table": _waiver("waivers", "expected tables like [[waivers]]", "[waivers]"),
    "waiver-named": _waiver("waivers", "expected tables like [[waivers]]", "[waivers.one]"),
    "waiver-text": Mistake(
        "\n[pipelines", '\nwaivers = ["a"]\n[pipelines', "waivers[0]", "expected a table, found str"
    ),
    "store": Mistake(_STORE, 'store = "image"', "baselines.store", "did you mean 'images'?"),
    "store-type": Mistake(_STORE, "store = true", "baselines.store", "expected `str`, got `bool`"),
    "store-path": Mistake(_STORE, "path = 1", "baselines.path", "expected `str | null`, got `int`"),
    "store-empty-path": Mistake(_STORE, 'path = ""', "baselines.path", "empty"),
    "store-key": Mistake(_STORE, 'paths = "x"', "baselines.paths", "unknown key; did you mean 'path'?"),
    "baseline": Mistake("[baselines]", "[baseline]", "baseline", "unknown table; did you mean 'baselines'?"),
    "baselines": Mistake("[baselines]", "[[baselines]]", "baselines", "expected a table, found list"),
    "line-break": Mistake("[budgets]", '["bud\\ngets"]', "bud\\ngets", "unknown table; did you mean 'budgets'?"),
}

PARAMETERS = [pytest.param(mistake, id=name) for name, mistake in MISTAKES.items()]
