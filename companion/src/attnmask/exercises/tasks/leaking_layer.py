"""Which layer leaks? Ask the model."""

from torch import nn

import attnmask
from attnmask.exercises.task import Mistake, Task
from attnmask.layers import SelfAttention
from attnmask.masks import causal, everything


def leaking_layer(model, x):
    """Find the first layer of a model that lets a token see the future.

    Ask the model, do not read it; attnmask has what you need.

    - model: a module, from (batch, token, d) to the same shape; its layers are
      model.layers[0], model.layers[1], and so on
    - x: float32 (batch, token, d)

    Return the layer's number, counted from 0, or None if the model is causal.
    """
    report = attnmask.audit(model, x)  # allowed=causal() by default
    return None if report.ok else int(report.leaks[0].module.split(".")[1])


class Stack(nn.Module):
    """Layers of self-attention, each with a mask of its own."""

    def __init__(self, *masks):
        super().__init__()
        self.masks = masks
        self.layers = nn.ModuleList(SelfAttention(d_model=4) for _ in masks)

    def forward(self, x):
        """Add to each token what the layers see."""
        for layer, mask in zip(self.layers, self.masks, strict=True):
            x = x + layer(x, mask)
        return x


def leaks(model):
    return [number for number, mask in enumerate(model.masks) if mask.allows(0, 1)]


def spec(model, x):
    return leaks(model)[0] if leaks(model) else None


def cases(draw):
    all_masks = [(causal(), everything(), causal()), (causal(), causal(offset=1), everything()), (causal(), causal())]
    for masks in all_masks:
        x = draw.normal(1, 4, 4)
        model = Stack(*masks)
        for parameter in model.parameters():
            parameter.data = draw.normal(*parameter.shape)
        yield {"model": model, "x": x}


TASK = Task(
    leaking_layer,
    spec,
    cases,
    chapter="07",
    place=7,
    hints=(
        "attnmask.audit(model, x) tries to find a leak. Print what it returns.",
        "Each of report.leaks knows its module, such as layers.1.W_O: the first one whose output shows the leak.",
    ),
    mistakes=(
        Mistake(
            "the last layer that leaks",
            lambda model, x: leaks(model)[-1] if leaks(model) else None,
            "The leak begins in an earlier layer; report.leaks is sorted, its first entry is the one to read.",
        ),
        Mistake(
            "layers counted from 1",
            lambda model, x: leaks(model)[0] + 1 if leaks(model) else None,
            "Layers count from 0, as in the names of the modules.",
        ),
        Mistake(
            "a leak found in a clean model",
            lambda model, x: (leaks(model) or [0])[0],
            "One of the models is causal: report.ok is True, and the answer None.",
        ),
        Mistake("how many layers leak", lambda model, x: len(leaks(model)), "Asked for was which one, not how many."),
        Mistake(
            "always the last layer", lambda model, x: len(model.layers) - 1, "Your answer is the last layer's number."
        ),
        Mistake("always layer 0", lambda model, x: 0, "Your answer is layer 0 whatever the model does."),
        Mistake(
            "all layers that leak", lambda model, x: leaks(model) or None, "Asked for was the first one, as a number."
        ),
        Mistake(
            "the layer's name",
            lambda model, x: f"layers.{leaks(model)[0]}" if leaks(model) else None,
            "Asked for was the layer's number, as an int.",
        ),
        Mistake(
            "the module's name",
            lambda model, x: f"layers.{leaks(model)[0]}.W_O" if leaks(model) else None,
            "Asked for was the layer's number, as an int: the second part of the name.",
        ),
        Mistake(
            "whether it leaks",
            lambda model, x: bool(leaks(model)),
            "Asked for was which layer leaks, not whether one does.",
        ),
        Mistake(
            "whether it is clean",
            lambda model, x: not leaks(model),
            "Asked for was which layer leaks, not whether one does.",
        ),
    ),
)
