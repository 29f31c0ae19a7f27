"""What does a mask look like? Masks, scores and weights as cells, stacks as arrows, audits as marks.

Five rooms over one drawing, in reading order: `cells` draws a grid, `steps` masks and numbers,
`shapes` what broadcasts, `path` the way of the four tokens through one attention, `flow` what
passes through a stack, `reports` what an audit found.
"""

from attnmask.plot.cells import panels as panels
from attnmask.plot.flow import show_flow as show_flow
from attnmask.plot.path import show_path as show_path
from attnmask.plot.reports import show_audit as show_audit
from attnmask.plot.shapes import show_shapes as show_shapes
from attnmask.plot.steps import compare as compare
from attnmask.plot.steps import show_letters as show_letters
from attnmask.plot.steps import show_mask as show_mask
from attnmask.plot.steps import show_matrix as show_matrix
from attnmask.plot.steps import show_steps as show_steps
