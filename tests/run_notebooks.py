"""Run notebooks in place and write them so that two runs differ in nothing: `make notebooks` calls this.

python tests/run_notebooks.py book/1-four-tokens/02-four-tokens.ipynb …
"""

import base64
import os
import sys
import time
from io import BytesIO
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

os.environ["TQDM_DISABLE"] = "1"  # a progress bar on a slow machine is no output
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # else TensorFlow says so, on some processors
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
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if picture := output.get("data", {}).get("image/png"):
            output.data["image/png"] = lighter(picture)
    notebook.metadata = nbformat.from_dict(METADATA)
    nbformat.write(notebook, path)


def lighter(picture: str) -> str:
    """Write a PNG with a palette of 256 colours: a third of the bytes, and no difference to the eye in flat colours."""
    before, after = Image.open(BytesIO(base64.b64decode(picture))), BytesIO()
    before.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
        after, format="PNG", optimize=True, dpi=before.info["dpi"]
    )
    return base64.b64encode(after.getvalue()).decode()


def main(names: list[str]) -> None:
    for place, name in enumerate(names, start=1):
        print(f"[{place}/{len(names)}] {name}", end=" ", flush=True)
        start = time.perf_counter()
        run(Path(name))
        print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
