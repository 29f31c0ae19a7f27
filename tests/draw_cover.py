"""Draw the picture of the landing page and of the README: `make notebooks` calls this."""

from pathlib import Path

import matplotlib
import torch

from attnmask import attend, causal, everything, four_tokens, padding, plot

COVER = Path(__file__).parents[1] / "book" / "_static" / "cover.png"


def draw() -> None:
    matplotlib.use("agg")
    four = four_tokens()
    keep = torch.tensor([[True, True, True, False]])
    masks = {"no mask": everything(), "padding": padding(keep), "causal": causal(), "both": causal() & padding(keep)}
    steps = {name: attend(four.query, four.key, four.value, mask) for name, mask in masks.items()}
    axes = plot.compare(steps, four.tokens)
    axes[0].figure.savefig(COVER, metadata={"Software": None})


if __name__ == "__main__":
    draw()
