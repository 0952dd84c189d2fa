"""Which module of the package imports which, read from the source."""

import ast
from pathlib import Path

import checkpointable

ROOT = Path(checkpointable.__file__).parent


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_dotted(path): path for path in sorted(ROOT.rglob("*.py"))}


def packages(module: str) -> set[str]:
    """The folders that a module lies in, without the top."""
    parts = module.split(".")
    return {".".join(parts[:n]) for n in range(2, len(parts))}


def part(module: str) -> str:
    """The folder or module at the top of the package that a module belongs to."""
    return [*module.split("."), "__init__"][1]


def absolute_imports(module: str) -> set[str]:
    """All that a module imports, wherever in it: `a.b.c` of `from a.b import c`."""
    names = set[str]()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports(module: str) -> set[str]:
    """The modules of the package that a module imports."""
    public = {f"checkpointable.{name}" for name in checkpointable.__all__}
    return {
        name if name in MODULES and name not in public else name.rpartition(".")[0]
        for name in absolute_imports(module)
        if name.split(".")[0] == "checkpointable"
    }


def imported_parts(module: str) -> set[str]:
    return {part(name) for name in imports(module)}
