"""What do libraries want that run elsewhere, as far as their documentation says?"""

from attnmask.conventions.table import Convention

# fmt: off
ROWS = (
    Convention("ONNX", "Attention (opset 25)", "attn_mask", "", "",
               "True = attend; floats are added", "bool", "(B, H, L, S), broadcasts", "zeros", "mask.dense",
               corner="behind the cache", window="left_window_size, right_window_size = l, r: l + 1 + r keys",
               note="opset 23: from the upper left",
               source="https://onnx.ai/onnx/operators/onnx__Attention.html"),
    Convention("MLX", "mx.fast.scaled_dot_product_attention", "mask", "", "",
               "True = attend; floats are added", "bool", "(B, H, L, S), broadcasts", "not stated", "mask.dense",
               corner="lower right", note='mask="causal" is the flag',
               source="https://ml-explore.github.io/mlx/build/html/python/_autosummary/"
                      "mlx.core.fast.scaled_dot_product_attention.html"),
    Convention("TransformerEngine", "DotProductAttention", "attention_mask", "", "",
               "True = blocked", "bool", "(B, 1, 1, S); arbitrary: (B, H, L, S), broadcasts", "not stated", "",
               corner="upper left", window="window_size=(l, r): l + 1 + r keys",
               note="read only for attn_mask_type padding or arbitrary; causal_bottom_right: from the lower right",
               source="https://docs.nvidia.com/deeplearning/transformer-engine/user-guide/api/pytorch.html"),
    Convention("FlashMask", "flashmask_attention", "startend_row_indices", "", "",
               "rows blocked, for each key", "int32", "(B, 1 or H, S, 1, 2 or 4)", "not stated", "",
               window="window_size=W, causal: W + 1 keys",
               source="https://www.paddlepaddle.org.cn/documentation/docs/en/api/paddle/nn/functional/"
                      "flashmask_attention_en.html"),
    Convention("MagiAttention", "flex_flash_attn_func", "q_ranges, k_ranges, attn_type_map", "", "",
               "ranges that attend", "int32", "(ranges, 2); (ranges,)", "not stated", "",
               corner="lower right", note="0 full, 1 causal, 2 inverse causal, 3 both, in each pair of ranges",
               source="https://sandai-org.github.io/MagiAttention/docs/main/user_guide/magi_api.html"),
    Convention("Modular MAX", "MHAMaskVariant", "SLIDING_WINDOW_CAUSAL_MASK, …", "", "",
               "a mask by its name", "enum", "–", "not stated", "",
               window="SlidingWindowCausalMask[W]: W keys",
               source="https://docs.modular.com/max/api/kernels/nn/attention/mha_mask/"),
)
# fmt: on
