"""Runs on GPUs that are kept beside their configurations: judged again here, where there is no GPU."""

from __future__ import annotations

import json
import zipfile
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import pytest
from msgspec import UnsetType

from benchmarks import by_hand, false_alarms
from qregress import cli, config
from qregress.judge.verdict import judge
from qregress.matrix import reference_of
from qregress.record import LatencySummary, Run, read
from qregress.store.finished import FinishedRun
from studies import published

STUDIES = Path(__file__).parents[2] / "studies"
#: Archive -> configuration that judges it, the selection that was run, and the verdict of what is sound: "new" of a
#: device that has no baselines.
KEPT = {
    "cuda-h100.zip": ("cuda.toml", "all", "new"),
    "cuda-h200.zip": ("cuda.toml", "all", "pass"),
    "published-h200.zip": ("published.toml", "study", "pass"),
}
#: Seconds of ``benchmarks/by_hand.py`` -> archive with the run's records.
TIMED = {
    "by-hand-h200.jsonl": "published-h200.zip",
    "by-hand-h200-quiet-host.jsonl": "published-h200-quiet-host.zip",
    "by-hand-h200-slow-host.jsonl": "published-h200-slow-host.zip",
}
#: What Marlin's fault looks like.
BIAS = "constant over tokens, minus the bias: it is not added"


