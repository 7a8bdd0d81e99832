"""What every training program shares: the optimizer's schedule, averaged weights, checkpoints and progress lines."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

ZOO = Path(__file__).resolve().parent.parent / "qregress" / "zoo"

#: Where a checkpoint does not say on which device it was trained.
UNRECORDED = "a device that was not recorded"

Function = TypeVar("Function", bound=Callable[..., Tensor])


@dataclass(frozen=True)
class Optimizer:
    """AdamW's settings and the learning rate's course: warm-up, constant, then a decay to zero."""

    rate: float
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip: float = 1.0
    batch: int = 64
    warmup: int = 500
    """Steps."""
    decay: float = 0.35
    """Share of the run, at its end, in which the rate falls to zero."""
    ema: float = 0.999


@dataclass(frozen=True)
class Length:
    """How long a run lasts: up to `steps` in all, or for `minutes` from now, whichever is set.

    Minutes serve where a machine is lent for a time; the step reached is in the checkpoint and on the card, and
    `steps` repeats the run. `hold` ends the run without its decay, to be continued.
    """

    steps: int | None
    minutes: float | None
    hold: bool
    started: float = 0.0

    def progress(self, step: int) -> float:
        """Share of the run that lies behind, 1 or more at its end."""
        if self.steps is not None:
            return step / self.steps
        if self.minutes is None:
            raise ValueError("a run needs a number of steps or of minutes")
        return (time.monotonic() - self.started) / (60 * self.minutes)


class Trainer:
    """Steps the named modules' parameters, keeps their running average, and writes checkpoints into `folder`."""

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        settings: Optimizer,
        length: Length,
        folder: Path,
        vocabulary: str | None = None,
    ) -> None:
        self.settings, self.folder, self.vocabulary = settings, folder, vocabulary
        self.named = {
            f"{component}.{name}": parameter
            for component, module in modules.items()
            for name, parameter in module.named_parameters()
        }
        self.parameters = list(self.named.values())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.device = self.parameters[0].device
        matrices = [parameter for parameter in self.parameters if parameter.ndim > 1]
        vectors = [parameter for parameter in self.parameters if parameter.ndim <= 1]
        self.adam = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=settings.rate,
            betas=settings.betas,
            fused=self.device.type == "cuda",
        )
        self.step = 0
        self.seconds = 0.0
        self.devices = device_name(self.device)
        self.generator = torch.Generator(self.device).manual_seed(0)
        self.losses: list[tuple[int, float]] = []
        self._sum = torch.zeros((), device=self.device)
        self._counted = 0
        if (folder / "state.json").is_file():
            self._load()
        self._began = time.monotonic()
        self._mark = (self._began, self.step)
        self.length = Length(length.steps, length.minutes, length.hold, self._began)

    def done(self) -> bool:
        """Whether the run has reached its length."""
        return self.length.progress(self.step) >= 1

    def rate(self) -> float:
        """The learning rate of the coming step."""
        settings = self.settings
        rate = settings.rate * min(1.0, (self.step + 1) / settings.warmup)
        if not self.length.hold:
            rate *= min(1.0, max(0.0, (1 - self.length.progress(self.step)) / settings.decay))
        return rate

    def update(self, loss: Tensor) -> None:
        """One step of the optimizer and of the running average; `loss` may come from `Graph`, gradients and all."""
        if loss.requires_grad:
            self.adam.zero_grad(set_to_none=True)
            loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        rate = self.rate()
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        keep = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [parameter.detach() for parameter in self.parameters], 1 - keep)
        self._sum += loss.detach()
        self._counted += 1
        self.step += 1

    def report(self, name: str) -> float:
        """Print and keep the mean loss since the last report; raises FloatingPointError where it is not finite."""
        loss = float(self._sum) / max(1, self._counted)
        now = time.monotonic()
        pace = (self.step - self._mark[1]) / max(1e-9, now - self._mark[0])
        print(
            f"{name} step {self.step} loss {loss:.5f} rate {self.rate():.2e} {pace:.1f} steps/s "
            f"{now - self._began:.0f} s",
            flush=True,
        )
        self._mark = (now, self.step)
        self._sum.zero_()
        self._counted = 0
        if not math.isfinite(loss):
            raise FloatingPointError(f"{name}: loss is {loss} at step {self.step}")
        self.losses.append((self.step, round(loss, 5)))
        return loss

    def use_average(self) -> None:
        """Put the running average into the modules, for evaluation and export."""
        with torch.no_grad():
            for parameter, average in zip(self.parameters, self.average, strict=True):
                parameter.copy_(average)

    def save(self) -> None:
        """Write a checkpoint: a whole new folder, which then takes the old one's place.

        Adam's moments are stored as bfloat16: a third of the bytes, and their own noise is larger than its rounding.
        """
        fresh = self.folder.with_name(self.folder.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        names = list(self.named)
        _write(fresh / "weights.safetensors", dict(zip(names, self.parameters, strict=True)))
        _write(fresh / "average.safetensors", dict(zip(names, self.average, strict=True)))
        moments: dict[str, Tensor] = {"generator": self.generator.get_state()}
        for name, parameter in self.named.items():
            state = self.adam.state.get(parameter)
            if state:
                moments[f"{name}/mean"] = state["exp_avg"].to(torch.bfloat16)
                moments[f"{name}/square"] = state["exp_avg_sq"].to(torch.bfloat16)
        _write(fresh / "adam.safetensors", moments)
        seconds = self.seconds + time.monotonic() - self._began
        state_json = {
            "step": self.step, "seconds": seconds, "losses": self.losses, "settings": asdict(self.settings),
            "vocabulary": self.vocabulary, "device": self.devices,
        }  # fmt: skip
        (fresh / "state.json").write_text(json.dumps(state_json), encoding="utf-8")
        old = self.folder.with_name(self.folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        if self.folder.is_dir():
            self.folder.rename(old)
        fresh.rename(self.folder)
        shutil.rmtree(old, ignore_errors=True)

    def _load(self) -> None:
        state = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        check_vocabulary(state, self.vocabulary, self.folder)
        self.step, self.seconds = state["step"], state["seconds"]
        before = state.get("device", UNRECORDED)
        if before != self.devices:
            self.devices = f"{before}, then {self.devices}"
        self.losses = [(step, loss) for step, loss in state["losses"]]
        weights = load_file(self.folder / "weights.safetensors", device=str(self.device))
        average = load_file(self.folder / "average.safetensors", device=str(self.device))
        moments = load_file(self.folder / "adam.safetensors", device=str(self.device))
        fused = self.device.type == "cuda"
        with torch.no_grad():
            for (name, parameter), kept in zip(self.named.items(), self.average, strict=True):
                parameter.copy_(weights[name])
                kept.copy_(average[name])
                if f"{name}/mean" in moments:
                    self.adam.state[parameter] = {
                        # A fused optimizer counts on the device, the others on the CPU.
                        "step": torch.tensor(float(self.step), device=self.device if fused else None),
                        "exp_avg": moments[f"{name}/mean"].float(),
                        "exp_avg_sq": moments[f"{name}/square"].float(),
                    }
        self.generator.set_state(moments["generator"].cpu())
        print(f"resumed at step {self.step}", flush=True)


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def load_average(modules: Mapping[str, nn.Module], folder: Path) -> dict[str, object]:
    """Load a checkpoint's averaged weights into the modules; returns its state (step, seconds, losses, settings)."""
    average = load_file(folder / "average.safetensors")
    for component, module in modules.items():
        own = {name.removeprefix(f"{component}."): t for name, t in average.items() if name.startswith(f"{component}.")}
        missing, unexpected = module.load_state_dict(own, strict=False)
        parameters = {name for name, _ in module.named_parameters()}
        if unexpected or parameters & set(missing):
            raise ValueError(f"{folder} does not fit {component}: {sorted(parameters & set(missing))}, {unexpected}")
    state: dict[str, object] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return state


def check_vocabulary(state: Mapping[str, object], vocabulary: str | None, folder: Path) -> None:
    """Raises ValueError for weights that were trained with other token ids: they would read every word as another."""
    trained = state.get("vocabulary")
    if vocabulary is not None and trained not in (None, vocabulary):
        raise ValueError(
            f"{folder} was trained with another vocabulary than the tokenizers here make; "
            "copy the tokenizers' folders from where it was trained"
        )


def device() -> torch.device:
    """The accelerator where there is one, with the fast float32 products that training tolerates."""
    torch.set_float32_matmul_precision("high")
    if torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True
        return torch.device("cuda")
    return torch.device("cpu")


def device_name(device: torch.device) -> str:
    """What a card calls a device: "NVIDIA H200", or "CPU"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def compiled(function: Function) -> Function:
    """The function through torch.compile on an accelerator, or as it is where that fails.

    On a CPU it is left alone: compiling would take longer than it saves.
    """
    if not torch.cuda.is_available():
        return function
    fast = torch.compile(function)
    broken = False

    def call(*arguments: object) -> Tensor:
        nonlocal broken
        if not broken:
            try:
                return fast(*arguments)
            except TorchDynamoException as error:
                print(f"torch.compile failed, continuing without it: {error}", flush=True)
                broken = True
        return function(*arguments)

    return cast("Function", call)


class Graph:
    """A loss with its gradients, recorded once as a CUDA graph and then replayed: small layers leave no gaps.

    Called like the loss, with tensors of the same shapes each time. On a CPU it only calls it.
    """

    WARM_UP = 3

    def __init__(self, loss: Callable[..., Tensor], parameters: list[nn.Parameter]) -> None:
        self.loss, self.parameters = loss, parameters
        self._inputs: tuple[Tensor, ...] = ()
        self._output: Tensor | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._failed = False

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The loss; its gradients are in the parameters already where it needs none."""
        if inputs[0].device.type != "cuda":
            return self.loss(*inputs)
        if self._graph is None and not self._failed:
            self._record(inputs)
        if self._graph is None or self._output is None:
            return self.loss(*inputs)
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._output

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(tensor.clone() for tensor in inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(self.WARM_UP):
                self._clear()
                self.loss(*self._inputs).backward()
        torch.cuda.current_stream().wait_stream(stream)
        self._clear()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                output = self.loss(*self._inputs)
                output.backward()
                self._output = output.detach()
        except RuntimeError as error:
            print(f"no CUDA graph, continuing without it: {error}", flush=True)
            self._failed = True
            torch.cuda.synchronize()
            return
        self._graph = graph

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


def compile_blocks(blocks: list[nn.Module]) -> None:
    """Compile repeated layers on an accelerator: those of one class share the code, so it takes seconds."""
    if not torch.cuda.is_available():
        return
    torch._dynamo.config.recompile_limit = 64  # noqa: SLF001 - there is no other way to set it
    torch._dynamo.config.suppress_errors = True  # noqa: SLF001 - what cannot be compiled runs as it is
    for block in blocks:
        block.forward = torch.compile(block.forward)


def arguments(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, Length]:
    """Parse the command line with the options that all programs share: the folder, the run's length, batch and rate."""
    parser.add_argument("--folder", type=Path, required=True, help="checkpoint; a run continues where it stopped")
    parser.add_argument("--steps", type=int, help="steps in all")
    parser.add_argument("--minutes", type=float, help="train for so long from now, in place of --steps")
    parser.add_argument("--hold", action="store_true", help="end without the decay, to be continued")
    parser.add_argument("--start", type=Path, help="a checkpoint whose averaged weights a new run starts from")
    parser.add_argument("--batch", type=int, help="in place of the default or the recipe's")
    parser.add_argument("--rate", type=float, help="in place of the default or the recipe's")
    parser.add_argument("--decay", type=float, help="in place of the default or the recipe's")
    parsed = parser.parse_args()
    if (parsed.steps is None) == (parsed.minutes is None):
        parser.error("give one of --steps and --minutes")
    return parsed, Length(parsed.steps, parsed.minutes, parsed.hold)


def override(settings: Optimizer, parsed: argparse.Namespace) -> Optimizer:
    """The settings with the batch, rate and decay of the command line."""
    given = {name: getattr(parsed, name) for name in ("batch", "rate", "decay") if getattr(parsed, name)}
    return replace(settings, **given)


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """A JSON file with two spaces of indentation."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
