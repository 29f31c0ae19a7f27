"""What a default audit costs, against one forward pass of as many samples as positions, side by side in one run.

    .venv/bin/python companion/benchmarks/audit.py

Writes audit.md beside this file. Each audit is followed by forward passes, and the ratio is
taken of the medians. Peak memory is measured in a process of its own for each figure: how far
the process grows, or on an accelerator what PyTorch allocates.
"""

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import GPT2Config, GPT2LMHeadModel

from attnmask import Encoder, audit, causal, default_device

RESULT = Path(__file__).with_suffix(".md")
LENGTH, VOCABULARY = 64, 256
REPEATS = 5
LIMIT = 120


class Small(nn.Module):
    """Two layers of `attnmask`, causal, on token ids: the mask is made anew in each layer, each step kept."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding, self.layers = nn.Embedding(VOCABULARY, width), Encoder(layers=2, d_model=width, heads=4)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layers(self.embedding(ids), causal()))


def gpt2(width: int) -> nn.Module:
    sizes = {"n_embd": width, "n_layer": 2, "n_head": 4, "n_positions": 256, "vocab_size": VOCABULARY}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2))


MODELS: dict[str, Callable[[int], nn.Module]] = {"attnmask.Encoder": Small, "Hugging Face GPT-2": gpt2}
WIDTHS = (64, 128, 256)


def made(name: str, width: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    ids = torch.randint(VOCABULARY, (1, LENGTH))
    return MODELS[name](width).to(default_device()).eval(), ids.to(default_device())


def forward(model: nn.Module, ids: Tensor) -> None:
    """One forward pass of as many samples as positions."""
    with torch.no_grad():
        model(ids.expand(LENGTH, -1).contiguous())


def audited(model: nn.Module, ids: Tensor) -> None:
    report = audit(model, ids)
    assert report.ok, report


def seconds(run: Callable[[nn.Module, Tensor], None], model: nn.Module, ids: Tensor) -> float:
    start = time.perf_counter()
    run(model, ids)
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - start


def peak(way: str, name: str, width: int) -> int:
    """Return by how many MiB a process of its own grows while it runs one way."""
    command = [sys.executable, __file__, way, name, str(width)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def grows(way: str, name: str, width: int) -> int:
    """Run one way once, after a warm-up at a short length, and return the growth in MiB."""
    run = {"forward": forward, "audit": audited}[way]
    model, ids = made(name, width)
    model(ids[:, :8])
    if torch.accelerator.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(model, ids)
        return (torch.cuda.max_memory_allocated() - before) // 2**20
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    run(model, ids)
    return (_resident("VmHWM") - before) // 1024


def _resident(kind: str) -> int:
    return int(re.search(rf"{kind}:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))[1])


def main() -> None:
    lines, below = [], []
    for name, width in tqdm([(name, width) for name in MODELS for width in WIDTHS], desc="models"):
        model, ids = made(name, width)
        seconds(audited, model, ids), seconds(forward, model, ids)
        times: dict[str, list[float]] = {"forward": [], "audit": []}
        for _ in range(REPEATS):
            times["audit"].append(seconds(audited, model, ids))
            times["forward"] += [seconds(forward, model, ids) for _ in range(3)]
        once, whole = (statistics.median(times[way]) for way in ("forward", "audit"))
        memory = [peak(way, name, width) for way in ("forward", "audit")]
        figures = f"{whole / once:.0f} | {whole:.2f} | {1000 * once:.1f} | {memory[1]} | {memory[0]}"
        lines.append(f"| {name} | {width} | {figures} |")
        below += [f"{name} {width}"] * (whole <= LIMIT * once)
    device = default_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    text = f"""# The cost of `audit`

Two causal layers, 4 heads, one sample of {LENGTH} token ids, float32, nothing leaking; {name},
PyTorch {torch.__version__.split("+")[0]}. A default audit, which adds a second sample and tries the lengths
{LENGTH}, {LENGTH // 2} and {2 * LENGTH + 1} in eval and training, against one forward pass of {LENGTH} samples
without gradients. Medians of {REPEATS} audits and {3 * REPEATS} forward passes, in turns. An audit is some 400
small runs one after the other: for narrow models most of its time is Python's.
At most {LIMIT} forward passes: {", ".join(below)}.

| model | width | audit, forward = 1 | audit, seconds | forward, milliseconds | audit, MiB | forward, MiB |
|---|---|---|---|---|---|---|
"""
    RESULT.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")
    print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(grows(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    else:
        main()
