"""Quantization-aware training: a short fine-tune of a quantized denoiser towards its unquantized self.

The unquantized denoiser is the teacher, so no images and no captions are needed: both get the inputs that the teacher
meets while its pipeline generates, and what the student predicts is pulled to what the teacher does, as is what each
of its blocks returns, as FitNets' hints do (arXiv:1412.6550): without that the predictions of what is learned from come
as close, or closer, but the images of other prompts do not. Weights are quantized anew at every step, and gradients
pass through that as if it were not there: the straight-through estimator of Bengio et al. (arXiv:1308.3432).
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from diffusers import DiffusionPipeline
from torch import nn

from qregress.errors import ProduceError
from qregress.matrix import Training, Workload
from qregress.pipelines import builtin_prompts
from qregress.pipelines.assemble import family_of, video_length
from qregress.pipelines.folder import Source
from qregress.produce.generate import call_arguments
from qregress.produce.nested import nested, tensors, to
from qregress.produce.student import Student
from qregress.produce.variant import assemble
from qregress.quantize.base import Spec
from qregress.quantize.copies import copies
from qregress.record import Trained

_BATCH = 4  # prompts of a pipeline call, and so of a training step
_WARM_UP = 0.05  # of all steps
#: Learning rates. The closer the levels, the less is wrong at the start, and the sooner too high a rate makes it worse.
_RATES = {"int2": 3e-4, "int4": 1e-4}
_RATE = 1e-5
_BETAS = (0.9, 0.99)  # Adam's usual 0.999 looks back further than such a short training is
_SMOOTH = 0.1  # of all steps, over which the reported losses are means
_GUIDANCE = 2.0  # weight of an error in the difference that guidance multiplies, beside one in the mean
_LEAST = 1e-12  # mean square: a block may return zeros


class _Call(NamedTuple):
    """Arguments of one call of the denoiser, float32. ``guided``: whether each prompt has a row in both its halves."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    guided: bool


def train(
    pipeline: DiffusionPipeline,
    source: Source,
    workload: Workload,
    component: str,
    spec: Spec,
    training: Training,
    on_step: Callable[[int, int], None],
) -> tuple[nn.Module, Trained]:
    """A copy of an unquantized pipeline's denoiser, trained for a quantization; and what the training did.

    The copy is unquantized, in the pipeline's compute dtype and on its device; quantized as ``spec`` says, it keeps its
    values. It is trained in float32, with activations unquantized, in six times the denoiser's float32 memory and what
    a step keeps for its gradients.
    ``on_step`` gets the steps done and all of them. The same arguments and number of threads give the same weights, bit
    for bit. The pipeline, torch's random state and its gradient mode are left as they were. Raises ``ProduceError``
    where the pipeline never calls the component.
    """
    start = time.perf_counter()
    rate = training.rate if training.rate is not None else _RATES.get(spec.weights or "", _RATE)
    forked = range(torch.cuda.device_count() if pipeline.device.type == "cuda" else 0)
    with torch.random.fork_rng(forked), torch.no_grad():
        torch.manual_seed(training.seed)
        teacher = copy.deepcopy(pipeline.components[component]).float()
        calls = _capture(pipeline, source, workload, component, teacher, training.prompts)
        student = Student(teacher, spec)
        losses = _fit(teacher, student, calls, training.steps, rate, on_step)
        module = student.copy_into(copies(pipeline, {component: Spec()})[component])
    few = max(1, round(_SMOOTH * training.steps))
    return module, Trained(
        steps=training.steps,
        prompts=training.prompts,
        seed=training.seed,
        rate=rate,
        seconds=time.perf_counter() - start,
        first_loss=sum(losses[:few]) / few,
        last_loss=sum(losses[-few:]) / few,
    )


