"""What computes attention where. No GPU and no FlashAttention is here: devices and packages are stand-ins.

They show the choice and the arguments of a call, not that the package computes the right numbers.
"""

from types import SimpleNamespace

import pytest
import torch
from kernel_checks import normal_tensor

from megasbp.kernels import attention_backend
from megasbp.kernels.attention import attention, attention_at, prepare_segments
from megasbp.kernels.attention_backend import choose

FLASH = ("flash_attention_2", "flash_attention_3", "flash_attention_4")


@pytest.fixture(autouse=True)
def path():
    """These tests are not of a kernel: they run once, in place of the kernels' three times."""


def tensor(device: str = "cuda", dtype: torch.dtype = torch.bfloat16, head_dim: int = 128):
    """What `choose` looks at."""
    return SimpleNamespace(device=torch.device(device), dtype=dtype, shape=(1, 8, 2, head_dim))


@pytest.fixture
def gpu(monkeypatch):
    """A function that has this process see a GPU of a generation, and packages of FlashAttention."""

    def see(generation: int, *installed: str) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (generation, 0))
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(attention_backend, "_INSTALLED", frozenset(installed))
        half = (torch.bfloat16, torch.float16, torch.float32)
        monkeypatch.setattr(
            attention_backend, "route", lambda *x: "triton" if x[0].dtype in half else "torch"
        )

    return see


def chosen(q: SimpleNamespace, segmented: bool = True, placed: bool = False) -> str:
    return choose("auto", q, q, q, segmented, placed).backend


@pytest.mark.parametrize(
    ("generation", "installed", "expected"),
    [
        (8, (), "triton"),
        (8, FLASH, "flash_attention_2"),
        (9, (), "triton"),
        (9, ("flash_attention_2",), "triton"),
        (9, ("flash_attention_2", "flash_attention_4"), "flash_attention_4"),
        (9, FLASH, "flash_attention_3"),
        (10, ("flash_attention_3",), "triton"),
        (10, FLASH, "flash_attention_4"),
        (12, FLASH, "triton"),
    ],
)
def test_a_gpu_takes_the_fastest_that_its_generation_has(gpu, generation, installed, expected):
    gpu(generation, *installed)
    assert chosen(tensor()) == expected


def test_rows_that_are_whole_need_no_package(gpu):
    gpu(9)
    assert chosen(tensor(), segmented=False) == "sdpa"
    assert chosen(tensor(dtype=torch.float32), segmented=False) == "triton"


def test_places_types_and_sizes_that_a_package_lacks_are_ours(gpu):
    gpu(9, *FLASH)
    assert chosen(tensor(), placed=True) == "triton"
    assert chosen(tensor(dtype=torch.float32)) == "triton"
    assert chosen(tensor(head_dim=100)) == "triton"
    assert chosen(tensor(head_dim=256)) == "flash_attention_3"


def test_what_nothing_else_takes_is_the_references(gpu):
    gpu(9, *FLASH)
    assert chosen(tensor(dtype=torch.float64)) == "torch"
    assert chosen(tensor(head_dim=512)) == "torch"
    assert chosen(tensor(head_dim=512), segmented=False) == "torch"


def test_a_cpu_takes_cpp_where_it_can():
    assert chosen(torch.empty(1, 8, 2, 64)) == "cpp"
    assert chosen(torch.empty(1, 8, 2, 64), placed=True) == "torch"
    assert chosen(torch.empty(1, 8, 2, 64, dtype=torch.float64)) == "torch"
    assert chosen(torch.empty(1, 8, 2, 7)) == "torch"