@pytest.mark.parametrize("name", KEPT)
def test_nothing_fails_but_what_is_waived(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Given a kept run, when it is judged under today's limits, then all is green; float8 on CUDA alone is waived."""
    path, out = STUDIES / "runs" / name, tmp_path / "run.json"
    found, selection, sound = KEPT[name]
    config_path = STUDIES / found
    assert cli.main(["judge", str(path), f"--config={config_path}", f"--json={out}"]) == 0, capsys.readouterr()
    cells, loaded = read(out, Run).cells, config.load(config_path)
    expected = [cell.id for cell in loaded.cells()] if selection == "all" else loaded.selection(selection)[1]
    assert {cell.id for cell in cells} == set(expected)
    waived = {cell.id for cell in cells if cell.verdict == "waived"}
    assert waived == {cell.id for cell in cells if cell.setting.startswith("float8")}
    assert {cell.verdict for cell in cells if cell.id not in waived} == {sound}


@pytest.mark.parametrize("name", KEPT)
def test_nothing_is_waived_but_the_fault_that_is_known(name: str) -> None:
    """Given a kept run, then every layer that is beyond its bound lacks its bias."""
    with FinishedRun(STUDIES / "runs" / name) as run:
        for found in run.run.cells:
            record = run.record(found.id)
            assert record is not None
            beyond = [layer for layers in (record.fidelity or {}).values() for layer in layers if layer.where]
            assert {(layer.tensor, layer.kind) for layer in beyond} <= {("MarlinF8QBytesTensor", BIAS)}


class Kept(NamedTuple):
    """Runs of one GPU: the accepted one, and by whether their denoiser is a slower one."""

    folder: Path
    accepted: Run
    runs: dict[bool, list[Run]]

    def changes(
        self, slower: bool, batch: str, pick: Callable[[LatencySummary], float | UnsetType | None]
    ) -> list[float]:
        """By which share ratios of int8 to its reference are off the accepted one."""
        cell = f"pixart-sigma/int8/{batch}"
        was, *found = (
            pick(latency)
            for run in (self.accepted, *self.runs[slower])
            for each in run.cells
            if each.id == cell and (latency := each.latency) is not None
        )
        assert was
        return [ratio / was - 1 for ratio in found if ratio]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> list[Kept]:
    """Of both GPUs."""
    folder = tmp_path_factory.mktemp("kept")
    with zipfile.ZipFile(STUDIES / "runs" / "slower-h200.zip") as archive:
        archive.extractall(folder)
    found = []
    for gpu in sorted(folder.iterdir()):
        names = [path for path in gpu.glob("*.json") if path.with_suffix(".txt").exists()]
        runs = {
            which: [read(path, Run) for path in names if ("slower" in path.name) is which] for which in (True, False)
        }
        found.append(Kept(gpu, read(gpu / "accepted" / "run.json", Run), runs))
    return found


def failed(run: Run) -> set[tuple[str, str]]:
    """Cells with the checks that fail."""
    return {(cell.id, check.name) for cell in run.cells for check in cell.checks if check.verdict == "fail"}


@pytest.mark.parametrize("gpu", [0, 1])
def test_no_alarm_but_of_what_got_slower(
    gpu: int, kept: list[Kept], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given kept runs of one GPU, then the clean ones are green, slower ones are told, and the page says the same."""
    folder = kept[gpu].folder
    monkeypatch.setattr("sys.argv", ["false_alarms.py", "--report", "--runs=5", f"--folder={folder}"])
    with pytest.raises(SystemExit) as ended:
        false_alarms.main()
    report = capsys.readouterr().out
    assert ended.value.code == 0, report
    page = (STUDIES.parent / "docs" / "false-alarms-gpu.md").read_text(encoding="utf-8")
    part = page.split("\n## GPU ")[1 + gpu].partition("\n")[2]
    told = [line for line in report.splitlines() if not line.startswith(("# False", "`python "))]
    assert "\n".join(told).split() == part.split()
    for run in kept[gpu].runs[False]:
        assert not failed(run)
    busy = {("pixart-sigma/int8/bs1", "regression.busy"), ("pixart-sigma/int8/bs4", "regression.busy")}
    wall = ("pixart-sigma/int8/bs4", "regression.latency")
    found = [failed(run) for run in kept[gpu].runs[True]]
    assert all(each in (busy, busy | {wall}) for each in found)
    # What wall times say of one is void: in two of its six pairs its call took a quarter longer.
    assert sum(wall in each for each in found) == {0: 5, 1: 4}[gpu]


def test_the_page_says_how_far_ratios_move(kept: list[Kept]) -> None:
    """Given the kept runs of both GPUs, then the page has their number and their largest and smallest changes."""
    page = " ".join((STUDIES.parent / "docs" / "false-alarms-gpu.md").read_text(encoding="utf-8").split())
    assert (
        "{1} clean and {0} slower runs".format(*(sum(len(gpu.runs[which]) for gpu in kept) for which in (True, False)))
        in page
    )

    def changes(slower: bool, batches: Sequence[str], what: str) -> list[float]:
        pick = attrgetter(what)
        return [change for gpu in kept for batch in batches for change in gpu.changes(slower, batch, pick)]

    slower = changes(True, ["bs1"], "busy_ratio")
    assert f"is {min(slower):.1%} to {max(slower):.1%} above the accepted one" in page
    busy, wall = (
        max(abs(change) for change in changes(False, batches, what))
        for batches, what in ((["bs1", "bs4"], "busy_ratio"), (["bs1"], "ratio"))
    )
    assert f"at most {busy:.1%} off it at either batch, where that of wall times is up to {wall:.0%} off" in page


@pytest.mark.parametrize(
    ("name", "page"),
    [("published-h200.zip", "study.md"), ("published-h200-quiet-host.zip", "study-quiet-host.md")],
)
def test_the_study_says_what_was_measured(name: str, page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Given a kept run of the study, then its page has the tables that are made of it."""
    published.main(str(STUDIES / "runs" / name))
    assert capsys.readouterr().out in (STUDIES.parent / "docs" / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TIMED)
def test_the_study_says_what_it_took(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given kept seconds of the run and of a process for each cell, then its page has what the benchmark prints."""
    asked = Namespace(config=STUDIES / "published.toml", device="cuda", k="pixart-sigma")
    first, processes = (STUDIES / "runs" / name).read_text(encoding="utf-8").split("\n", 1)
    (tmp_path / "processes.jsonl").write_text(processes, encoding="utf-8")
    command = " ".join(by_hand._command(asked, tmp_path))
    (tmp_path / "seconds.txt").write_text(f"{json.loads(first)['wall']}\n{command}", encoding="utf-8")
    with zipfile.ZipFile(STUDIES / "runs" / TIMED[name]) as archive:
        archive.extractall(tmp_path / "out", [name for name in archive.namelist() if "/pixart-sigma/" in name])
    arguments = [f"--config={asked.config}", "--device=cuda", "-k", asked.k, f"--folder={tmp_path}", "--report"]
    monkeypatch.setattr("sys.argv", ["by_hand.py", *arguments])
    by_hand.main()
    told = capsys.readouterr().out.split("\n\n", 1)[1].strip()
    assert told in (STUDIES.parent / "docs" / "study.md").read_text(encoding="utf-8")


def test_the_study_says_how_long_it_took() -> None:
    """Given the kept run, whose first table was timed and whose rest was resumed, then its page has the minutes."""
    first = (STUDIES / "runs" / "by-hand-h200.jsonl").read_text(encoding="utf-8").split("\n", 1)[0]
    table = round(json.loads(first)["wall"])
    with FinishedRun(STUDIES / "runs" / "published-h200.zip") as found:
        begun, ended = found.run.started, found.run.finished
    assert ended is not None
    rest = round((datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds())
    told = "({}: PixArt-Sigma's table {}, the rest, by `--resume`, {})".format(
        *(f"{seconds // 60}:{seconds % 60:02}" for seconds in (table + rest, table, rest))
    )
    page = " ".join((STUDIES.parent / "docs" / "study.md").read_text(encoding="utf-8").split())
    assert told in page


def test_the_readme_says_what_proof_takes() -> None:
    """Given the run of the study, then README has the least and the largest share of a cell's time."""
    shares: defaultdict[str, list[int]] = defaultdict(list)
    with FinishedRun(STUDIES / "runs" / "published-h200.zip") as run:
        for found in run.run.cells:
            record = run.record(found.id)
            assert record is not None
            assert record.spent
            if "proof" in record.spent:
                shares[record.pipeline].append(round(100 * record.spent["proof"] / record.seconds))
    told = {name: " to ".join(str(share) for share in sorted({min(each), max(each)})) for name, each in shares.items()}
    page = " ".join((STUDIES.parent / "README.md").read_text(encoding="utf-8").split())
    assert f"on an H200 {told['pixart-sigma']} % of a full-size PixArt-Sigma's, {told['aura-flow']} % of Aura" in page
    assert f"{told['sd3']} % of Stable Diffusion 3's in float8" in page


@pytest.mark.parametrize("table", published.PUBLISHED)
def test_memory_is_what_the_study_published(table: str) -> None:
    """Given the kept run, then static memory is within 1.5 % or 0.10 GiB of the published figure, row by row.

    Where SD3's second encoder is quantized, the study has what it takes in float16, and this run's is that much less.
    """
    with FinishedRun(STUDIES / "runs" / "published-h200.zip") as run:
        records = {row: run.record(row.cell) for row in published.PUBLISHED[table]}
        plain = run.record("sd3/reference/bs1")
    assert plain is not None
    assert plain.memory is not None
    for row, record in records.items():
        assert record is not None, row.cell
        assert record.memory is not None
        saved = 0
        if row.cell in {f"sd3/float8+{names}/bs1" for names in ("te", "te2", "te12", "te23")}:
            saved = plain.memory.components["text_encoder_2"] - record.memory.components["text_encoder_2"]
            assert saved > 2**29
        assert published.agrees((record.memory.static_bytes + saved) / published.GIB, row.memory), row.cell


def test_findings_say_how_near_int4_is() -> None:
    """Given kept runs of int4 on a GPU and a CPU, then findings have their mean LPIPS, and that of the GPU's int8."""
    rows = [line.split("|") for line in (STUDIES.parent / "docs" / "findings.md").read_text("utf-8").splitlines()]
    told = {row[1].strip(): [part.strip() for part in row[2:6]] for row in rows if len(row) == 7}
    with FinishedRun(STUDIES / "runs" / "cuda-h200.zip") as gpu, FinishedRun(STUDIES / "runs" / "int4-cpu.zip") as cpu:
        names = {"AuraFlow": "aura-flow", "Hunyuan DiT": "hunyuan-dit", "Latte": "latte", "Lumina": "lumina"}
        names |= {"PixArt-alpha": "pixart-alpha", "PixArt-Sigma": "pixart-sigma", "SD3": "sd3"}
        for title, name in names.items():
            asked = ((gpu, "int8", ".5f"), (gpu, "int4", ".4f"), (cpu, "int4", ".4f"))
            means = [format(mean_lpips(run, f"{name}/{setting}/bs1"), form) for run, setting, form in asked]
            assert [told[title][0], *told[title][2:]] == means, title


def mean_lpips(run: FinishedRun, cell: str) -> float:
    """Over a cell's prompts."""
    record = run.record(cell)
    assert record is not None
    assert record.scores is not None
    assert isinstance(record.scores.lpips, tuple)
    return fmean(record.scores.lpips)


def test_the_fault_is_told_without_its_waiver() -> None:
    """Given the H100's records without waivers, then each float8 cell fails by a kernel that lacks its bias."""
    with FinishedRun(STUDIES / "runs" / "cuda-h100.zip") as run:
        for found in run.run.cells:
            record = run.record(found.id)
            assert record is not None
            checks = {check.name: check for check in judge(record, run.record(reference_of(found.id)), {}).checks}
            if found.setting == "float8":
                assert checks["kernel.fidelity"].verdict == "fail"
                assert "MarlinF8QBytesTensor, float16" in checks["kernel.fidelity"].why
                assert "minus the bias: it is not added" in checks["kernel.fidelity"].why
            elif found.setting != "reference":
                assert checks["kernel.fidelity"].verdict == "pass"


def test_pocket_pipelines_are_not_the_study(capsys: pytest.CaptureFixture[str]) -> None:
    """Given a run of pocket pipelines, which have the same names, then nothing of it is printed beside the study."""
    with pytest.raises(SystemExit, match="holds no cell of the study, with random weights"):
        published.main(str(STUDIES / "runs" / "cuda-h100.zip"))
    assert capsys.readouterr().out == ""
