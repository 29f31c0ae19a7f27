"""Run a model and leave no trace. Read in this order: snapshot, lookups, call, values, gradients, compare, progress."""
