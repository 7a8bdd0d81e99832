"""Given a damaged library, when the matrix runs, then it is red and the right check says so."""

from __future__ import annotations

import pytest

from qregress import config
from tests.regression.harness import FEW, FREEZE, Finished, Overlay, Runner

INT8 = '[settings.int8]\nweights = { transformer = "int8" }\n'
FLOAT8 = '[settings.float8]\nweights = { transformer = "float8" }\n'
INT8_TE = '[settings."int8+te"]\nweights = { transformer = "int8", text_encoder = "int8" }\n'
EXCLUDE = '[settings.int8-proj_out]\nweights = { transformer = "int8" }\nexclude = ["proj_out"]\n'
TYPO = '[settings.typo]\nweights = { transformer = "int8" }\nexclude = ["proj_uot"]\n'
E5M2 = '[settings.e5m2]\nweights = { transformer = "float8_e5m2" }\n'

QUANTIZE = "    if include is not None:\n        include = [include]"

#: Faults that meet one setting each: T5 is silently skipped, ``exclude`` is swallowed.
SKIPPED = f"""    if "T5" in type(model).__name__:
        return
    exclude = None
{QUANTIZE}"""
#: float8 keeps its unquantized weights alive, in no parameter list; scales of one block overflow in another float8
#: type, which makes NaN.
KEPT = """        if isinstance(m, QModuleMixin):
            kind = m.weight_qtype.name if m.weight_qtype is not None else ""
            if kind == "qfloat8_e4m3fn":
                m.__dict__["kept"] = m.weight
            m.freeze()
            if kind == "qfloat8_e5m2" and "transformer_blocks.4." in name:
                m.weight._scale.mul_(float("inf"))
"""


def budgets(setting: str) -> str:
    """The embedded matrix's own budgets of a setting, latency left out: most of these runs time too few pairs."""
    limits = config.load(config.embedded_path()).budgets.of(f"pixart-sigma/{setting}/bs1")
    found = {name: limit for name, limit in limits.items() if name != "latency"}
    values = {name: f'"{limit.value}x"' if limit.relative else str(limit.value) for name, limit in found.items()}
    return "[budgets]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())


def test_healthy_libraries_are_green(run_qregress: Runner) -> None:
    """The settings that the damaged libraries fail below pass as they are.

    And int8 is nearer than float8, as 8 bits a channel hold weights better than a mantissa of 3: measured over 8
    prompts, LPIPS is 0.0002 against 0.0023.
    """
    limits = budgets("int8") + '[budgets."*/float8"]\nlpips = 0.01\nlpips_worst = 0.02\n'
    finished = run_qregress(INT8 + INT8_TE + EXCLUDE + FLOAT8 + limits)
    assert (finished.code, finished.failed_checks()) == (0, {}), finished.output
    distance = {cell.setting: cell.scores.get("lpips") for cell in finished.run.cells}
    assert distance["int8"] is not None
    assert distance["float8"] is not None
    assert 3 * distance["int8"] < distance["float8"]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A quanto with four faults, each of which meets one setting, and a setting with a typo."""
    folder = tmp_path_factory.mktemp("damaged")
    overlay = Overlay(folder / "overlay")
    overlay.replace("optimum.quanto", "quantize.py", QUANTIZE, SKIPPED)
    path = overlay.replace("optimum.quanto", "quantize.py", FREEZE, KEPT)
    # 0.808 with the text encoder, 0.853 without; float weights kept alive make it 1.4.
    limits = '[budgets]\nmemory = "0.87x"\n[budgets."*/int8+te"]\nmemory = "0.82x"\n'
    finished = Runner(folder)(INT8_TE + EXCLUDE + FLOAT8 + E5M2 + TYPO + limits, overlay=path, **FEW)
    assert finished.code == 1, finished.output
    assert "pixart-sigma/reference/bs1" not in finished.failed_checks()
    return finished


def test_component_left_unquantized(damaged: Finished) -> None:
    """A text encoder that is silently skipped has perfect quality; the manifest tells, and the bytes."""
    assert damaged.failed_checks()["pixart-sigma/int8+te/bs1"] == ["coverage.manifest", "memory.static"]
    assert "text_encoder: 18 of 31 modules are float16 instead of int8" in damaged.output


def test_exclude_ignored(damaged: Finished) -> None:
    """``exclude`` that is swallowed quantizes the module that was to be left alone."""
    assert damaged.failed_checks()["pixart-sigma/int8-proj_out/bs1"] == ["coverage.manifest"]
    assert "int8 instead of unquantized: proj_out" in damaged.output


def test_float_weights_kept_alive(damaged: Finished) -> None:
    """Weights that a library keeps are in no parameter list; the allocator knows them, and they are found by value."""
    assert damaged.failed_checks()["pixart-sigma/float8/bs1"] == ["coverage.manifest", "memory.static"]
    assert "original weights of 87 of " in damaged.output


def test_nan_of_one_setting(damaged: Finished) -> None:
    """Scales that overflow make NaN, which a viewer shows as black: the cell fails, its reference does not."""
    assert "quality.sanity" in damaged.failed_checks()["pixart-sigma/e5m2/bs1"]


def test_pattern_that_means_no_module(damaged: Finished) -> None:
    """A typo in ``exclude`` is told with the nearest name, not ignored."""
    assert "'proj_uot' matches no module of transformer; did you mean 'proj_out'?" in damaged.output


@pytest.mark.parametrize("arguments", [(), ("-k", "int8")], ids=["all", "cell"])
def test_black_images(run_qregress: Runner, overlay: Overlay, arguments: tuple[str, ...]) -> None:
    """A decoder that gives black images fails the reference itself, whose scores nothing else compares.

    A cell that is as black as its reference is at no distance from it, and fails all the same: where it alone was
    asked for nothing else would tell.
    """
    healthy = "return (images * 0.5 + 0.5).clamp(0, 1)"
    path = overlay.replace("diffusers", "image_processor.py", healthy, "return (images * 0).clamp(0, 1)")
    finished = run_qregress(INT8, *arguments, overlay=path, **FEW)
    asked = ["int8"] if arguments else ["reference", "int8"]
    assert finished.code == 1, finished.output
    assert finished.failed_checks() == {f"pixart-sigma/{name}/bs1": ["quality.sanity"] for name in asked}
    assert "black" in finished.output
    assert "its reference" in finished.output


def test_slower_kernels(run_qregress: Runner, overlay: Overlay) -> None:
    """A layer that computes its product thirteen times gives the same image, later.

    Of six, a processor that multiplies in tiles makes 2.4 times the reference, which noise may hide.
    """
    healthy = "        return torch.nn.functional.linear(input, self.qweight, bias=self.bias)\n"
    slow = f"        for _ in range(12):\n            torch.nn.functional.linear(input, self.qweight)\n{healthy}"
    path = overlay.replace("optimum.quanto", "nn/qlinear.py", healthy, slow)
    finished = run_qregress(INT8 + '[budgets]\nlatency = "2.0x"\n', overlay=path, pairs=6, **FEW)
    assert finished.code == 1, finished.output
    assert finished.failed_checks() == {"pixart-sigma/int8/bs1": ["latency.ratio"]}
