"""That a cell was quantized as it was asked: its manifest, its kernels, its files; and which part carries a loss."""

from __future__ import annotations

from math import inf
from typing import Literal

from msgspec import UNSET, UnsetType, field

from qregress.record.base import Data


class ModuleCoverage(Data, frozen=True, kw_only=True):
    """One module with weights of its own.

    ``expected`` is the weight type that the setting asks for, ``None`` where it asks for none; ``found`` is the type
    that the weight has, ``None`` where it is a plain tensor; ``tensor`` is its class, which names the kernel; ``dtype``
    that of a plain weight, else the one it computes in; ``packing``: how scales lie (``axis 0``, ``group 128``).
    ``activations``: of inputs, the type that is expected and the one that is found; ``UNSET``: neither is quantized.
    """

    name: str
    module: str
    expected: str | None
    found: str | None
    tensor: str
    dtype: str
    bytes: int
    packing: str = ""
    activations: tuple[str | None, str | None] | UnsetType = UNSET


class Coverage(Data, frozen=True, kw_only=True):
    """The manifest of one component.

    ``asked``: the weight type that the setting names for it. ``unmatched``: patterns that match no module of any
    component that the setting names, told of the first. ``kept``: modules whose unquantized weight is still in memory
    beside the quantized one, in ``kept_bytes``. ``idle``: quantized modules that no call of the pipeline has used.
    ``joined``: projection that joining has made -> those that it is made of; ``UNSET``: not asked for.
    """

    modules: tuple[ModuleCoverage, ...]
    asked: str | None = None
    unmatched: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    kept_bytes: int = 0
    idle: tuple[str, ...] = ()
    joined: dict[str, tuple[str, ...]] | UnsetType = UNSET


class LayerFidelity(Data, frozen=True, kw_only=True):
    """What a quantized layer's kernel returned, against a product in float32 (of float32 layers: float64).

    ``inputs``, ``outputs``: of the product (of a convolution, of its unfolded patches), over ``tokens``. ``error``:
    relative Frobenius norm; ``bound``: what roundings in ``dtype`` may make of it. ``where``: where the error is beyond
    what they may be, empty where it is not; ``excess``: how many times the bound it is there; ``kind``: its structure,
    and ``detail`` what of that is the layer's own, ``UNSET`` where nothing is.
    ``loss``: the error of quantization itself, of the weight in relative Frobenius norm, which is judged by nobody.
    ``None``: not finite. ``left_out``: tokens beside them that say nothing of a kernel, as their inputs are not finite
    or too large to be squared; ``UNSET``: none. Where all are, ``tokens`` is 0 and nothing was compared.
    """

    name: str
    tensor: str
    inputs: int
    outputs: int
    dtype: str
    tokens: int
    error: float | None
    bound: float | None
    excess: float | None
    loss: float | None = None
    where: str = ""
    kind: str = ""
    detail: str | UnsetType = UNSET
    left_out: int | UnsetType = UNSET


class Roundtrip(Data, frozen=True, kw_only=True):
    """What was quantized, saved and loaded again.

    ``disk_bytes``: of the files, also by component. ``equal``: whether images and latents are the same bits as before.
    ``latents``: relative L2 of the final latents of each prompt that was generated again, in the setting's ``dtype``.
    ``legal``: where those are not equal, by how much another attention kernel moves the latents of the same prompts.
    ``loaded``: the manifest of what was loaded. ``altered``: parameters and buffers that are not the saved bits.
    ``message``: why a library could not save or load it; then the rest is empty.
    """

    disk_bytes: int
    components: dict[str, int]
    equal: bool
    latents: tuple[float | None, ...]
    dtype: str
    message: str = ""
    legal: tuple[float | None, ...] = ()
    loaded: dict[str, Coverage] = field(default_factory=dict)
    altered: tuple[str, ...] = ()


class Restored(Data, frozen=True, kw_only=True):
    """A part of a quantized pipeline, and the mean distance that is left with it unquantized; ``None``: not finite."""

    name: str
    distance: float | None


class Blame(Data, frozen=True, kw_only=True):
    """Which part of a cell carries its loss: its distance to the reference with one part at a time unquantized.

    ``score``: LPIPS, or for random weights the relative L2 of the final latents; all distances are means of it over
    ``prompts``, places in the record's list. ``distance``: of the cell as it is; ``None``: not finite. Parts that leave
    least come first. ``component``: the one whose blocks were tried, ``None`` where no component's restoring helps;
    ``blocks``: of it, or of the first of ``runs`` of neighbouring blocks, which are tried first where blocks are many.
    """

    score: Literal["lpips", "latents"]
    prompts: tuple[int, ...]
    distance: float | None
    components: tuple[Restored, ...] = ()
    component: str | None = None
    runs: tuple[Restored, ...] = ()
    blocks: tuple[Restored, ...] = ()

    def share(self, part: Restored) -> float:
        """The part of the distance that is gone with it, at most 1; negative where restoring it makes things worse.

        Shares need not add up to 1: two errors that point the same way weigh more together than each alone.
        """
        if self.distance is None:
            return 0.0 if part.distance is None else 1.0
        if part.distance is None:
            return -inf
        return 1 - part.distance / self.distance if self.distance > 0 else 0.0
