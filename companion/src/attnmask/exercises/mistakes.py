"""Which mistakes does everybody make? Their names, each with a sentence that helps."""

INVERTED = "inverted polarity"
TRANSPOSED = "transposed"
OFF_BY_ONE = "diagonal off by one"
QUERIES = "queries masked instead of keys"
NO_PADDING = "padding forgotten"
NO_CAUSAL = "causal mask forgotten"
OR_FOR_AND = "or for and"
ADDED = "a bool mask added to the scores"
BOOL_FILLED = "a bool mask filled with numbers"
MISSING_AXIS = "missing dimension"
EXTRA_AXIS = "extra dimension"
MISPLACED_AXIS = "dimension in the wrong place"
DTYPE = "wrong dtype"
ADDITIVE = "additive mask where a bool mask was meant"
DEVICE = "wrong device"
NOT_A_TENSOR = "not a tensor"
OVERFLOW = "overflow in half precision"
NAN = "NaN on an empty row"
MUTATED = "input changed in place"
FROM_CHUNK = "counted from the chunk instead of the position"
DISTANCE = "distance where a block was meant"
BLOCK = "block where a distance was meant"
MATERIALISED = "materialises what should broadcast"
TOO_MUCH = "hides too much"
TOO_LITTLE = "hides too little"
WRONG_AXIS = "softmax along the wrong axis"
AFTER_SOFTMAX = "masked after the softmax"
ZERO_FILL = "filled with 0 before the softmax"
NO_SCALE = "scale forgotten"

ADVICE = {
    INVERTED: "True means 'may attend' here. Yours has every True and False the other way round.",
    TRANSPOSED: "Rows are queries and columns are keys. Yours has them the other way round.",
    OFF_BY_ONE: "Look at the diagonal, where a token meets itself: your boundary lies one place away from it.",
    QUERIES: "Padding is hidden as a key. A padded query may keep its row: its output is dropped later.",
    NO_PADDING: "Your answer does not look at which tokens are real.",
    NO_CAUSAL: "Your answer lets a query see keys that come after it.",
    OR_FOR_AND: "A key must pass both conditions: & instead of |.",
    ADDED: "True and False were added as 1 and 0. Blocked scores have to become -inf: masked_fill.",
    BOOL_FILLED: "A bool tensor holds no numbers: filled with one, it says True. Fill a tensor of floats instead.",
    MISSING_AXIS: "An axis of size 1 is missing; [:, None] adds one.",
    EXTRA_AXIS: "There is an axis of size 1 too many; [:, 0] takes one away.",
    MISPLACED_AXIS: "An axis of size 1 stands in the wrong place.",
    DTYPE: "Its dtype is not the one that was asked for.",
    ADDITIVE: "Yours is to be added to scores. Asked for was a bool mask, True where the query may attend.",
    DEVICE: "A tensor was made on the CPU while the inputs live elsewhere; name their device where you make it.",
    NOT_A_TENSOR: "A tensor was asked for; torch.tensor(...) makes one.",
    OVERFLOW: "-1e9 does not fit into float16, whose smallest number is -65504; ask torch.finfo(dtype).min.",
    NAN: "A row with no key to look at came out as NaN, since exp(-inf) / 0 is 0 / 0.",
    MUTATED: "Your answer changed its input; whoever called it still needs that. Clone it first, or leave out "
    "the underscore (masked_fill_).",
    FROM_CHUNK: "Your queries count from 0, but keys were cached before them: query i stands at place cached + i.",
    DISTANCE: "Your boundary moves along with the query. Blocks have fixed boundaries: compare their numbers.",
    BLOCK: "Your boundaries are fixed. A window moves along with the query: compare the distance.",
    MATERIALISED: "Your mask repeats the same values along an axis; leave it at size 1: broadcasting does the rest.",
    TOO_MUCH: "Every pair that yours allows is right, but it hides some that should be seen.",
    TOO_LITTLE: "Every pair that yours hides is right, but it allows some that should be hidden.",
    WRONG_AXIS: "Each query shares out its attention among its keys: the softmax runs along the last axis.",
    AFTER_SOFTMAX: "The blocked keys took part in the softmax, so the rows that are left do not sum to 1.",
    ZERO_FILL: "Blocked scores became 0, or nearly 0. That is not 'no attention': exp(0) = 1. Fill with -inf.",
    NO_SCALE: "The products of query and key are divided by the square root of their width.",
}
