"""Given a damaged library, when the matrix runs, then it is red and the right check says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qregress import config

if TYPE_CHECKING:
    from tests.regression.harness import Overlay, Runner

INT8 = '[settings.int8]\nweights = { transformer = "int8" }\n'
FLOAT8 = '[settings.float8]\nweights = { transformer = "float8" }\n'
INT8_TE = '[settings."int8+te"]\nweights = { transformer = "int8", text_encoder = "int8" }\n'
EXCLUDE = '[settings.int8-proj_out]\nweights = { transformer = "int8" }\nexclude = ["proj_out"]\n'

FREEZE = """        if isinstance(m, QModuleMixin):
            m.freeze()
"""
#: Where how good images are is not the question.
FEW: dict[str, Any] = {"count": 1, "steps": 2}
QUANTIZE = "    if include is not None:\n        include = [include]"


def budgets(setting: str) -> str:
    """The embedded matrix's own budgets of a setting, latency left out: most of these runs time too few pairs."""
    limits = config.load(config.embedded_path()).budgets.of(f"pixart-sigma/{setting}/bs1")
    found = {name: limit for name, limit in limits.items() if name != "latency"}
    values = {name: f'"{limit.value}x"' if limit.relative else str(limit.value) for name, limit in found.items()}
    return "[budgets]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())


def test_healthy_libraries_are_green(run_qregress: Runner) -> None:
    """The settings that the damaged libraries fail below pass as they are."""
    finished = run_qregress(INT8 + INT8_TE + EXCLUDE + budgets("int8"))
    assert (finished.code, finished.failed_checks()) == (0, {}), finished.output


def test_int8_is_nearer_than_float8(run_qregress: Runner) -> None:
    """8 bits a channel hold weights better than a mantissa of 3: measured over 8 prompts, 0.0002 against 0.0023."""
    finished = run_qregress(FLOAT8 + INT8)
    distance = {cell.setting: cell.scores.get("lpips") for cell in finished.run.cells}
    assert finished.code == 0, finished.output
    assert distance["int8"] is not None
    assert distance["float8"] is not None
    assert 3 * distance["int8"] < distance["float8"]


def test_component_left_unquantized(run_qregress: Runner, overlay: Overlay) -> None:
    """A text encoder that is silently skipped has perfect quality; the manifest tells, and the bytes."""
    damaged = f'    if "T5" in type(model).__name__:\n        return\n{QUANTIZE}'
    path = overlay.replace("optimum.quanto", "quantize.py", QUANTIZE, damaged)
    limits = '[budgets]\nmemory = "0.82x"\n'  # 0.808 with the text encoder
    finished = run_qregress(INT8_TE + limits, overlay=path, **FEW)
    assert finished.code == 1, finished.output
    assert finished.failed_checks() == {"pixart-sigma/int8+te/bs1": ["coverage.manifest", "memory.static"]}
    assert "text_encoder" in finished.output


def test_exclude_ignored(run_qregress: Runner, overlay: Overlay) -> None:
    """``exclude`` that is swallowed quantizes the module that was to be left alone."""
    path = overlay.replace("optimum.quanto", "quantize.py", QUANTIZE, f"    exclude = None\n{QUANTIZE}")
    finished = run_qregress(EXCLUDE, overlay=path, **FEW)
    assert finished.code == 1, finished.output
    assert finished.failed_checks() == {"pixart-sigma/int8-proj_out/bs1": ["coverage.manifest"]}
    assert "int8 instead of unquantized: proj_out" in finished.output


def test_black_images(run_qregress: Runner, overlay: Overlay) -> None:
    """A decoder that gives black images fails the reference itself, whose scores nothing else compares."""
    healthy = "return (images * 0.5 + 0.5).clamp(0, 1)"
    path = overlay.replace("diffusers", "image_processor.py", healthy, "return (images * 0).clamp(0, 1)")
    finished = run_qregress("", overlay=path, **FEW)
    assert finished.code == 1, finished.output
    assert finished.failed_checks() == {"pixart-sigma/reference/bs1": ["quality.sanity"]}
    assert "black" in finished.output


def test_black_images_where_only_the_cell_was_asked_for(run_qregress: Runner, overlay: Overlay) -> None:
    """A cell that is as black as its reference is at no distance from it; it fails all the same."""
    healthy = "return (images * 0.5 + 0.5).clamp(0, 1)"
    path = overlay.replace("diffusers", "image_processor.py", healthy, "return (images * 0).clamp(0, 1)")
    finished = run_qregress(INT8, "-k", "int8", overlay=path, **FEW)
    assert finished.code == 1, finished.output
    assert finished.failed_checks() == {"pixart-sigma/int8/bs1": ["quality.sanity"]}
    assert "its reference" in finished.output


def test_float_weights_kept_alive(run_qregress: Runner, overlay: Overlay) -> None:
    """Weights that a library keeps are in no parameter list; the allocator knows them, and they are found by value."""
    kept = FREEZE.replace("            m.freeze()", "            m.__dict__['kept'] = m.weight\n            m.freeze()")
    path = overlay.replace("optimum.quanto", "quantize.py", FREEZE, kept)
    finished = run_qregress(INT8 + '[budgets]\nmemory = "0.87x"\n', overlay=path, **FEW)
    assert finished.code == 1, finished.output
    assert finished.failed_checks() == {"pixart-sigma/int8/bs1": ["coverage.manifest", "memory.static"]}
    assert "original weights of 87 of " in finished.output


def test_slower_kernels(run_qregress: Runner, overlay: Overlay) -> None:
    """A layer that computes its product six times gives the same image, later."""
    healthy = "        return torch.nn.functional.linear(input, self.qweight, bias=self.bias)\n"
    slow = f"        for _ in range(5):\n            torch.nn.functional.linear(input, self.qweight)\n{healthy}"
    path = overlay.replace("optimum.quanto", "nn/qlinear.py", healthy, slow)
    finished = run_qregress(INT8 + budgets("int8") + 'latency = "2.0x"\n', overlay=path, pairs=6)
    assert finished.code == 1, finished.output
    assert finished.failed_checks() == {"pixart-sigma/int8/bs1": ["latency.ratio"]}


def test_nan_of_one_setting(run_qregress: Runner, overlay: Overlay) -> None:
    """Scales that overflow make NaN, which a viewer shows as black: the cell fails, its reference does not."""
    damaged = (
        FREEZE + '            if "transformer_blocks.4." in name:\n                m.weight._scale.mul_(float("inf"))\n'
    )
    path = overlay.replace("optimum.quanto", "quantize.py", FREEZE, damaged)
    finished = run_qregress(INT8, overlay=path, **FEW)
    assert finished.code == 1, finished.output
    assert "quality.sanity" in finished.failed_checks()["pixart-sigma/int8/bs1"]
    assert "pixart-sigma/reference/bs1" not in finished.failed_checks()


def test_pattern_that_means_no_module(run_qregress: Runner) -> None:
    """A typo in ``exclude`` is told with the nearest name, not ignored."""
    finished = run_qregress(EXCLUDE.replace('["proj_out"]', '["proj_uot"]'), **FEW)
    assert finished.code == 1, finished.output
    assert "'proj_uot' matches no module of transformer; did you mean 'proj_out'?" in finished.output
