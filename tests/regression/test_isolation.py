"""A cell's result does not depend on its neighbours."""

from __future__ import annotations

import msgspec
import pytest

from qregress.record import Memory
from tests.regression.harness import FEW, Finished, Runner

INT4 = '[settings.int4]\nweights = { transformer = "int4", text_encoder = "int4" }\ndtype = "bfloat16"\n'
INT8 = '[settings.int8]\nweights = { transformer = "int8" }\n'


class Seen(msgspec.Struct, frozen=True):
    """What must not depend on anything but the cell."""

    images: list[bytes]
    latents: str | None
    memory: Memory | None
    repeatable: bool | None


def seen(finished: Finished, setting: str) -> Seen:
    """Images, latents and memory of a cell."""
    cell_id = f"pixart-sigma/{setting}/bs1"
    record = finished.folder.record(cell_id)
    assert record is not None, finished.output
    images = [(finished.folder.cell(cell_id) / name).read_bytes() for name in record.images]
    return Seen(images, record.latents_sha256, record.memory, record.repeatable)


@pytest.mark.parametrize("setting", ["reference", "int8"])
def test_alone_after_others_and_in_process(runs: dict[str, Finished], setting: str) -> None:
    """Alone, after a setting of another dtype, and without a worker: bit-equal images, equal bytes of memory."""
    alone = seen(runs["alone"], setting)
    assert alone == seen(runs["after"], setting)
    assert alone == seen(runs["inside"], setting)
    assert alone.repeatable is True


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """The same cell in three companies."""
    runner = Runner(tmp_path_factory.mktemp("isolation"))
    return {
        "alone": runner(INT8, name="alone", **FEW),
        "after": runner(INT4 + INT8, name="after", **FEW),
        "inside": runner(INT8, "--inprocess", name="inside", **FEW),
    }
