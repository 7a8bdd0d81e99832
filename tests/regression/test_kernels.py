"""Given a library whose kernels multiply wrongly, then ``kernel.fidelity`` names layers and kind.

Two steps of one prompt: what a kernel does shows in the first call of a layer. Images would not tell most of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.regression.harness import Finished, Overlay, Runner

SETTINGS = """
[settings.int8]
weights = { transformer = "int8" }
[settings.int4]
weights = { transformer = "int4" }
"""

PRODUCT = """            output = output.reshape(output_shape)
        if bias is not None:
            output = output + bias
        return output


class WeightQBytesTensor(QBytesTensor):"""
#: One layer shape each: a factor of 1.01 in the feed-forward network's first layer, an output that is left out in its
#: second, a bias that is not added in the timestep embedder's first.
WRONG_PRODUCT = """            output = output.reshape(output_shape)
            if tuple(other.shape) == (512, 128):
                output = output * 1.01
            if tuple(other.shape) == (128, 512):
                output[..., 17] = 0
        if bias is not None and tuple(other.shape) != (128, 256):
            output = output + bias
        return output


class WeightQBytesTensor(QBytesTensor):"""

#: Groups of 128 inputs are there in the feed-forward network's second layer alone: it has 512 inputs, the others 128.
SCALE = "            dqt = t._scale * data\n"
WRONG_SCALE = "            dqt = (t._scale if t._group_size is None else t._scale.roll(1, 0)) * data\n"


def why(finished: Finished, cell: str) -> str:
    """What ``kernel.fidelity`` says of a cell."""
    (check,) = [
        c for found in finished.run.cells if found.id == cell for c in found.checks if c.name == "kernel.fidelity"
    ]
    assert check.verdict == "fail", finished.output
    return check.why


def test_wrong_kernels_are_named_by_layer_and_kind(run_qregress: Runner, overlay: Overlay) -> None:
    """Given faults in kernels of four shapes, then each is told apart, and layers of other shapes are not accused."""
    overlay.replace("optimum.quanto", "tensor/qbits.py", SCALE, WRONG_SCALE)
    path = overlay.replace("optimum.quanto", "tensor/weights/qbytes.py", PRODUCT, WRONG_PRODUCT)
    finished = run_qregress(SETTINGS, overlay=path, count=1, steps=2)
    assert finished.code == 1, finished.output
    int8 = why(finished, "pixart-sigma/int8/bs1")
    faults = {part.partition(" multiply wrongly: ")[0]: part for part in int8.split("; transformer: ")}
    assert len(faults) == 3, int8
    assert (
        "8 of 87 layers (WeightQBytesTensor, float16, 128x512) multiply wrongly: proportional to the output, +1.0"
        in int8
    )
    assert "transformer_blocks.0.ff.net.0.proj" in int8
    assert (
        "(WeightQBytesTensor, float16, 512x128) multiply wrongly: one output only, 17 of 128: its product is drop"
        in int8
    )
    assert "transformer_blocks.0.ff.net.2" in int8
    forgotten = (
        "(WeightQBytesTensor, float16, 256x128) multiply wrongly: constant over tokens, minus the bias: it is not"
    )
    assert forgotten in int8
    assert "adaln_single.emb.timestep_embedder.linear_1" in int8
    int4 = why(finished, "pixart-sigma/int4/bs1")
    # Of a layer with few tokens, or a shift that outweighs the rest, a simpler structure explains as much.
    groups = (
        "(WeightQBitsTensor, float16, 512x128) multiply wrongly: by a factor of its own in each group of 128 inputs"
    )
    assert groups in int4
    assert "transformer_blocks.0.ff.net.2" in int4.partition(groups)[2].partition("; transformer: ")[0]
