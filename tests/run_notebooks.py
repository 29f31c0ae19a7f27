"""Run notebooks in place and write them so that two runs differ in nothing: `make notebooks` calls this.

python tests/run_notebooks.py book/1-four-tokens/02-four-tokens.ipynb …
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

# What a notebook says of its kernel, without the versions of this machine.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    },
}


def run(path: Path) -> None:
    """Run one notebook from its own folder and save it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,  # else the output is cut where the clock happened to cut it
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    nbformat.write(notebook, path)


def main(names: list[str]) -> None:
    for place, name in enumerate(names, start=1):
        print(f"[{place}/{len(names)}] {name}", end=" ", flush=True)
        start = time.perf_counter()
        run(Path(name))
        print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
