"""What an audit costs, in forward passes, side by side in one run.

    .venv/bin/python companion/benchmarks/audit.py

Writes audit.md beside this file. Each audit is preceded and followed by forward passes, and the ratio is
taken of the medians. Peak memory is measured in a process of its own for each figure: how far the process
grows, or on an accelerator what PyTorch allocates.
"""

import contextlib
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import GPT2Config, GPT2LMHeadModel

from attnmask import Encoder, assert_allowed, audit, causal, default_device

RESULT = Path(__file__).with_suffix(".md")
LENGTH, VOCABULARY = 64, 256


class Small(nn.Module):
    """Two layers of `attnmask` on token ids: the mask is made anew in each layer, each step kept."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding, self.layers = nn.Embedding(VOCABULARY, width), Encoder(layers=2, d_model=width, heads=4)
        self.head, self.mask = nn.Linear(width, VOCABULARY), causal()

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layers(self.embedding(ids), self.mask))


def gpt2(width: int) -> nn.Module:
    """GPT-2 with two layers of a width; of width 0 the small one as published, with random weights."""
    sizes = {"n_embd": width, "n_layer": 2, "n_head": 4, "n_positions": 256, "vocab_size": VOCABULARY}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2) if width else GPT2Config())


MODELS: dict[str, Callable[[int], nn.Module]] = {"attnmask.Encoder": Small, "Hugging Face GPT-2": gpt2}


class Setting(NamedTuple):
    """A model and its input, whether one layer forgets its mask, and how often it is measured."""

    name: str
    width: int
    length: int
    forgets: bool = False
    repeats: int = 5

    def made(self) -> tuple[nn.Module, Tensor]:
        torch.manual_seed(0)
        model = MODELS[self.name](self.width)
        ids = torch.randint(VOCABULARY, (1, self.length))
        if self.forgets:
            forget(model)
        return model.to(default_device()).eval(), ids.to(default_device())

    @property
    def copies(self) -> int:
        """How many samples a forward pass has: as many as positions, and of the large model the one that is given."""
        return self.length if self.width else 1


def forget(model: nn.Module) -> None:
    """Take the mask away, from GPT-2 in one layer in the middle."""
    if isinstance(model, Small):
        model.mask = None
        return
    attention = model.transformer.h[len(model.transformer.h) // 2].attn
    inner, attention.is_causal = attention.forward, False

    def forgetful(*args: object, **kwargs: object) -> object:
        kept = [None if isinstance(each, Tensor) and each.dim() == 4 else each for each in args]
        return inner(*kept, **kwargs | {"attention_mask": None})

    attention.forward = forgetful


SMALL = [
    Setting(name, width, LENGTH, forgets) for forgets in (False, True) for name in MODELS for width in (64, 128, 256)
]
LARGE = [
    Setting("Hugging Face GPT-2", 0, length, forgets, 3) for length, forgets in ((8, False), (8, True), (32, False))
]


def forward(model: nn.Module, ids: Tensor, setting: Setting) -> None:
    """One forward pass without gradients."""
    with torch.no_grad():
        model(ids.expand(setting.copies, -1).contiguous())


def audited(model: nn.Module, ids: Tensor, setting: Setting) -> None:
    """One audit of a model that obeys; `assert_allowed` of one that does not."""
    if setting.forgets:
        with contextlib.suppress(AssertionError):
            assert_allowed(model, {"input_ids": ids} if setting.width == 0 else ids, causal())
            raise RuntimeError("the missing mask was not noticed")
    else:
        report = audit(model, {"input_ids": ids} if setting.width == 0 else ids, causal())
        assert report.ok, report


def seconds(
    run: Callable[[nn.Module, Tensor, Setting], None], model: nn.Module, ids: Tensor, setting: Setting
) -> float:
    start = time.perf_counter()
    run(model, ids, setting)
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - start


def measured(setting: Setting) -> tuple[float, float]:
    """Return the medians of an audit and of a forward pass, in seconds, measured in turns."""
    model, ids = setting.made()
    seconds(audited, model, ids, setting)
    once, whole = [seconds(forward, model, ids, setting) for _ in range(3)], []
    for _ in range(setting.repeats):
        whole.append(seconds(audited, model, ids, setting))
        once += [seconds(forward, model, ids, setting) for _ in range(3)]
    return statistics.median(whole), statistics.median(once)


def peak(way: str, number: int) -> int:
    """Return by how many MiB a process of its own grows while it runs one way."""
    done = subprocess.run([sys.executable, __file__, way, str(number)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def grows(way: str, setting: Setting) -> int:
    """Run one way once, after a forward pass, and return the growth in MiB."""
    run = {"forward": forward, "audit": audited}[way]
    model, ids = setting.made()
    model(ids[:, :8])
    if torch.accelerator.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(model, ids, setting)
        return (torch.cuda.max_memory_allocated() - before) // 2**20
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    run(model, ids, setting)
    return (_resident("VmHWM") - before) // 1024


def _resident(kind: str) -> int:
    return int(re.search(rf"{kind}:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))[1])


def line(number: int) -> str:
    """Measure one setting, and write its line of the table."""
    setting = [*SMALL, *LARGE][number]
    whole, once = measured(setting)
    memory = [peak(way, number) for way in ("forward", "audit")]
    what = "`assert_allowed`, a mask is missing" if setting.forgets else "`audit`, all is right"
    name = setting.name if setting.width else "GPT-2 small, 124 million parameters"
    size = setting.width or 768
    figures = f"{whole / once:.1f} | {whole:.2f} | {1000 * once:.1f} | {memory[1]} | {memory[0]}"
    return f"| {name} | {size} | {setting.length} | {what} | {figures} |"


HEAD = """| model | width | tokens | what | in forward passes | seconds | forward, milliseconds | MiB | forward, MiB |
|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    lines = [line(number) for number in tqdm(range(len(SMALL) + len(LARGE)), desc="settings")]
    small, large = lines[: len(SMALL)], lines[len(SMALL) :]
    weights = sum(each.nbytes for each in gpt2(0).parameters()) >> 20
    device = default_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    machine = f"{name}, PyTorch {torch.__version__.split('+')[0]}"
    text = f"""# The cost of an audit

{machine}, float32, one sample of token ids given.
A default audit adds a batch of two, other tokens, half and twice the length, in eval and training, with and
without gradients recorded. Medians of 5 audits (of the large model 3) and three times as many forward passes
without gradients, in turns; MiB is what a process grows by.

## Two layers, 4 heads, against a forward pass of {LENGTH} samples

{HEAD}
{chr(10).join(small)}

## GPT-2 small as published, against a forward pass of what was given

Its parameters take {weights} MiB. One of its twelve layers is the one without its mask.

{HEAD}
{chr(10).join(large)}
"""
    RESULT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(grows(sys.argv[1], [*SMALL, *LARGE][int(sys.argv[2])]))
    else:
        main()
