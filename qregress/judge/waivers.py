"""Checks that are known to fail: strict and expiring, as an xfail should be."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

import msgspec

from qregress.judge.budgets import Budgets
from qregress.record import Check


class Waiver(msgspec.Struct, frozen=True, kw_only=True):
    """``cell`` is a pattern as in budgets; ``expires`` is the last day on which it holds."""

    cell: str
    check: str
    reason: str
    issue: str
    expires: dt.date

    @property
    def text(self) -> str:
        """What every summary shows of it."""
        return f"{self.reason} ({self.issue}, until {self.expires})"


def apply(found: Iterable[Check], cell: str, waivers: Iterable[Waiver], today: dt.date) -> tuple[Check, ...]:
    """The checks of one cell under the waivers; a waived check that passes again is a failure."""
    matching = [waiver for waiver in waivers if Budgets.matches(waiver.cell, cell)]
    # Of several that mean one check the one that holds longest: an old one beside its renewal takes nothing away.
    mine = {waiver.check: waiver for waiver in sorted(matching, key=lambda waiver: waiver.expires)}
    return tuple(_one(check, mine[check.name], today) if check.name in mine else check for check in found)


def _one(check: Check, waiver: Waiver, today: dt.date) -> Check:
    expired = today > waiver.expires
    if check.verdict == "fail" and expired:
        why = f"{check.why}; its waiver expired on {waiver.expires} ({waiver.issue}): mend it, or renew the waiver"
        return msgspec.structs.replace(check, why=why)
    if check.verdict == "fail":
        return msgspec.structs.replace(check, verdict="waived", why=f"{check.why}; waived: {waiver.text}")
    if check.verdict == "pass" and not expired:
        why = f"passes ({check.why}), but a waiver says that it fails: take the waiver out; it said: {waiver.text}"
        return msgspec.structs.replace(check, verdict="fail", stale=True, why=why)
    return check


def notes(found: Iterable[Check], cell: str, waivers: Iterable[Waiver], today: dt.date) -> list[str]:
    """What a waiver can no longer do for a cell."""
    names = {check.name for check in found}
    mine = [waiver for waiver in waivers if Budgets.matches(waiver.cell, cell)]
    told = []
    for waiver in mine:
        if waiver.check not in names:
            told.append(f"the waiver of {waiver.check} does nothing: there was no such check")
        elif today > waiver.expires:
            told.append(f"the waiver of {waiver.check} expired on {waiver.expires}")
    return told
