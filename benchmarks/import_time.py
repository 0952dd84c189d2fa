"""How long `import checkpointable` takes beside `import numpy`, in fresh interpreters.

Both are timed inside the new process, around the import statement alone, interleaved; times are
medians, the ratio the median of the rounds'. Also says whether numba was imported, which it must
not be: only kernels and device arrays need it.

NumPy's OpenBLAS is told to start no threads: where the cores are busy, starting them adds 50 ms to
both imports, and would flatter the ratio.

    python -m benchmarks.import_time --rounds 15
"""

import os
import statistics
import subprocess
import sys
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks._measure import Goal, options, report, write

TIMED = """
import time
begin = time.perf_counter()
import {module}
print(time.perf_counter() - begin)
import sys
print("numba" in sys.modules)
"""


def main() -> None:
    args = options(__doc__, rounds=21, least=15).parse_args()
    modules = ("checkpointable", "numpy")
    seconds: dict[str, list[float]] = {f"import {module}": [] for module in modules}
    numba = set()
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    for turn in range(args.rounds + 1):
        for module in modules if turn % 2 else reversed(modules):
            command = [sys.executable, "-c", TIMED.format(module=module)]
            said = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
            taken, imported = said.stdout.split()
            if turn:  # the first round fills the caches
                seconds[f"import {module}"].append(float(taken))
            if module == "checkpointable":
                numba.add(imported == "True")
    goal = Goal("import checkpointable", "import numpy", 2.5)
    found = report("Importing", seconds, [goal], against="import numpy")
    print(f"import checkpointable imports numba: {'yes' if True in numba else 'no'}")
    own = statistics.median(seconds["import checkpointable"])
    found |= {"imports_numba": True in numba, "checkpointable_ms": round(own * 1e3, 2)}
    write("import_time", args.device, Path(__file__).resolve(), found)


if __name__ == "__main__":
    main()
