"""Comparisons with baselines, and ``--qregress-baselines``, which says where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from qregress import cli
from tests.making import INT8, INT8_TE, REFERENCE
from tests.plugin.project import WAYS, Project, usage_error

OK, FAILED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED
MISSING = "--qregress-refresh=missing"


def check(project: Project, cell: str, name: str) -> tuple[str, str]:
    """Verdict and words of a check of a cell."""
    found = next(result for result in project.results().cells if result.id == cell)
    return next((check.verdict, check.why) for check in found.checks if check.name == name)


@WAYS
def test_not_compared(way: str, kept: Project) -> None:
    """Given no baselines, then cells pass, are counted, and the line that is shown makes them comparable."""
    result = kept.run_as(way)
    assert result.ret == OK
    out = kept.path / ".qregress" / "latest"
    result.stdout.fnmatch_lines(
        [
            "3 cells NOT compared with a baseline: no baselines in baselines/",
            f"to compare the next run with this one: qregress accept {out} --reason …",
            "3 new",
        ]
    )
    assert cli.main(["accept", str(out), "--reason", "first"]) == 0
    again = kept.run_as(way, "--qregress-require")
    assert again.ret == OK
    again.stdout.fnmatch_lines(["3 pass"])
    again.stdout.no_fnmatch_line("*NOT compared*")


@pytest.mark.parametrize(("options", "code"), [((), OK), (("--qregress-require",), FAILED)])
def test_required(options: tuple[str, ...], code: pytest.ExitCode, kept: Project) -> None:
    """Given one cell without a baseline, then a run that requires all comparisons fails, with the reason."""
    kept.run(MISSING, "-k", "not int8+te")
    result = kept.run(*options)
    assert result.ret == code
    result.stdout.fnmatch_lines(["*no baseline of this cell was accepted on cpu-test*"])
    result.stdout.fnmatch_lines(["2 pass, 1 new"])


@WAYS
def test_worse_than_accepted(way: str, known: Project) -> None:
    """Given a cell within its budget and beyond its baseline, then it fails with both figures and the margin."""
    known.behave({INT8: {"lpips": 0.02}})
    result = known.run_as(way)
    assert result.ret == FAILED
    result.assert_outcomes(passed=2, failed=1)
    assert check(known, INT8, "quality.lpips")[0] == "pass"
    result.stdout.fnmatch_lines(
        ["regression.lpips: mean 0.02000 over 0.01005 (accepted 0.01 + 3 x 0 + 5e-05); *for prompt*"]
    )


def test_better_than_accepted(known: Project) -> None:
    """Given a cell better than noise explains, then it passes; the command that holds it there is shown, and works."""
    known.behave({INT8: {"lpips": 0.005}})
    result = known.run()
    assert result.ret == OK
    command = f"qregress accept {known.path / '.qregress' / 'latest'} --cell '{INT8}' --reason …"
    result.stdout.fnmatch_lines([f"{INT8}: better than what was accepted: regression.lpips (*); *: {command}"])
    out = str(known.path / ".qregress" / "latest")
    assert cli.main(["accept", out, "-k", INT8, "--reason", "better"]) == 0
    known.behave({})
    known.run().assert_outcomes(passed=2, failed=1)


def test_the_reference_moved(known: Project) -> None:
    """Given a reference with other images than were accepted, then it fails, and how far is said."""
    known.behave({REFERENCE: {"color": "orange"}})
    result = known.run()
    result.assert_outcomes(passed=2, failed=1)
    verdict, why = check(known, REFERENCE, "drift.reference")
    assert verdict == "fail"
    assert "moved by 95.26 levels of 8 bits in the mean" in why  # 165 of 255 in one of three channels


@pytest.mark.parametrize(("store", "expected"), [("images", "fail"), ("hash", "void")])
def test_digests_only(store: str, expected: str, kept: Project) -> None:
    """Given a store that keeps digests, then it has no images, and a reference that moved is void."""
    (kept.path / "qregress.toml").open("a").write(f'[baselines]\nstore = "{store}"\n')
    kept.run(MISSING)
    assert any(name.endswith(".webp") for name in kept.stored()) == (store == "images")
    kept.behave({REFERENCE: {"color": "orange"}})
    kept.run()
    assert check(kept, REFERENCE, "drift.reference")[0] == expected


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[workloads.bs1]", "[workloads.bs1]\nseed = 7", "workload's seed was the default and is 7"),
        ("[workloads.bs1]", "[workloads.bs1]\nsteps = 4", "call's num_inference_steps was the default and is 4"),
        ('circle", "a large', 'circle", "a huge', 'workload\'s prompts was [[]"a small red circle",*'),
    ],
)
def test_what_changed_is_named(old: str, new: str, says: str, known: Project) -> None:
    """Given another configuration, then cells are new, and the sentence says what is not as it was."""
    known.configure((old, new))
    result = known.run()
    assert result.ret == OK
    why = f"what is asked for has changed since its baseline was accepted: {says}"
    result.stdout.fnmatch_lines([f"3 cells NOT compared with a baseline: {why}", "3 new"])


def test_a_setting_that_changed(known: Project) -> None:
    """Given one setting that excludes a module now, then that cell alone is new."""
    known.configure(("[settings.int8]", '[settings.int8]\nexclude = ["proj_out"]'))
    result = known.run()
    result.stdout.fnmatch_lines([f'{INT8} NOT compared *: setting\'s exclude was the default and is [[]"proj_out"]'])
    result.stdout.fnmatch_lines(["2 pass, 1 new"])


def test_another_pipeline(known: Project) -> None:
    """Given other weights under the same name, then that is said."""
    known.behave({INT8: {"source": "9" * 64}})
    result = known.run()
    result.stdout.fnmatch_lines([f"{INT8} NOT compared *: the pipeline's files are others"])


def test_another_device(known: Project) -> None:
    """Given a machine of another class, then its cells are new, and where they were accepted is said."""
    known.behave({cell: {"device_class": "cpu-other"} for cell in (REFERENCE, INT8, INT8_TE)})
    result = known.run()
    result.stdout.fnmatch_lines(["3 cells NOT compared *: accepted on cpu-test only, and this is cpu-other"])
    known.run(MISSING).assert_outcomes(passed=3)
    assert {name.split("/")[0] for name in known.stored() if "/" in name} == {"cpu-other", "cpu-test"}
    known.run("--qregress-require").assert_outcomes(passed=3)


@WAYS
def test_another_folder(way: str, kept: Project) -> None:
    """Given a folder on the command line, then it is written and read there, and nowhere else."""
    option = "--qregress-baselines=some/where"
    kept.run_as(way, MISSING, option)
    assert kept.baselines("some/where") == sorted([REFERENCE, INT8, INT8_TE])
    assert not (kept.path / "baselines").exists()
    assert kept.run_as(way, option, "--qregress-require").ret == OK
    kept.run().stdout.fnmatch_lines(["3 cells NOT compared with a baseline: no baselines in baselines/"])


def test_a_folder_of_the_configuration(kept: Project) -> None:
    """Given a path in the configuration, then it starts beside that file; the command line goes before it."""
    (kept.path / "sub").mkdir()
    (kept.path / "qregress.toml").replace(kept.path / "sub" / "other.toml")
    (kept.path / "pipeline").replace(kept.path / "sub" / "pipeline")
    (kept.path / "sub" / "other.toml").open("a").write('[baselines]\npath = "../kept"\n')
    kept.run(MISSING, "--qregress-config=sub/other.toml").assert_outcomes(passed=3)
    assert len(kept.baselines("kept")) == 3
    kept.run(MISSING, "--qregress-config=sub/other.toml", "--qregress-baselines=mine").assert_outcomes(passed=3)
    assert len(kept.baselines("mine")) == 3


def test_without_baselines(project: Project) -> None:
    """Given a configuration without baselines, then nothing is compared, nothing is new, no noise is measured."""
    result = project.run("--qregress-require")
    assert result.ret == OK
    result.stdout.no_fnmatch_line("*NOT compared*")
    assert project.produced("noise") == []
    assert not (project.path / "baselines").exists()


def _file(project: Project, name: str) -> Path:
    return next((project.path / "baselines").glob(f"*/{name}"))


@WAYS
def test_damaged(way: str, known: Project) -> None:
    """Given a baseline that was edited by hand, then one line names the file before any cell runs."""
    path = _file(known, f"{INT8}/baseline.json")
    path.write_text(path.read_text().replace("0.01", "0.09"))
    message = usage_error(known.run_as(way))
    assert message.startswith(f"{path}: is not what was accepted (its SHA-256 differs)")
    assert known.produced() == []


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        (f"{INT8}/baseline.json", None, "is missing"),
        (f"{INT8}/accepted.json", None, "is missing"),
        (f"{INT8}/accepted.json", b"", "cannot be read"),
        (f"{INT8}/accepted.json", b'{"schema": 99}', "written by a newer qregress"),
        (f"{REFERENCE}/images/01.webp", None, "is missing"),
        (f"{REFERENCE}/images/01.webp", b"RIFF", "is not what was accepted"),
    ],
)
def test_every_kind_of_damage(name: str, data: bytes | None, says: str, known: Project) -> None:
    """Given a file that is missing, cut off, or of another version, then one line names it, and no cell runs."""
    path = _file(known, name)
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    message = usage_error(known.run())
    assert message.startswith(f"{path}: {says}")
    assert known.produced() == []


def test_more_damage(known: Project) -> None:
    """Given two damaged baselines, then the line names one, counts the other and says what lists them."""
    for cell in (INT8, INT8_TE):
        _file(known, f"{cell}/accepted.json").write_bytes(b"{}")
    assert usage_error(known.run()).endswith(" (and 1 more: qregress orphans lists them)")


@pytest.mark.parametrize("choice", [("-k", "int8+te"), (f"test_matrix.py::test_quantized[{INT8_TE}]",)])
@WAYS
def test_damage_of_another_cell(way: str, choice: tuple[str, ...], known: Project) -> None:
    """Given damage of a cell that is not chosen, then the chosen one runs and is compared."""
    _file(known, f"{INT8}/baseline.json").write_bytes(b"{}")
    result = known.run_as(way, *choice, "--qregress-require")
    assert result.ret == OK
    result.assert_outcomes(passed=1, deselected=2 if choice[0] == "-k" and way != "-n2" else 0)


def test_damage_is_no_concern_of_other_tests(known: Project) -> None:
    """Given a damaged baseline and tests without cells, then they run."""
    _file(known, f"{INT8}/baseline.json").write_bytes(b"{}")
    known.pytester.makepyfile(test_ordinary="def test_one(): pass")
    known.run("test_ordinary.py").assert_outcomes(passed=1)
    known.run("--co", "-q").stdout.fnmatch_lines(["4 tests collected*"])


def test_a_file_in_the_way(kept: Project) -> None:
    """Given a file where the folder should be, then one line says so, before any cell runs."""
    message = usage_error(kept.run("--qregress-baselines=qregress.toml"))
    assert message == "qregress.toml: is a file, not a folder; choose another with --qregress-baselines"
    assert kept.produced() == []
