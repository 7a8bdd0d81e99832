"""Where pipelines come from, in real runs: one set of weights from three sources, and random ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from qregress.pipelines import pocket
from qregress.pipelines.export import export
from qregress.record import CellResult
from tests.architecture_making import write_small
from tests.hub_server import COMMIT, REPOSITORY, TAG, Hub, serve
from tests.regression.harness import Finished, Runner

CALL = "{ max_sequence_length = 32, use_resolution_binning = false, clean_caption = false, guidance_scale = 3.0 }"
#: Where cells run: on a machine with a GPU on that as well.
DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
CONFIG = f"""
[pipelines.copy]
source = "path:copy"
devices = {list(DEVICES)}
call = {CALL}
[pipelines.fetched]
source = "hub:{REPOSITORY}@{TAG}"
devices = {list(DEVICES)}
call = {CALL}
[pipelines.random]
source = "random:small.toml@7"
devices = {list(DEVICES)}
[settings.int8]
weights = {{ denoiser = "int8", text_encoders = "int8" }}
pipelines = ["fetched", "random"]
[budgets]
lpips = 0.02                 # of the pocket pipeline at 4 steps, as in test_factories.py; no limit of what is random
latents = 0.1                # measured: 0.02 for random weights
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a copy of a pocket pipeline, and an architecture of its own."""
    found = tmp_path_factory.mktemp("sources")
    export(pocket.find("pixart-sigma"), found / "copy")
    write_small("pixart-sigma", found / "small.toml")
    return found


@pytest.fixture
def hub(folder: Path) -> Iterator[Hub]:
    """A hub whose only repository is that copy."""
    with serve(folder / "copy") as found:
        yield found


def variables(hub: Hub, cache: Path) -> dict[str, str]:
    """What points another process at a hub, and at a cache of its own."""
    return {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


@pytest.fixture(scope="module", params=DEVICES)
def finished(folder: Path, request: pytest.FixtureRequest) -> tuple[Finished, Finished]:
    """All cells, and then those of the repository again, whose hub is gone."""
    run, on = Runner(folder), request.param
    again = ("-k", "fetched and reference", f"--device={on}")
    with serve(folder / "copy") as hub:
        given = variables(hub, folder / f"cache-{on}")
        first = run(CONFIG, f"--device={on}", name=on, steps=4, variables=given)
    return first, run(CONFIG, *again, name=f"{on}-again", steps=4, variables=given)


def cells(finished: Finished) -> dict[str, CellResult]:
    """By id."""
    return {cell.id: cell for cell in finished.run.cells}


def test_one_set_of_weights_from_three_sources(finished: tuple[Finished, Finished]) -> None:
    """Given the pocket pipeline, its copy and a repository of that, then all draw the same latents."""
    first, _ = finished
    assert first.code == 0, first.output
    records = {name: first.folder.record(f"{name}/reference/bs1") for name in ("pixart-sigma", "copy", "fetched")}
    assert len({record.latents_sha256 for record in records.values() if record is not None}) == 1
    assert None not in records.values()
    assert cells(first)["fetched/int8/bs1"].verdict == "pass"


def test_a_repository_is_fetched_once(finished: tuple[Finished, Finished]) -> None:
    """Given a tag, then its commit is recorded; once fetched, it runs without its hub, as the same source."""
    first, again = finished
    assert first.output.count(f"fetching hub:{REPOSITORY}@{COMMIT}: ") == 1
    assert again.code == 0, again.output
    assert "fetching" not in again.output
    found = [run.folder.record("fetched/reference/bs1") for run in finished]
    assert {record.source for record in found if record is not None} == {f"hub:{REPOSITORY}@{COMMIT}"}
    assert len({record.asked.key for record in found if record is not None and record.asked is not None}) == 1
    assert cells(again)["fetched/reference/bs1"].source == f"hub:{REPOSITORY}@{COMMIT}"


def test_random_weights_are_judged_but_for_their_images(finished: tuple[Finished, Finished]) -> None:
    """Given random weights, then it is said that quality is not judged, and memory, layers and latents are."""
    first, _ = finished
    cell = cells(first)["random/int8/bs1"]
    verdicts = {check.name: check.verdict for check in cell.checks}
    assert verdicts == dict.fromkeys(
        ("quality.sanity", "quality.latents", "coverage.manifest", "kernel.fidelity"), "pass"
    )
    assert "quality not judged: random weights" in cell.notes
    assert "lpips" not in cell.scores
    assert cell.memory_ratio is not None
    assert cell.memory_ratio < 1
    assert str(cell.source).endswith("small.toml@7")


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        ("gated", "it is gated, and may not be read from here; accept its conditions on"),
        ("resets", "the download was interrupted (ReadError"),
    ],
)
def test_what_cannot_be_fetched_ends_a_run(folder: Path, hub: Hub, breaks: str, says: str, tmp_path: Path) -> None:
    """Given files that do not come, then the run ends before any cell with one line, no traceback, and exit code 4."""
    setattr(hub, breaks, True)
    hub.cuts["transformer/diffusion_pytorch_model.safetensors"] = 1
    done = Runner(folder)(CONFIG, "-k", "fetched", name=breaks, variables=variables(hub, tmp_path))
    assert done.code == 4, done.output
    assert not done.folder.run_json.exists()
    (line,) = [line for line in done.output.splitlines() if line and not line.startswith("fetching")]
    assert says in line
    assert f"hub:{REPOSITORY}@" in line
