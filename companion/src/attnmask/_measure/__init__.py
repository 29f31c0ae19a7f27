"""How is a model run without a trace? Read: snapshot, lookups, call, values, gradients, compare, float64, progress."""