def _capture(
    pipeline: DiffusionPipeline, source: Source, workload: Workload, component: str, teacher: nn.Module, count: int
) -> list[_Call]:
    """What the denoiser is called with on its way through prompts that are not the workload's.

    Those are the builtin ones, again with other seeds where they are too few. The teacher stands in for the denoiser:
    in float32, a sixth of the time of bfloat16 on a CPU without instructions for it.
    """
    known = [prompt for prompt in builtin_prompts() if prompt not in workload.prompts] or builtin_prompts()
    prompts = list(itertools.islice(itertools.cycle(known), count))
    first = workload.seed + len(workload.prompts)
    calls: list[_Call] = []
    runner = assemble(pipeline, {component: teacher})
    roles, arguments = family_of(pipeline), call_arguments(source, workload)
    arguments |= {roles.frames: video_length(pipeline, roles, arguments)} if roles.frames is not None else {}
    for begin in range(0, len(prompts), _BATCH):
        batch = prompts[begin : begin + _BATCH]
        seeds = range(first + begin, first + begin + len(batch))
        with _observed(teacher, pipeline.dtype, len(batch), calls):
            runner(
                prompt=batch,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                output_type="latent",
                **arguments,
            )
    if not calls:
        raise ProduceError(f"{type(pipeline).__name__} does not call its {component}: there is nothing to learn from")
    return calls


@contextmanager
def _observed(module: nn.Module, dtype: torch.dtype, prompts: int, calls: list[_Call]) -> Iterator[None]:
    """Record what a float32 module is called with, while it takes and returns tensors of another dtype."""

    def before(_module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        single = partial(to, dtype=torch.float32)
        args, kwargs = nested(single, args), nested(single, kwargs)
        keep = partial(to, device=torch.device("cpu"))
        rows = tensors((args, kwargs))[0].shape[0]
        calls.append(_Call(nested(keep, args), nested(keep, kwargs), guided=rows == 2 * prompts))
        return args, kwargs

    def after(_module: nn.Module, _args: Any, output: Any) -> Any:
        return nested(partial(to, dtype=dtype), output)

    hooks = [module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _fit(
    teacher: nn.Module,
    student: Student,
    calls: list[_Call],
    steps: int,
    rate: float,
    on_step: Callable[[int, int], None],
) -> list[float]:
    """Train, one call a step, every call once before any again; returns the error of the prediction at each step."""
    put = partial(to, device=next(teacher.parameters()).device)
    optimizer = torch.optim.Adam(student.parameters, lr=rate, betas=_BETAS, fused=True)
    order: list[int] = []
    losses = []
    for step in range(steps):
        order = order or torch.randperm(len(calls)).tolist()
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / (_WARM_UP * steps)) * (1 + math.cos(math.pi * step / steps)) / 2
        call = _Call(*nested(put, tuple(calls[order.pop()])))
        student.quantize()
        expected = _run(teacher, call)
        with torch.enable_grad():
            found = _run(student.module, call)
            predicted, *blocks = (_error(*pair) for pair in zip(found, expected, strict=True))
            if call.guided:
                predicted = _guided_error(found[0], expected[0])
            loss = predicted + sum(blocks) / max(1, len(blocks))
            loss.backward()
        student.collect()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(predicted.item())
        on_step(step + 1, steps)
    return losses


def _run(module: nn.Module, call: _Call) -> list[torch.Tensor]:
    """What a denoiser predicts, and then what each of its blocks returns."""
    blocks: list[torch.Tensor] = []

    def after(_module: nn.Module, _args: Any, output: Any) -> None:
        blocks.extend(tensors(output))

    lists = [child for child in module.children() if isinstance(child, nn.ModuleList)]
    hooks = [block.register_forward_hook(after) for block in itertools.chain(*lists)]
    try:
        prediction = tensors(module(*call.args, **call.kwargs))[0]
    finally:
        for hook in hooks:
            hook.remove()
    sample = tensors((call.args, call.kwargs))[0]
    if prediction.shape[1] == 2 * sample.shape[1]:  # a variance as well, which no pipeline uses
        prediction = prediction[:, : sample.shape[1]]
    return [prediction, *blocks]


def _error(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Mean squared error as a part of what is expected's mean square."""
    return (found - expected).square().mean() / expected.square().mean().clamp_min(_LEAST)


def _guided_error(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """The same of what guidance makes of two halves: their mean, and their difference times the guidance scale.

    Which half is which does not matter: a pipeline takes ``mean + (scale - 1/2) * difference`` or with a minus.
    """
    one, other = (found - expected).chunk(2)
    error = ((one + other) / 2).square().mean() + _GUIDANCE**2 * (one - other).square().mean()
    return error / expected.square().mean().clamp_min(_LEAST)
