"""What is run: pipelines x settings x workloads, and the cells that they make."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, Literal

import msgspec

DEVICES = ("cpu", "cuda")
#: What pipelines, settings and workloads may be called.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\Z")

DType = Literal["float16", "bfloat16", "float32"]
#: What a setting's images are held against: the FP16 reference, or the unquantized pipeline in the setting's own dtype.
Against = Literal["fp16", "same-dtype"]
Offload = Literal["none", "model", "sequential", "group"]

#: The unquantized setting that every pipeline and workload gets.
REFERENCE = "reference"

#: What a setting may name in place of components, and in place of a pattern, so that it means several pipelines.
DENOISER, TEXT_ENCODERS, FINAL = "denoiser", "text_encoders", "final_projection"
ROLES = (DENOISER, TEXT_ENCODERS)
#: What is certainly no text encoder.
_NO_TEXT = ("transformer", "unet", "vae")
#: Of a setting or workload: what it is called and whom it is for is no part of what it asks for.
_BESIDE = ("name", "pipelines")


def canonical(value: msgspec.Struct) -> dict[str, Any]:
    """What a setting or workload asks for, as plain data: without its name and without what is the default."""
    fields = {field.name: field for field in msgspec.structs.fields(value) if field.name not in _BESIDE}
    given = {name: getattr(value, name) for name in fields}
    asked = {name: v for name, v in given.items() if fields[name].required or v != _default(fields[name])}
    plain: dict[str, Any] = msgspec.to_builtins(asked)
    return plain


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


class Roles(msgspec.Struct, frozen=True, kw_only=True):
    """Which components of a pipeline do what.

    ``text_encoders``: in their order. ``more_denoisers``: of pipelines that have one for each part of the way.
    ``final``: the denoiser's last projection, which is left out by convention where weights have few bits.
    ``fuses_qkv``: whether the denoiser can join its query, key and value projections. ``None``: not known.
    """

    denoiser: str
    text_encoders: tuple[str, ...] = ()
    more_denoisers: tuple[str, ...] = ()
    final: str | None = None
    fuses_qkv: bool | None = None

    def members(self, name: str) -> tuple[str, ...]:
        """The components that a role stands for; of any other name, that component."""
        roles = {DENOISER: (self.denoiser, *self.more_denoisers), TEXT_ENCODERS: self.text_encoders}
        return roles.get(name, (name,))

    def weights(self, asked: dict[str, str]) -> dict[str, str]:
        """Component -> weight type, with components in place of roles; one that is named itself keeps its own type."""
        found: dict[str, str] = {}
        for name in sorted(asked, key=lambda name: name not in ROLES):
            found |= dict.fromkeys(self.members(name), asked[name])
        return found

    def patterns(self, asked: tuple[str, ...]) -> tuple[str, ...]:
        """Patterns, with the final projection's name in place of the word for it, where it is known."""
        return tuple(self.final if pattern == FINAL and self.final is not None else pattern for pattern in asked)


