"""What holds of any configuration, any store, any request: written and read again it is the same."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qregress import config, units
from qregress.config.settings import DTYPES
from qregress.errors import StoreError
from qregress.judge.budgets import Budgets, Limits
from qregress.judge.checks import CHECK_NAMES
from qregress.matrix import DEVICES, REFERENCE
from qregress.metrics import LPIPS_NAMES
from qregress.quantize import weight_types
from qregress.record import Asked, Scores, encode
from qregress.store.baseline import ACCEPTED, BASELINE, Accepted, Baseline, Entry, seal
from qregress.store.baselines import Key, Store, differences
from tests.making import make_memory, write_folder
from tests.store_making import files, make_fingerprint, make_noise

NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,6}", fullmatch=True) | st.sampled_from(
    [BASELINE, ACCEPTED, "images"]
)
NAMES = st.lists(NAME.filter(lambda name: name != REFERENCE), min_size=1, max_size=3, unique=True)
TEXT = st.text(max_size=12)
FULL_TEXT = TEXT.filter(lambda text: bool(text.strip()))
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
TABLE = st.dictionaries(TEXT, PLAIN, max_size=3)


def toml(value: Any) -> str:
    """A value as TOML, tables inline."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml(key)} = {toml(inner)}" for key, inner in value.items()) + " }"
    return value.isoformat() if isinstance(value, dt.date) else repr(value)


def document(tables: Mapping[str, Any]) -> str:
    """A TOML document: one line for each table."""
    return "\n".join(f"{toml(name)} = {toml(table)}" for name, table in tables.items()) + "\n"


Fields = dict[str, st.SearchStrategy[Any]]


def table(required: Fields, optional: Fields | None = None) -> st.SearchStrategy[dict[str, Any]]:
    """A table with these keys and any of those."""
    return st.fixed_dictionaries(required, optional=optional or {})


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A table with any of these keys."""
    return table({}, fields)


COUNT = st.integers(1, 10**6)
SECONDS = st.builds("{} {}".format, st.integers(1, 10**4), st.sampled_from(["ms", "s", "min", "h"]))
BYTES = st.builds("{} {}".format, st.integers(1, 10**4), st.sampled_from(["B", "KiB", "MiB", "GiB", "TiB"]))
FACTOR = st.builds("{:.2f}x".format, st.floats(0.01, 100))
NOT_NEGATIVE = st.floats(0, 1e6)
SETTING = table(
    {
        "weights": st.dictionaries(
            st.sampled_from(["transformer", "text_encoder"]),
            st.sampled_from(sorted(weight_types("quanto"))),
            min_size=1,
        )
    },
    optional={"exclude": st.lists(TEXT, max_size=2), "dtype": st.sampled_from(DTYPES)},
)
WORKLOAD = table(
    {"prompts": st.lists(FULL_TEXT, min_size=1, max_size=3)},
    optional={
        "seed": st.integers(0, 2**31),
        "batch_size": COUNT,
        "height": COUNT,
        "width": COUNT,
        "steps": COUNT,
        "guidance": NOT_NEGATIVE,
    },
)
LIMITS = some(
    lpips=NOT_NEGATIVE,
    lpips_worst=NOT_NEGATIVE,
    clip_drop=NOT_NEGATIVE,
    latents=NOT_NEGATIVE,
    motion=NOT_NEGATIVE,
    memory=BYTES | FACTOR,
    memory_peak=BYTES | FACTOR,
    latency=SECONDS | FACTOR,
)
DOCUMENT = table(
    {
        "pipelines": st.dictionaries(
            NAME,
            table(
                {"source": st.just("path:pipeline")},
                optional={"devices": st.lists(st.sampled_from(DEVICES), min_size=1, max_size=2), "call": TABLE},
            ),
            min_size=1,
            max_size=2,
        ),
        "settings": st.dictionaries(NAME.filter(lambda name: name != REFERENCE), SETTING, max_size=3),
        "workloads": st.dictionaries(NAME, WORKLOAD, min_size=1, max_size=2),
    },
    optional={
        "metrics": some(lpips=st.sampled_from(sorted(LPIPS_NAMES)), clip=st.just("pocket")),
        "run": some(deadline=SECONDS, latency_pairs=COUNT, latency_time=SECONDS),
        "baselines": some(path=st.sampled_from(["kept", "a/b"]), store=st.sampled_from(["images", "hash", "none"])),
        "budgets": LIMITS,
    },
)
WAIVER = table(
    {
        "check": st.sampled_from(CHECK_NAMES),
        "reason": FULL_TEXT,
        "issue": st.just("https://example.org/1"),
        "expires": st.dates(dt.date(1, 1, 1)),
    }
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pipeline."""
    root = tmp_path_factory.mktemp("project")
    write_folder(root / "pipeline")
    return root


