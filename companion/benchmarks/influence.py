"""What the full matrix of influences costs, against other ways to the same matrix, side by side in one run.

    .venv/bin/python companion/benchmarks/influence.py

Writes influence.md beside this file: ratios to one forward pass with gradients on, of as
many samples as there are positions. Peak memory is measured in a process of its own for
each figure: how far the process grows, or on an accelerator what PyTorch allocates.
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

from attnmask import default_device, influence

RESULT = Path(__file__).with_suffix(".md")
LENGTHS = (32, 128, 256)
WIDTH, HEADS = 64, 4
REPEATS = 7


class Layer(nn.Module):
    """Pre-norm causal self-attention by SDPA, and an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.projections, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.projections(self.norms[0](x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))


def forward(model: nn.Module, x: Tensor) -> None:
    """One forward pass of as many samples as positions, with gradients on."""
    model(x.expand(x.shape[1], -1, -1).clone().requires_grad_())


def by_gradient(model: nn.Module, x: Tensor) -> Tensor:
    return influence(model, x)[0]


def by_perturbation(model: nn.Module, x: Tensor) -> Tensor:
    return influence(model, x, probe="perturbation")[0]


def by_loop(model: nn.Module, x: Tensor) -> Tensor:
    """One backward pass for each output position, after one forward pass."""
    x = x.clone().requires_grad_()
    output = model(x)
    shadow = (output * torch.randn_like(output)).sum(-1)[0]
    rows = [torch.autograd.grad(one, x, retain_graph=True)[0][0] for one in shadow]
    return (torch.stack(rows) != 0).any(-1).cpu()


def by_jacobian(model: nn.Module, x: Tensor) -> Tensor:
    """PyTorch's default: one backward pass for each output number."""
    jacobian = torch.autograd.functional.jacobian(model, x)  # (1, output, feature, 1, input, feature)
    return (jacobian[0, :, :, 0] != 0).any(-1).any(1).cpu()


WAYS: dict[str, Callable[[nn.Module, Tensor], Tensor | None]] = {
    "forward": forward,
    "gradient": by_gradient,
    "perturbation": by_perturbation,
    "loop": by_loop,
    "jacobian": by_jacobian,
}


def setting(length: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(Layer(), Layer()).eval().to(default_device()), torch.randn(1, length, WIDTH).to(
        default_device()
    )


def synchronize() -> None:
    if default_device().type != "cpu":
        torch.accelerator.synchronize()


def seconds(way: str, length: int) -> float:
    model, x = setting(length)
    synchronize()
    start = time.perf_counter()
    found = WAYS[way](model, x)
    synchronize()
    taken = time.perf_counter() - start
    if found is not None and not torch.equal(found, torch.ones(length, length).tril().bool()):
        raise AssertionError(f"{way} finds another matrix than the causal one")
    return taken


def peak(way: str, length: int) -> float:
    """Mebibytes by which this process grows; call it in a fresh one."""
    seconds(way, 4)  # loads what there is to load
    if default_device().type != "cpu":
        torch.accelerator.reset_peak_memory_stats()
        seconds(way, length)
        return torch.accelerator.max_memory_allocated() / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far, that of loading PyTorch
    before = resident("VmRSS")
    seconds(way, length)
    return resident("VmHWM") - before


def resident(which: str) -> float:
    """Mebibytes of memory now (VmRSS) or at the peak (VmHWM)."""
    return int(re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 2**10


def main() -> None:
    machine = f"{os.cpu_count()} CPU cores" if default_device().type == "cpu" else torch.cuda.get_device_name()
    plan = [
        (length, way)
        for length in LENGTHS
        for repeat in range(REPEATS)
        for way in WAYS  # in turns, so that a slow moment of the machine meets all alike
        if way != "jacobian" or repeat < (3 if length == 32 else 1)
    ]
    times: dict[tuple[int, str], list[float]] = {}
    for length in LENGTHS:
        for way in WAYS:
            seconds(way, 4)
            if way != "jacobian":
                seconds(way, length)
    for length, way in tqdm(plan, desc="times"):
        times.setdefault((length, way), []).append(seconds(way, length))
    peaks = {}
    for length, way in tqdm(times, desc="memory"):
        command = [sys.executable, __file__, way, str(length)]
        peaks[length, way] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    medians = {which: statistics.median(each) for which, each in times.items()}

    lines = [
        "# The cost of `influence`",
        "",
        f"Two causal layers by SDPA, width {WIDTH}, {HEADS} heads, one sample in eval mode, float32; {machine},",
        f"PyTorch {torch.__version__.split('+')[0]}. Medians of up to {REPEATS} runs, all ways in turns; each found",
        "the same matrix.",
        "*forward*: one forward pass of S samples, gradients on. *gradient*, *perturbation*: the two probes.",
        "*loop*: one backward pass an output position. *jacobian*: the default of `torch.autograd.functional`.",
        "",
        "| S | way | time, forward = 1 | times as long as *gradient* | milliseconds | peak memory, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for (length, way), median in medians.items():
        ratios = median / medians[length, "forward"], median / medians[length, "gradient"]
        figures = f"{ratios[0]:.2f} | {ratios[1]:.2f} | {1000 * median:.1f} | {peaks[length, way]:.0f}"
        lines.append(f"| {length} | {way} | {figures} |")
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(peak(sys.argv[1], int(sys.argv[2])))
    else:
        main()
