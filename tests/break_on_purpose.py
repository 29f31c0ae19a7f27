"""Break the companion on purpose and see that both the tests and the notebooks notice.

    .venv/bin/python tests/break_on_purpose.py

Each fault is written into a copy of the package, which Python finds before the installed one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "companion" / "src" / "attnmask"
TESTS = ["tests/masks", "tests/conventions", "tests/measure"]
TESTS += [f"tests/test_{name}.py" for name in ("attention", "symbolic", "layers", "decoding", "influence", "reach")]

# What is broken: the file, the text there, the text in its place (every occurrence).
FAULTS = {
    "flip the polarity": ("attention.py", "masked_fill(~allowed,", "masked_fill(allowed,"),
    "shift the diagonal up by one": (
        "masks/constructors.py",
        '_band("causal", "", None, 0, position_ids)',
        '_band("causal", "", None, 1, position_ids)',
    ),
    "shift the diagonal down by one": (
        "masks/constructors.py",
        '_band("causal", "", None, 0, position_ids)',
        '_band("causal", "", None, -1, position_ids)',
    ),
    "drop the padding": (
        "masks/rules.py",
        "return _look_up(self.table, batch, key)",
        "return _look_up(self.table, batch, key) | True",
    ),
    "mask after the softmax": (
        "attention.py",
        "weights = masked_scores.masked_fill(empty, 0.0).softmax(dim=-1).masked_fill(empty, 0.0)",
        "weights = scores.softmax(dim=-1) * allowed",
    ),
    "drop the square root of d": (
        "attention.py",
        "1 / math.sqrt(query.shape[-1]) if scale is None",
        "1.0 if scale is None",
    ),
    "softmax along the queries": ("attention.py", "softmax(dim=-1)", "softmax(dim=-2)"),
    "forget the mask after the first layer": (
        "layers.py",
        "x = layer(x, mask, grown, memory, memory_mask)",
        "x = layer(x, mask if layer is self.layers[0] else None, grown, memory, memory_mask)",
    ),
    "forget what the cache keeps": (
        "layers.py",
        "torch.cat([old[0], key], dim=-2), torch.cat([old[1], value], dim=-2)",
        "key, value",
    ),
    "count positions from the chunk": (
        "layers.py",
        "torch.arange(seen, seen + ids.shape[-1], device=ids.device)",
        "torch.arange(ids.shape[-1], device=ids.device)",
    ),
    "ask for the oldest token": ("decoding.py", "found[:, -1:].argmax", "found[:, :1].argmax"),
    "leave own rows out of reach": ("stacks.py", "(seen | own).float() @ reached", "seen.float() @ reached"),
    "read blocked as allowed": (
        "conventions/entries.py",
        "return ~mask if mask.dtype == torch.bool",
        "return mask if mask.dtype == torch.bool",
    ),
    "put heads before samples": (
        "conventions/pytorch.py",
        "~allowed.expand(samples, heads, -1, -1).flatten(0, 1)",
        "~allowed.expand(samples, heads, -1, -1).transpose(0, 1).flatten(0, 1)",
    ),
}


def fails(arguments: list[str], source: Path) -> str:
    """Run pytest against the broken copy; return the first failure, or nothing."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-n",
            "2",
            "--dist",
            "loadfile",
            "-p",
            "no:cacheprovider",
            *arguments,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
    )
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return failed[0].removeprefix("FAILED ").split(" - ")[0] if failed else ""


def main() -> int:
    unnoticed = 0
    for place, (name, (file, before, after)) in enumerate(FAULTS.items(), start=1):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder)
            shutil.copytree(PACKAGE, source / "attnmask")
            broken = source / "attnmask" / file
            text = broken.read_text(encoding="utf-8")
            if before not in text:
                sys.exit(f"Expected {before!r} in {file}; the code has changed: change the fault as well.")
            broken.write_text(text.replace(before, after), encoding="utf-8")
            test = fails(TESTS, source)
            notebook = fails(
                ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", "tests/sanitize.cfg", "book"], source
            )
        unnoticed += not (test and notebook)
        print(f"[{place}/{len(FAULTS)}] {name}")
        print(f"    test:     {test or 'NOT NOTICED'}")
        print(f"    notebook: {notebook or 'NOT NOTICED'}", flush=True)
    return unnoticed


if __name__ == "__main__":
    sys.exit(main())