@settings(max_examples=40)
@given(tables=DOCUMENT, waivers=st.lists(WAIVER, max_size=2), scoped=LIMITS)
def test_a_configuration_is_what_was_written(
    project: Path, tables: dict[str, Any], waivers: list[dict[str, Any]], scoped: dict[str, Any]
) -> None:
    """Given any configuration, when it is written and loaded, then every field is what was written, or its default."""
    setting = next(iter(tables["settings"]), REFERENCE)
    cell = f"{next(iter(tables['pipelines']))}/{setting}/{next(iter(tables['workloads']))}"
    tables["budgets"] = tables.get("budgets", {}) | {cell: scoped}
    tables["waivers"] = [waiver | {"cell": cell} for waiver in waivers]
    path = project / "qregress.toml"
    path.write_text(document(tables), encoding="utf-8")
    found = config.load(path)
    assert {p.name: (p.source, p.call) for p in found.pipelines} == {
        name: (f"path:{project.resolve() / 'pipeline'}", table.get("call", {}))
        for name, table in tables["pipelines"].items()
    }
    assert [list(p.devices) for p in found.pipelines] == [
        table.get("devices", ["cuda"]) for table in tables["pipelines"].values()
    ]
    assert {s.name: (s.weights, list(s.exclude), s.dtype, s.backend) for s in found.settings} == {
        name: (table["weights"], table.get("exclude", []), table.get("dtype", "float16"), "quanto")
        for name, table in tables["settings"].items()
    }
    defaults = {"seed": 0, "batch_size": 1, "height": None, "width": None, "steps": None, "guidance": None}
    assert [msgspec.structs.asdict(w) for w in found.workloads] == [
        {"name": name} | defaults | table | {"prompts": tuple(table["prompts"])}
        for name, table in tables["workloads"].items()
    ]
    metrics = tables.get("metrics", {})
    assert (found.metrics.lpips, found.metrics.clip) == (metrics.get("lpips", "st-alex"), "pocket")
    run = tables.get("run", {})
    assert found.run.deadline_s == units.parse_seconds(run.get("deadline", "15 min"))
    assert found.run.latency_time_s == units.parse_seconds(run.get("latency_time", "20 s"))
    assert found.run.latency_pairs == run.get("latency_pairs", 6)
    kept = tables.get("baselines", {})
    assert found.baselines.store == kept.get("store", "images")
    assert found.baselines.path == ((project / kept["path"]).resolve() if "path" in kept else None)
    plain = {name: value for name, value in tables["budgets"].items() if name != cell}
    assert found.budgets == Budgets(Limits.parse(plain), {cell: Limits.parse(scoped)})
    assert [msgspec.structs.asdict(waiver) for waiver in found.waivers] == tables["waivers"]


@settings(max_examples=20)
@given(tables=DOCUMENT, draw=st.randoms(use_true_random=False))
def test_ids_do_not_depend_on_the_order_of_tables(project: Path, tables: dict[str, Any], draw: Any) -> None:
    """Given a configuration with its tables in another order, then it has the same cells, each once."""
    path = project / "qregress.toml"
    path.write_text(document(tables), encoding="utf-8")
    before = [cell.id for cell in config.load(path).cells()]
    for section in ("pipelines", "settings", "workloads"):
        items = list(tables[section].items())
        tables[section] = dict(draw.sample(items, len(items)))
    path.write_text(document(dict(draw.sample(list(tables.items()), len(tables)))), encoding="utf-8")
    after = [cell.id for cell in config.load(path).cells()]
    assert len(set(before)) == len(before)
    assert set(after) == set(before)


def reordered(value: Any, draw: Any) -> Any:
    """The same plain data, its dictionaries in another order."""
    if isinstance(value, dict):
        return {key: reordered(value[key], draw) for key in draw.sample(list(value), len(value))}
    return [reordered(inner, draw) for inner in value] if isinstance(value, list) else value


ASKED = st.builds(
    Asked,
    source_sha256=TEXT,
    call=TABLE,
    setting=TABLE,
    workload=TABLE,
    initial_sha256=TEXT,
    reference_dtype=st.sampled_from(DTYPES),
)


@given(asked=ASKED, draw=st.randoms(use_true_random=False))
def test_what_is_asked_for_has_no_order(asked: Asked, draw: Any) -> None:
    """Given a request with its dictionaries in another order, or read again from JSON, then its key is the same."""
    other = msgspec.convert(reordered(msgspec.to_builtins(asked), draw), Asked)
    assert other.key == asked.key
    assert msgspec.json.decode(msgspec.json.encode(asked), type=Asked).key == asked.key
    assert differences(asked, other) == []


@given(asked=ASKED, field=st.sampled_from(Asked.__struct_fields__), value=FULL_TEXT)
def test_every_field_of_what_is_asked_for_counts(asked: Asked, field: str, value: str) -> None:
    """Given a request, when any field of it is another, then so is its key, and words say what."""
    old = getattr(asked, field)
    new = old | {value: f"not {old.get(value)}"} if isinstance(old, dict) else f"{old}{value}"
    other = msgspec.structs.replace(asked, **{field: new})
    assert other.key != asked.key
    assert len(differences(asked, other)) == 1


FLOATS = st.lists(NUMBER, max_size=3).map(tuple)


