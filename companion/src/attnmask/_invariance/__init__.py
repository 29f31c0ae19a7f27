"""How does each sample become the same alone as in its padded batch? The rooms behind `assert_padding_invariant`."""