@pytest.mark.parametrize(
    ("asked", "q", "reason"),
    [
        (
            "flash_attention_3",
            tensor(),
            r"is not installed \(pip install flash-attn-3\); allowed here: auto, triton",
        ),
        ("flash_attention_4", tensor(dtype=torch.float32), "takes bf16 and fp16, not torch.float32"),
        ("flash_attention_2", tensor(head_dim=100), "multiples of 8 to 256, not 100"),
        ("sdpa", tensor(), "has no segments"),
        ("triton", tensor(head_dim=256), "to 128, not 256"),
        ("cpp", tensor(), "on a CPU"),
    ],
)
def test_what_cannot_do_it_is_refused_with_the_reason(gpu, asked, q, reason):
    gpu(9, "flash_attention_2", "flash_attention_4")
    with pytest.raises(ValueError, match=reason):
        choose(asked, q, q, q, segmented=True)


def test_torchs_own_is_refused_where_its_heads_are_too_large(gpu):
    gpu(9)
    assert choose("sdpa", *[tensor(head_dim=256)] * 3, segmented=False).backend == "sdpa"
    with pytest.raises(ValueError, match="'sdpa', which takes head dimensions to 256, not 264"):
        choose("sdpa", *[tensor(head_dim=264)] * 3, segmented=False)


def test_another_generations_package_is_refused(gpu):
    gpu(10, *FLASH)
    with pytest.raises(ValueError, match="compute capability 9, not 10"):
        choose("flash_attention_3", tensor(), tensor(), tensor(), segmented=True)


def test_a_gpu_of_amd_is_not_taken_for_one_of_nvidia(gpu, monkeypatch):
    gpu(9, *FLASH)  # As gfx942 says of itself.
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert chosen(tensor()) == "triton"
    assert chosen(tensor(), segmented=False) == "sdpa"
    with pytest.raises(ValueError, match="runs on GPUs of NVIDIA"):
        choose("flash_attention_3", tensor(), tensor(), tensor(), segmented=True)


def test_a_gpus_backend_is_refused_on_a_cpu():
    q = torch.empty(1, 8, 2, 64)
    for asked in ("triton", "flex", "sdpa", *FLASH):
        with pytest.raises(ValueError, match=f"attention is '{asked}'.*allowed here: auto, cpp, torch"):
            attention(q, q, q, torch.zeros(1, 8, dtype=torch.int32), asked)


def test_what_is_asked_for_computes():
    q, k, v = (normal_tensor(n, 2, 9, 2, 16, dtype=torch.float32) for n in range(3))
    segments = torch.tensor([[0] * 4 + [1] * 5, [0] * 9])
    assert torch.equal(attention(q, k, v, segments), attention(q, k, v, segments, "cpp"))
    torch.testing.assert_close(attention(q, k, v, segments, "torch"), attention(q, k, v, segments, "cpp"))
    some = attention_at(q[:, 3:5], k, v, torch.arange(3, 5), segments, "torch")
    torch.testing.assert_close(some, attention(q, k, v, segments)[:, 3:5])


def test_flash_attention_is_called_with_the_bounds_of_segments(monkeypatch):
    calls = []

    def flash_attn_varlen_func(q, k, v, **named):
        calls.append(named)
        assert q.shape == (18, 4, 16) and k.shape == v.shape == (18, 2, 16)
        return q * 2, None

    monkeypatch.setattr(attention_backend, "_flash_function", lambda backend: flash_attn_varlen_func)
    q, k = normal_tensor(1, 2, 9, 4, 16), normal_tensor(2, 2, 9, 2, 16)
    bounds = prepare_segments(torch.tensor([[0] * 4 + [1] * 5, [0] * 9]))
    mixed = attention_backend.attend_in_flash("flash_attention_3", q, k, k, bounds.starts, bounds.longest)
    assert torch.equal(mixed, q * 2)
    (named,) = calls
    for name in ("cu_seqlens_q", "cu_seqlens_k"):
        assert named[name].dtype == torch.int32
        assert named[name].tolist() == [0, 4, 9, 18]
    assert named["max_seqlen_q"] == named["max_seqlen_k"] == 9
    assert named["causal"] and named["deterministic"]
