"""Write the golden files that are missing: `python -m tests.golden.make`. None is ever replaced.

Run it after a new schema version (with its class beside the older ones in `values.py`) or a new
`container.FORMAT`, and commit what it wrote.
"""

from pathlib import Path

from checkpointable import save_file
from checkpointable.format.container import FORMAT
from tests.golden.values import WRITTEN

FOLDER = Path(__file__).parent
KEY = b"the golden key.."


def main() -> None:
    folder = FOLDER / f"format-{FORMAT}"
    folder.mkdir(exist_ok=True)
    for name, value in WRITTEN.items():
        path = folder / f"{name}.safetensors"
        if not path.exists():
            save_file(value, path)
            print(f"written: {path.relative_to(FOLDER)}")
    signed = FOLDER / "signed" / f"format-{FORMAT}.safetensors"
    if not signed.exists():
        signed.parent.mkdir(exist_ok=True)
        save_file(WRITTEN["walk-3"], signed, key=KEY)
        print(f"written: {signed.relative_to(FOLDER)}")


if __name__ == "__main__":
    main()
