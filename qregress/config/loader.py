"""From the text of a qregress.toml to a ``Config``, or to one line that says what is wrong with it."""

from __future__ import annotations

import datetime as dt
import re
import tomllib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn, cast, get_args

import msgspec

from qregress import pipelines, units
from qregress.config.model import EVERYTHING, Baselines, Config, Kept, Metrics, Run, embedded_path
from qregress.config.settings import read_setting
from qregress.config.tables import (
    BaselinesTable,
    PipelineTable,
    RunTable,
    SettingTable,
    WaiverTable,
    WorkloadTable,
)
from qregress.errors import ConfigError, SourceError, nearest
from qregress.judge.budgets import FIELDS, Budgets, Limits
from qregress.judge.checks import CHECK_NAMES
from qregress.judge.waivers import Waiver
from qregress.matrix import DEVICES, NAME, ROLES, Cell, Pipeline, Roles, Setting, Workload, product
from qregress.metrics import FOLDER_PREFIX, LPIPS_NAMES, MetricError, validate_clip_name
from qregress.pipelines import architecture


def load(path: Path, factories: Sequence[Pipeline] = ()) -> Config:
    """Read and validate a configuration. Raises ``ConfigError`` (or ``SourceError``) with one line.

    ``factories``: registered pipelines (see ``pipelines.registered``), which join those of the file. Where the file is
    the embedded one they take the place of its pipeline, and of its budgets, which were measured on that.
    """
    return _Loader(path, factories).load()


def _without_pipelines(raw: dict[str, Any]) -> dict[str, Any]:
    """Tables without a word of the pipelines that they name, for others to take their place."""
    kept = {key: table for key, table in raw.items() if key not in ("pipelines", "budgets", "selections")}
    settings = {
        name: {key: value for key, value in table.items() if key != "pipelines"}
        for name, table in raw["settings"].items()
    }
    run = {key: value for key, value in raw.get("run", {}).items() if key != "select"}
    return kept | {"settings": settings, "run": run}


