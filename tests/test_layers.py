"""Imports point downward only: the table of the layers is here, and this test enforces it."""

from graphlib import TopologicalSorter

from tests.helpers.imports import MODULES, imported_parts, imports, packages, part

LAYERS = [
    ["errors", "threads", "events"],
    ["arrays", "protocol", "sinks"],
    ["schema", "stores"],
    ["tree", "format"],
    ["archive", "capture"],
    ["distributed", "tiers", "files"],
    ["checkpointer"],
    ["runner", "testing"],
    ["supervisor", "__init__"],
    ["kernels"],
    ["cli"],
    ["__main__"],
]
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}


def test_no_import_points_upward_and_there_is_no_circle() -> None:
    """Nor in a folder: its `__init__` imports its modules, and none of them imports it."""
    graph = dict[str, set[str]]()
    for module in MODULES:
        for imported in imported_parts(module) - {part(module)}:
            assert LEVELS[imported] < LEVELS[part(module)], f"{module} imports {imported}"
        names, around = imports(module), {module} | packages(module)
        assert not names & around, f"{module} imports its own folder"
        # Importing `a.b.c` runs `a.b` too, unless it has begun because the importer is in it.
        graph[module] = names.union(*map(packages, names)) - around
    TopologicalSorter(graph).prepare()