@st.composite
def entries(draw: st.DrawFn) -> dict[Key, Entry]:
    """Baselines of any cells."""
    places = draw(st.lists(st.tuples(NAME, NAME, NAME, NAME), min_size=1, max_size=4, unique=True))
    found = {}
    for place in places:
        key = Key(place[0], "/".join(place[1:]))
        baseline = Baseline(
            id=key.cell,
            device_class=key.device_class,
            asked=draw(ASKED),
            latents_sha256=draw(TEXT),
            memory=draw(st.none() | st.builds(make_memory, st.integers(0, 2**53))),
            scores=draw(st.none() | st.builds(Scores, lpips=FLOATS, clip=FLOATS, note=st.none() | TEXT)),
            noise=draw(st.none() | st.builds(make_noise, NUMBER)),
        )
        accepted = Accepted(
            by=draw(TEXT),
            at=draw(TEXT),
            reason=draw(TEXT | st.just('"sha256": ""')),
            run=draw(TEXT),
            commit=draw(st.none() | TEXT),
            fingerprint=make_fingerprint(packages=draw(st.dictionaries(TEXT | st.just("sha256"), TEXT, max_size=2))),
            timing=None,
            files={},
        )
        found[key] = Entry(baseline=baseline, accepted=accepted)
    return found


def written(entry: Entry) -> dict[str, bytes]:
    """The files of an entry."""
    data = encode(entry.baseline)
    sums = {BASELINE: hashlib.sha256(data).hexdigest()}
    return {BASELINE: data, ACCEPTED: seal(msgspec.structs.replace(entry.accepted, files=sums))}


def content(entry: Entry | StoreError | None) -> tuple[Baseline, Accepted]:
    """An entry without its digests."""
    assert isinstance(entry, Entry), entry
    return entry.baseline, msgspec.structs.replace(entry.accepted, files={}, sha256="")


@settings(max_examples=20)
@given(changes=st.lists(st.tuples(entries(), st.integers(0, 2)), min_size=1, max_size=3))
def test_a_store_holds_what_was_written(changes: list[tuple[dict[Key, Entry], int]]) -> None:
    """Given any changes of a store, each with entries written and some removed, then it holds what is left of them."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "baselines")
        model: dict[Key, Entry] = {}
        for fresh, removals in changes:
            gone = [key for key in model if key not in fresh][:removals]
            store.write(lambda _, f=fresh, g=gone: ({key: written(entry) for key, entry in f.items()}, g))  # type: ignore[misc]
            model = {key: entry for key, entry in (model | fresh).items() if key not in gone}
            assert {key: content(entry) for key, entry in store.entries().items()} == {
                key: content(entry) for key, entry in model.items()
            }
            assert store.places() == sorted(model)
            assert store.damage() == {}
            assert len(files(store.root)) == 3 + 2 * len(model)
            for key, entry in model.items():
                assert content(store.find(key.device_class, key.cell)) == content(entry)


_LEGAL = re.compile(r"[0-9]+(\.[0-9]+)?\s*(B|KiB|MiB|GiB|TiB)")


@given(number=st.integers(1, 10**6), thousandths=st.integers(0, 999), unit=st.sampled_from(["B", "KiB", "MiB", "GiB"]))
def test_bytes_come_back(number: int, thousandths: int, unit: str) -> None:
    """Given a size with decimals, then it is so many bytes, with or without a space."""
    size = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}[unit]
    for text in (f"{number}.{thousandths:03d} {unit}", f" {number}.{thousandths:03d}{unit} "):
        assert math.isclose(units.parse_bytes(text), (number + thousandths / 1000) * size, abs_tol=1)


@given(factor=st.floats(0.001, 1000))
def test_factors_come_back(factor: float) -> None:
    """Given a factor, when it is written with all its decimals and parsed, then it is the same."""
    assert units.parse_factor(f"{factor:.17f}x") == pytest.approx(factor, rel=1e-12)


RUBBISH = TEXT | st.from_regex(r"-?[0-9.,٣e_ ]{1,6} ?(B|KiB|GB|gib|x|s)?", fullmatch=True)


@given(text=RUBBISH)
@example("٣ KiB")
@example("0.0 B")
def test_what_is_no_size_is_refused(text: str) -> None:
    """Given any text, then it is a size where it is a plain number with a unit, and else refused in one line."""
    if _LEGAL.fullmatch(text.strip()) and re.search("[1-9]", text):
        assert units.parse_bytes(text) >= 1
        return
    with pytest.raises(ValueError, match=r"^expected (a number and one of|more than zero)"):
        units.parse_bytes(text)


@given(name=st.sampled_from(["lpips", "clip_drop", "latents"]), value=TEXT | st.floats(max_value=-1e-300))
def test_what_is_no_distance_is_refused(name: str, value: float | str) -> None:
    """Given what is no number from zero, then a limit of a distance is refused by its name."""
    with pytest.raises(ValueError, match=f"^{name}: expected a number from zero, found "):
        Limits.parse({name: value})