class Factory(msgspec.Struct, frozen=True, kw_only=True):
    """Where a worker finds a function registered with ``@qregress.pipeline``.

    ``module`` and ``file``: of the module whose import registers it. ``search``: the import path of the process that
    registered it. ``components``: those that settings may quantize, ``None`` where it does not say.
    """

    module: str
    file: str
    search: tuple[str, ...]
    components: tuple[str, ...] | None


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline under test: a name and where it comes from.

    ``source`` is ``pocket:NAME`` (trained, inside the package), ``path:FOLDER`` (a local Diffusers folder),
    ``hub:OWNER/NAME@COMMIT``, ``random:NAME@SEED`` (an architecture at full size) or ``factory:NAME`` (a registered
    function, with ``factory``). ``call`` holds arguments of every pipeline call; those
    of a factory may be of any type and stay with it. ``roles``: ``None`` where they are known only once it is loaded.
    """

    name: str
    source: str
    devices: tuple[str, ...]
    call: dict[str, Any] = msgspec.field(default_factory=dict)
    factory: Factory | None = None
    roles: Roles | None = None


class Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a denoiser is trained for its quantization.

    ``steps``: of the optimizer. ``prompts``: generated from by the unquantized pipeline to learn from; none of them is
    the workload's. ``seed``: of the order of what is learned from. ``rate``: Adam's highest learning rate, ``None`` for
    one that suits the weight type.
    """

    steps: int = 600
    prompts: int = 24
    seed: int = 0
    rate: float | None = None


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One way to quantize a pipeline.

    ``weights`` maps a component, or a role, to a weight type (``int8``, ...), ``activations`` some of these to the type
    of their activations; ``calibration``: from how many of the workload's prompts their scales are taken, where the
    backend takes them from any. ``include`` and ``exclude`` hold shell-style patterns over module names inside those
    components. ``dtype`` is the compute dtype of all but the VAE, ``reference`` what the images are held against.
    ``fuse_qkv``: join the denoiser's query, key and value projections before quantizing. ``offload``: how Diffusers
    moves weights between CUDA and the host. ``compile``: the denoiser, with ``torch.compile``. ``roundtrip``: save what
    was quantized, load it again, and compare the images. ``qat``: train the denoiser for its quantization first.
    ``pipelines``: shell-style patterns of names, of those that it is for; empty: of all.
    """

    name: str
    weights: dict[str, str] = msgspec.field(default_factory=dict)
    activations: dict[str, str] = msgspec.field(default_factory=dict)
    calibration: int = 4
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    dtype: DType = "float16"
    reference: Against = "fp16"
    fuse_qkv: bool = False
    offload: Offload = "none"
    compile: bool = False
    roundtrip: bool = False
    qat: Training | None = None
    backend: str = "quanto"
    pipelines: tuple[str, ...] = ()

    @property
    def is_reference(self) -> bool:
        """Whether this is the unquantized setting that the others are compared with."""
        return self.name == REFERENCE

    def unable(self, device: str) -> str | None:
        """Why it cannot be run on a device, whatever is installed, in one line; ``None`` where it can."""
        if self.offload != "none" and not device.startswith("cuda"):
            return f"offload = '{self.offload}' moves weights between a CUDA device and the host, and this is {device}"
        return None

    @property
    def speaks_of_roles(self) -> bool:
        """Whether what it means depends on the pipeline."""
        return not self.weights.keys().isdisjoint(ROLES) or FINAL in {*self.include, *self.exclude}

    def of(self, roles: Roles) -> Setting:
        """The same with the components of one pipeline."""
        return msgspec.structs.replace(
            self,
            weights=roles.weights(self.weights),
            activations=roles.weights(self.activations),
            include=roles.patterns(self.include),
            exclude=roles.patterns(self.exclude),
        )

    def is_for(self, pipeline: str) -> bool:
        """Whether a pipeline of that name gets it."""
        return not self.pipelines or any(fnmatchcase(pipeline, pattern) for pattern in self.pipelines)


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What is generated. ``None`` means the pipeline's own default; prompt ``i`` is generated with ``seed + i``."""

    name: str
    prompts: tuple[str, ...]
    seed: int = 0
    batch_size: int = 1
    height: int | None = None
    width: int | None = None
    steps: int | None = None
    guidance: float | None = None

    def batches(self) -> list[range]:
        """Indices of the prompts of each pipeline call; the last one may be shorter."""
        count = len(self.prompts)
        return [range(start, min(start + self.batch_size, count)) for start in range(0, count, self.batch_size)]

    def timed_batches(self) -> list[range]:
        """Those of the full size, whose seconds may be compared with each other."""
        batches = self.batches()
        return [batch for batch in batches if len(batch) == len(batches[0])]


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """Pipeline x setting x workload: the unit that is run, stored and judged."""

    pipeline: Pipeline
    setting: Setting
    workload: Workload

    @property
    def id(self) -> str:
        """Readable and stable, ``pixart-sigma/int8/bs1``; never derived from a pytest node id."""
        return f"{self.pipeline.name}/{self.setting.name}/{self.workload.name}"

    @property
    def reference_id(self) -> str:
        """The id of the cell that this one is compared with."""
        return reference_of(self.id)


def reference_of(cell_id: str) -> str:
    """The id of the cell that a cell is compared with."""
    pipeline, _, workload = cell_id.split("/")
    return f"{pipeline}/{REFERENCE}/{workload}"


def product(pipelines: Iterable[Pipeline], settings: Iterable[Setting], workloads: Iterable[Workload]) -> list[Cell]:
    """All cells in a stable order: by pipeline and workload, the reference first, then settings as configured.

    A pipeline gets the settings that are for it; a factory that says which components it has, those that need no other.
    Where a pipeline's roles are known, its settings name components.
    """
    chosen = [Setting(name=REFERENCE), *settings]
    ordered = sorted(workloads, key=lambda workload: workload.name)
    return [
        Cell(
            pipeline=pipeline,
            setting=setting.of(pipeline.roles) if pipeline.roles is not None else setting,
            workload=workload,
        )
        for pipeline in sorted(pipelines, key=lambda pipeline: pipeline.name)
        for workload in ordered
        for setting in chosen
        if setting.is_for(pipeline.name) and _has(pipeline.factory, setting)
    ]


def _has(factory: Factory | None, setting: Setting) -> bool:
    """Whether a factory offers what a setting names; which of its components has which role, its class will tell."""
    if factory is None or factory.components is None:
        return True
    offered = {*factory.components, DENOISER}
    if not offered <= {*_NO_TEXT, DENOISER}:
        offered.add(TEXT_ENCODERS)
    return set(setting.weights) <= offered
