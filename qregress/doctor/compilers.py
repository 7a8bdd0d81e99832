"""What a first run compiles, and with what."""

from __future__ import annotations

from qregress.doctor.facts import Fact, State, absence
from qregress.quantize import extensions
from qregress.quantize.extensions import Extension, Tool


def compilers(named: dict[str, set[str]], kinds: list[str]) -> tuple[Fact, ...]:
    """Quanto's extensions for the kinds of devices that there are, and the tools that build them.

    ``named``: kind of device -> the weight types that the configuration asks quanto for. A tool is needed only as long
    as such an extension is still to be built.
    """
    used = {kind: extensions.NEEDED["quanto", kind] for kind in kinds}
    wanted = [extension for kind, extension in used.items() if extension.weights & named.get(kind, set())]
    pending = {tool.name for each in wanted if not extensions.is_built(each) for tool in extensions.tools(each)}
    tools = {tool.name: tool for each in used.values() for tool in extensions.tools(each)}
    return (
        *(_tool(tool, named=name in pending) for name, tool in tools.items()),
        *(_extension(each, named=each in wanted) for each in used.values()),
    )


def _tool(tool: Tool, *, named: bool) -> Fact:
    """Where it is, and for a program its version."""
    if tool.path is None:
        state, cost = absence(named=named), "what is not built yet stays so"
        return Fact(name=tool.name, state=state, detail=tool.why, cost=cost, how=tool.how, named=named)
    version = "" if tool.path.suffix == ".h" else extensions.version(tool.path)
    return Fact(name=tool.name, state="ok", detail=f"{tool.path}{version and ', '}{version}", named=named)


def _extension(extension: Extension, *, named: bool) -> Fact:
    """Built, still to be built, or not to be built for want of something."""
    state: State
    kinds = ", ".join(sorted(extension.weights))
    name = f"optimum-quanto's {extension.name}"
    if extensions.is_built(extension):
        return Fact(name=name, state="ok", detail=f"built, for {kinds}", named=named)
    tool = extensions.lacking(extension)
    if tool is not None:
        detail, cost = f"not built, and cannot be: no {tool.name}", f"no {kinds} weights"
        state = absence(named=named)
        return Fact(name=name, state=state, detail=detail, cost=cost, how=tool.how, named=named, cause=tool.name)
    state = "later" if named else "absent"
    how = "the first run that needs it builds it"
    return Fact(name=name, state=state, detail=f"not built yet; for {kinds}", cost=extension.cost, how=how, named=named)
