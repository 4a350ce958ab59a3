"""What this machine's processor is fast at."""

from functools import cache


@cache
def multiplies_bfloat16_fast() -> bool:
    """Whether the processor has bfloat16 products."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