class _Loader:
    """One reading of one file, so that every error can name it."""

    def __init__(self, path: Path, factories: Sequence[Pipeline]) -> None:
        self.path = path
        self.factories = tuple(factories)

    def fail(self, key: str, message: str) -> NoReturn:
        raise ConfigError(f"{self.path}: {key}: {message}" if key else f"{self.path}: {message}")

    def load(self) -> Config:
        raw = self.read()
        known = (
            "pipelines",
            "settings",
            "workloads",
            "metrics",
            "budgets",
            "run",
            "waivers",
            "baselines",
            "selections",
        )
        for key in raw:
            if key not in known:
                self.fail(key, f"unknown table; {nearest(key, known)}")
        if self.factories and self.path == embedded_path():
            raw = _without_pipelines(raw)
        chosen = self.tables(raw, "pipelines", PipelineTable)
        for factory in self.factories:
            if factory.name in chosen:
                origin = f"@qregress.pipeline in {factory.factory.file}" if factory.factory else factory.source
                self.fail(f"pipelines.{factory.name}", f"the name is taken by {origin}; choose another for one of them")
        if not chosen and not self.factories:
            self.fail(
                "pipelines",
                'no pipeline; name at least one, as in [pipelines.pixart-sigma] source = "pocket:pixart-sigma", '
                "or register one with @qregress.pipeline in conftest.py",
            )
        settings = tuple(
            self.setting(name, table) for name, table in self.tables(raw, "settings", SettingTable).items()
        )
        tables = self.tables(raw, "workloads", WorkloadTable) or {"bs1": WorkloadTable()}
        workloads = tuple(self.workload(name, table) for name, table in tables.items())
        loaded = (*(self.pipeline(name, table) for name, table in chosen.items()), *self.factories)
        self.are_for_somebody(settings, [pipeline.name for pipeline in loaded])
        for pipeline in loaded:
            self.components(pipeline, settings)
        cells = product(loaded, settings, workloads)
        selections = self.selections(raw.get("selections", {}), cells)
        return Config(
            path=self.path,
            pipelines=loaded,
            settings=settings,
            workloads=workloads,
            metrics=self.metrics(raw),
            budgets=self.budgets(raw.get("budgets", {}), cells),
            run=self.run(raw, selections),
            selections=selections,
            waivers=self.waivers(raw.get("waivers", []), cells),
            baselines=self.baselines(raw),
        )

    def read(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{self.path}: no such configuration file") from None
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path}: not valid TOML: {error}") from None

    def convert(self, key: str, value: Any, kind: type[Any]) -> Any:
        """To a struct; unknown keys are told with the nearest name, wrong types with key and type."""
        if not isinstance(value, dict):
            self.fail(key, f"expected a table, found {type(value).__name__}")
        fields = kind.__struct_fields__
        for name in value:
            if name not in fields:
                self.fail(f"{key}.{name}", f"unknown key; {nearest(name, fields)}")
        try:
            return msgspec.convert(value, kind, builtin_types=(dt.date, dt.datetime))
        except msgspec.ValidationError as error:
            text, _, where = str(error).partition(" - at `$")
            text += ", as in 2027-06-30, without quotes or time" if "`date`" in text else ""
            self.fail(key + where.rstrip("`"), text[0].lower() + text[1:])

    def tables(self, raw: dict[str, Any], section: str, kind: type[Any]) -> dict[str, Any]:
        value = raw.get(section, {})
        if not isinstance(value, dict):
            self.fail(section, f"expected tables like [{section}.NAME], found {type(value).__name__}")
        for name in value:
            if not NAME.match(name):
                self.fail(f"{section}.{name!r}", "a name is made of letters, digits, '.', '_', '+' and '-'")
        return {name: self.convert(f"{section}.{name}", table, kind) for name, table in value.items()}

    def pipeline(self, name: str, table: PipelineTable) -> Pipeline:
        key = f"pipelines.{name}"
        source = self.relative_source(table.source)
        try:
            kind = pipelines.check(source)
        except (ConfigError, SourceError) as error:
            self.fail(f"{key}.source", str(error))
        devices = tuple(table.devices) if table.devices is not None else kind.default_devices
        for device in devices:
            if device not in DEVICES:
                self.fail(f"{key}.devices", f"unknown device '{device}'; {nearest(device, DEVICES)}")
        if not devices:
            self.fail(f"{key}.devices", f"empty; allowed: {', '.join(DEVICES)}")
        # As plain roles: what else is known of a family is no worker's business.
        roles = Roles(**{field: getattr(kind.family, field) for field in Roles.__struct_fields__})
        return Pipeline(name=name, source=kind.pinned or source, devices=devices, call=table.call, roles=roles)

    def relative_source(self, source: str) -> str:
        """A path in a configuration is relative to the file that holds it."""
        scheme, _, rest = source.partition(":")
        is_file = (scheme == "path" and rest) or (scheme == "random" and architecture.is_file(rest))
        return f"{scheme}:{(self.path.parent / rest).resolve()}" if is_file else source

    def relative_clip(self, name: str) -> str:
        """As of sources."""
        folder = name.removeprefix(FOLDER_PREFIX)
        return name if folder in {name, ""} else f"{FOLDER_PREFIX}{(self.path.parent / folder).resolve()}"

    def setting(self, name: str, table: SettingTable) -> Setting:
        return read_setting(name, table, self.fail)

    def are_for_somebody(self, settings: tuple[Setting, ...], names: list[str]) -> None:
        """Every pattern of a setting's ``pipelines`` means one."""
        for setting in settings:
            for pattern in setting.pipelines:
                if not any(fnmatchcase(name, pattern) for name in names):
                    key = f"settings.{setting.name}.pipelines"
                    self.fail(key, f"'{pattern}' matches no pipeline; {nearest(pattern, names)}")

    def components(self, pipeline: Pipeline, settings: tuple[Setting, ...]) -> None:
        """Every component that a setting quantizes exists in the pipeline.

        The embedded settings are nobody's wish: a factory gets those that it has the components for.
        """
        names = pipelines.components(pipeline)
        if names is None or (pipeline.factory is not None and self.path == embedded_path()):
            return
        for setting in settings:
            if not setting.is_for(pipeline.name):
                continue
            for name in setting.weights:
                key = f"settings.{setting.name}.weights.{name}"
                if pipeline.roles is None and name in ROLES:
                    continue  # known when its function has been called
                found = pipeline.roles.members(name) if pipeline.roles is not None else (name,)
                if not found:
                    self.fail(key, f"pipeline '{pipeline.name}' has no {name.replace('_', ' ')}")
                for component in found:
                    if component not in names:
                        near = nearest(component, {*names, *ROLES} if pipeline.roles is not None else names)
                        self.fail(key, f"pipeline '{pipeline.name}' has no component '{component}'; {near}")
            if pipeline.roles is not None:
                self.denoiser(pipeline.name, pipeline.roles, setting)

    def denoiser(self, pipeline: str, roles: Roles, setting: Setting) -> None:
        """What concerns the denoiser alone is asked of one that is quantized, and can do it."""
        fitted = setting.of(roles)
        for key, asked in (("fuse_qkv", setting.fuse_qkv), ("qat", setting.qat is not None)):
            if asked and roles.denoiser not in fitted.weights:
                self.fail(f"settings.{setting.name}.{key}", f"weights leave {roles.denoiser} of '{pipeline}' as it is")
        if setting.fuse_qkv and roles.fuses_qkv is False:
            why = (
                f"the denoiser of pipeline '{pipeline}' has no fuse_qkv_projections; leave it out with pipelines = […]"
            )
            self.fail(f"settings.{setting.name}.fuse_qkv", why)
        for component in fitted.activations:
            if component not in fitted.weights:
                near = nearest(component, fitted.weights)
                why = f"'{pipeline}' has no such component whose weights are quantized; {near}"
                self.fail(f"settings.{setting.name}.activations.{component}", why)

    def workload(self, name: str, table: WorkloadTable) -> Workload:
        key = f"workloads.{name}"
        if table.seed < 0:
            self.fail(f"{key}.seed", f"expected zero or more, found {table.seed}")
        for field in ("batch_size", "height", "width", "steps", "count"):
            value = getattr(table, field)
            if value is not None and value < 1:
                self.fail(f"{key}.{field}", f"expected one or more, found {value}")
        if table.guidance is not None and not 0 <= table.guidance < float("inf"):
            self.fail(f"{key}.guidance", f"expected a number from zero, found {table.guidance}")
        prompts = self.prompts(key, table.prompts)
        if table.count is not None and table.count > len(prompts):
            self.fail(f"{key}.count", f"asks for {table.count} prompts of {len(prompts)}")
        return Workload(
            name=name,
            prompts=prompts[: table.count],
            seed=table.seed,
            batch_size=table.batch_size,
            height=table.height,
            width=table.width,
            steps=table.steps,
            guidance=table.guidance,
        )

    def prompts(self, key: str, value: str | list[str]) -> tuple[str, ...]:
        """``"builtin"``, a file with a prompt a line, or a list."""
        if isinstance(value, list):
            found = tuple(value)
        elif value == "builtin":
            return pipelines.builtin_prompts()
        else:
            path = self.path.parent / value
            try:
                found = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
                self.fail(f"{key}.prompts", f"{path}: {reason}; {self.near_prompts(value, path)}")
        if not found or not all(prompt.strip() for prompt in found):
            self.fail(f"{key}.prompts", "an empty prompt list or an empty prompt; name at least one prompt")
        return found

    @staticmethod
    def near_prompts(value: str, path: Path) -> str:
        """What may stand there: the builtin list, and the nearest text file where the name is a file's."""
        files = [file.name for file in path.parent.glob("*.txt")] if path.parent.is_dir() else []
        return nearest(value, ["builtin", *files]) + ", or a list of prompts"

    def metrics(self, raw: dict[str, Any]) -> Metrics:
        metrics: Metrics = self.convert("metrics", raw.get("metrics", {}), Metrics)
        if metrics.lpips not in LPIPS_NAMES:
            self.fail("metrics.lpips", f"unknown metric '{metrics.lpips}'; {nearest(metrics.lpips, LPIPS_NAMES)}")
        clip = self.relative_clip(metrics.clip)
        try:
            validate_clip_name(clip)
        except MetricError as error:
            self.fail("metrics.clip", str(error))
        return Metrics(lpips=metrics.lpips, clip=clip)

    def budgets(self, table: Any, cells: list[Cell]) -> Budgets:
        """Budgets for all cells, and tables for cells by pattern; a pattern that matches no cell is an error."""
        if not isinstance(table, dict):
            self.fail("budgets", f"expected a table, found {type(table).__name__}")
        scoped = {name: value for name, value in table.items() if isinstance(value, dict)}
        plain = {name: value for name, value in table.items() if name not in scoped}
        budgets = Budgets(
            default=self.limits("budgets", plain),
            scoped={pattern: self.limits(f'budgets."{pattern}"', value) for pattern, value in scoped.items()},
        )
        ids = [cell.id for cell in cells]
        for pattern in scoped:
            if not any(Budgets.matches(pattern, cell_id) for cell_id in ids):
                self.fail(f'budgets."{pattern}"', f"matches no cell; {nearest(pattern, ids)}")
        return budgets

    def limits(self, key: str, table: dict[str, Any]) -> Limits:
        for name in table:
            if name not in FIELDS:
                self.fail(f"{key}.{name}", f"unknown budget; {nearest(name, FIELDS)}")
        try:
            return Limits.parse(table)
        except ValueError as error:
            self.fail(key, str(error))

    def waivers(self, tables: Any, cells: list[Cell]) -> tuple[Waiver, ...]:
        """Each names cells and a check that exist, a reason, a link and the last day on which it holds."""
        if not isinstance(tables, list):
            self.fail("waivers", "expected tables like [[waivers]]")
        found = []
        ids = [cell.id for cell in cells]
        for index, table in enumerate(tables):
            key = f"waivers[{index}]"
            waiver: WaiverTable = self.convert(key, table, WaiverTable)
            if waiver.check not in CHECK_NAMES:
                self.fail(f"{key}.check", f"unknown check '{waiver.check}'; {nearest(waiver.check, CHECK_NAMES)}")
            if not any(Budgets.matches(waiver.cell, cell_id) for cell_id in ids):
                self.fail(f"{key}.cell", f"'{waiver.cell}' matches no cell; {nearest(waiver.cell, ids)}")
            if not waiver.reason.strip():
                self.fail(f"{key}.reason", "empty; say why this check fails")
            if not re.match(r"https?://\S+\Z", waiver.issue):
                self.fail(f"{key}.issue", f"expected a link like https://…, found {waiver.issue!r}")
            found.append(Waiver(**msgspec.structs.asdict(waiver)))
        return tuple(found)

    def baselines(self, raw: dict[str, Any]) -> Baselines:
        table: BaselinesTable = self.convert("baselines", raw.get("baselines", {}), BaselinesTable)
        if table.store not in get_args(Kept):
            self.fail("baselines.store", f"unknown kind '{table.store}'; {nearest(table.store, get_args(Kept))}")
        if table.path is not None and not table.path.strip():
            self.fail("baselines.path", "empty; name a folder, or leave it out for baselines/ in the root")
        path = (self.path.parent / table.path).resolve() if table.path is not None else None
        return Baselines(path=path, store=cast("Kept", table.store))

    def selections(self, table: Any, cells: list[Cell]) -> dict[str, tuple[str, ...]]:
        """Name -> patterns of cells, each of which means some."""
        if not isinstance(table, dict):
            self.fail(
                "selections", f'expected lists of cells, as in quick = ["sd3/int8"], found {type(table).__name__}'
            )
        ids = [cell.id for cell in cells]
        for name, patterns in table.items():
            key = f"selections.{name}"
            if name == EVERYTHING:
                self.fail(key, f"'{EVERYTHING}' is every cell, which needs no table; choose another name")
            if not isinstance(patterns, list) or not patterns or not all(isinstance(text, str) for text in patterns):
                self.fail(key, f'expected a list of cells, as in ["sd3/int8", "*/reference"], found {patterns!r}')
            for pattern in patterns:
                if not any(Budgets.matches(pattern, cell_id) for cell_id in ids):
                    self.fail(key, f"'{pattern}' matches no cell; {nearest(pattern, ids)}")
        return {name: tuple(patterns) for name, patterns in table.items()}

    def run(self, raw: dict[str, Any], selections: dict[str, tuple[str, ...]]) -> Run:
        table: RunTable = self.convert("run", raw.get("run", {}), RunTable)
        if table.latency_pairs < 1:
            self.fail("run.latency_pairs", f"expected one or more, found {table.latency_pairs}")
        seconds = {}
        for field in ("deadline", "latency_time"):
            try:
                seconds[field] = units.parse_seconds(getattr(table, field))
            except ValueError as error:
                self.fail(f"run.{field}", str(error))
        if table.select is not None and table.select not in {*selections, EVERYTHING}:
            known = nearest(table.select, [*selections, EVERYTHING])
            self.fail("run.select", f"no selection '{table.select}'; {known}")
        return Run(seconds["deadline"], table.latency_pairs, seconds["latency_time"], table.select, table.blame)
