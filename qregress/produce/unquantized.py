"""The unquantized side of a pipeline's cells: weights, references and initial noise, kept between the cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import torch
from diffusers import DiffusionPipeline

from qregress import pipelines
from qregress.errors import ProduceError
from qregress.matrix import DENOISER, FINAL, Cell, Pipeline, Workload, canonical
from qregress.pipelines.assemble import check_apart, family_of, initial_latents, sample_size, video_length
from qregress.pipelines.digest import source_sha256
from qregress.pipelines.families import final_projection
from qregress.pipelines.folder import Described
from qregress.produce import files
from qregress.produce.generate import Generated, OnStep, call_arguments, drawn_latents, generate, join
from qregress.produce.timing import Spent, synchronize
from qregress.produce.variant import assemble
from qregress.record import Asked
from qregress.store.run import RunFolder


class Unquantized:
    """One pipeline on one device, loaded once per compute dtype and never modified; and what it has made."""

    def __init__(self, pipeline: Pipeline, device: str, out: RunFolder) -> None:
        found = pipelines.find(pipeline)
        self.source = msgspec.structs.replace(found, call=found.call | pipeline.call)
        self.spent = Spent()
        self._device = device
        self._out = out
        self._pristine: dict[str, DiffusionPipeline] = {}
        self._references: dict[str, tuple[Generated, torch.Tensor]] = {}
        self._same_dtypes: dict[tuple[str, str], Generated] = {}
        self._source_sha256 = ""

    def make_room(self, dtype: str) -> None:
        """Drop what neither the reference nor a cell in one dtype needs; on a CPU nothing.

        Memory is what is scarce on a GPU, and no cell may fail for its neighbours.
        """
        if self._device.startswith("cuda"):
            self._pristine = {known: loaded for known, loaded in self._pristine.items() if known in {"float16", dtype}}

    def load(self, dtype: str) -> DiffusionPipeline:
        """The pipeline in one compute dtype; never to be modified."""
        if dtype not in self._pristine:
            with self.spent.on("load"):
                loaded = pipelines.load(self.source, dtype, self._device)
                synchronize(self._device)
            for other in self._pristine.values():
                check_apart(loaded, other)
            self._pristine[dtype] = loaded
        return self._pristine[dtype]

    @property
    def loaded(self) -> tuple[DiffusionPipeline, ...]:
        """What is in memory, of whichever dtype."""
        return tuple(self._pristine.values())

    def pipeline(self, dtype: str) -> DiffusionPipeline:
        """One to call: the same components with a scheduler of its own."""
        return assemble(self.load(dtype), {})

    def call(
        self,
        pipeline: DiffusionPipeline,
        workload: Workload,
        prompts: Sequence[int],
        initial: torch.Tensor,
        on_step: OnStep | None = None,
    ) -> Generated:
        """Call a pipeline of this source, quantized or not, for some prompts of a workload: see ``generate``."""
        with self.spent.on("calls"):  # which end with images on the host
            return generate(pipeline, self.source, workload, prompts, initial, on_step)

    def fitted(self, cell: Cell) -> Cell:
        """With components in place of roles, where those are known only now that the pipeline is loaded."""
        setting = cell.setting
        if not setting.speaks_of_roles:
            return cell
        pipeline = self.load("float16")
        roles = family_of(pipeline)
        if roles.final is None:
            names = (name for name, _ in getattr(pipeline, roles.denoiser).named_modules())
            roles = msgspec.structs.replace(roles, final=final_projection(names))
        offered = cell.pipeline.factory.components if cell.pipeline.factory is not None else None
        if offered is not None:
            encoders = tuple(name for name in roles.text_encoders if name in offered)
            roles = msgspec.structs.replace(roles, text_encoders=encoders)
        lacks = [name for name in setting.weights if not roles.members(name)]
        if DENOISER in setting.weights and offered is not None and not {*roles.members(DENOISER)} <= {*offered}:
            lacks.append(DENOISER)
        if FINAL in {*setting.include, *setting.exclude} and roles.final is None:
            lacks.append(FINAL)
        if lacks:
            raise ProduceError(
                f"setting '{setting.name}' names '{lacks[0]}', and {cell.pipeline.name} "
                f"({type(pipeline).__name__}) is not known to offer any: name components and modules themselves"
            )
        return msgspec.structs.replace(cell, setting=setting.of(roles))

    def initial(self, pipeline: DiffusionPipeline, workload: Workload) -> torch.Tensor:
        """Initial noise of all prompts of a workload, each from its own seed."""
        roles = family_of(pipeline)
        if roles.inferred:
            drawn = [drawn_latents(pipeline, self.source, workload, n) for n in range(len(workload.prompts))]
            return torch.cat(drawn)
        given = call_arguments(self.source, workload)
        height, width = (given.get(side) or sample_size(pipeline, roles) for side in ("height", "width"))
        frames = video_length(pipeline, roles, given)
        seeds = range(workload.seed, workload.seed + len(workload.prompts))
        return torch.cat([initial_latents(pipeline, roles, height, width, seed, frames) for seed in seeds])

    def keep_reference(self, workload: Workload, made: Generated, initial: torch.Tensor) -> None:
        """Remember what the reference of a workload has just made, from which initial noise."""
        self._references[workload.name] = made, initial

    def reference(self, cell: Cell) -> tuple[Generated, torch.Tensor]:
        """The reference's images and initial noise, from memory or, after a worker died, from disk.

        From disk, it must still be warmed up.
        """
        workload = cell.workload
        if workload.name not in self._references:
            record = self._out.record(cell.reference_id)
            images = record.images if record is not None else ()
            made, initial = files.load_generated(self._out.cell(cell.reference_id), images)
            self.call(self.pipeline("float16"), workload, workload.batches()[0], initial)
            self.keep_reference(workload, made, initial)
        return self._references[workload.name]

    def same_dtype(self, cell: Cell, initial: torch.Tensor, on_batch: Callable[[int, int], None]) -> Generated:
        """Images of the unquantized pipeline in the setting's own dtype, made once for a workload."""
        dtype, workload = cell.setting.dtype, cell.workload
        key = dtype, workload.name
        if key not in self._same_dtypes:
            pipeline = self.pipeline(dtype)
            parts = []
            for done, batch in enumerate(workload.batches(), 1):
                parts.append(self.call(pipeline, workload, batch, initial))
                on_batch(done, len(workload.batches()))
            self._same_dtypes[key] = join(parts)
        return self._same_dtypes[key]

    def asked(self, cell: Cell, initial: torch.Tensor) -> Asked:
        """The key of a baseline; a pipeline is digested once.

        What a factory passes to every call may be of any type: it is part of the digest, not of the readable key.
        """
        described = isinstance(self.source, Described)
        if not self._source_sha256:
            call = {} if described else self.source.call
            made = self.source if isinstance(self.source, Described) else self.load("float16")
            self._source_sha256 = source_sha256(made, call)
        return Asked(
            source_sha256=self._source_sha256,
            call=self.source.call if described else {},
            setting=canonical(cell.setting),
            workload=canonical(cell.workload),
            initial_sha256=files.digest(initial),
            reference_dtype=cell.setting.dtype if cell.setting.reference == "same-dtype" else "float16",
        )
