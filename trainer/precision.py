"""In what a network computes while it learns."""

from __future__ import annotations

import torch


def chosen(asked: str) -> str:
    """Fabric's name of a precision; "auto" is 16-mixed on CUDA, on a CPU bf16-mixed where it has that, else 32-true."""
    if asked != "auto":
        return asked
    if torch.cuda.is_available():
        return "16-mixed"
    return "bf16-mixed" if cpu_has_bf16() else "32-true"


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 itself; elsewhere it is emulated.

    A training step of the shipped classifier on one core (Zen 5), batch of 64, float32 / bf16: .29 / .14 s; with oneDNN held to AVX-512
    without bf16 .31 / 4.4 s, to AVX2 .46 / 4.8 s. torch.ops.mkldnn._is_mkldnn_bf16_supported() says yes to the second of these too.
    """
    flags = getattr(torch.cpu, "get_capabilities", dict)()  # torch before 2.10 does not tell: float32 is right everywhere
    return any(flags.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last is ARM's
