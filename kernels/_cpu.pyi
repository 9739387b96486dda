# Addresses of contiguous CPU tensors, of the shapes and types that csrc/kernels states. Nothing is checked.
head_dims: tuple[int, ...]

def rms_norm_forward(
    bfloat16: bool, rows: int, width: int, epsilon: float, x: int, weight: int, y: int, scale: int
) -> None: ...
def rms_norm_backward(
    bfloat16: bool,
    rows: int,
    width: int,
    gradient: int,
    x: int,
    weight: int,
    scale: int,
    x_gradient: int,
    weight_gradient: int,
) -> None: ...
def swiglu_forward(bfloat16: bool, size: int, gate: int, up: int, product: int) -> None: ...
def swiglu_backward(
    bfloat16: bool, size: int, gradient: int, gate: int, up: int, gate_gradient: int, up_gradient: int
) -> None: ...
def rope_rotate(
    bfloat16: bool, tokens: int, heads: int, head_dim: int, direction: float, x: int, table: int, turned: int
) -> None: ...
def cross_entropy(
    bfloat16: bool,
    tokens: int,
    vocabulary: int,
    logits: int,
    labels: int,
    nats: int,
    scale: int,
    gradient: int,
) -> None: ...
def attention_forward(
    heads: int,
    kv_heads: int,
    head_dim: int,
    segments: int,
    starts: int,
    q: int,
    k: int,
    v: int,
    mixed: int,
    log_sums: int,
) -> None: ...
def attention_backward(
    heads: int,
    kv_heads: int,
    head_dim: int,
    segments: int,
    starts: int,
    q: int,
    k: int,
    v: int,
    mixed: int,
    log_sums: int,
    gradient: int,
    q_gradient: int,
    k_gradient: int,
    v_gradient: int,
) -> None: ...
def decode_attention(
    bfloat16: bool,
    rows: int,
    tokens: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    capacity: int,
    queries: int,
    positions: int,
    keys: int,
    values: int,
    mixed: int,
) -> None: ...
def sample(
    rows: int,
    vocabulary: int,
    temperature: float,
    top_p: float,
    key: int,
    logits: int,
    address: int,
    tokens: int,
) -> None: ...
