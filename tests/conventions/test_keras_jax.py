"""What is written for Keras, JAX and Flax, by hand."""

import torch

from attnmask import causal, conventions, everything, padding, per_head

KEEP = torch.tensor([[True, True, True, False, False], [True, True, True, True, False]])


def test_keras_gets_three_axes_and_four_only_where_heads_differ():
    assert conventions.to_keras(padding(KEEP), 5).shape == (2, 5, 5)
    assert conventions.to_keras(per_head([causal(), everything()]), 5).shape == (1, 2, 5, 5)


def test_every_entry_has_a_place_of_its_own():
    for write in (conventions.to_keras, conventions.to_flax):
        written = write(padding(KEEP), 5, batch=2)
        before = written.clone()
        written[0, ..., 0, 0] = False
        assert (written != before).sum() == 1
