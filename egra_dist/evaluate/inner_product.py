"""What the score of a pair is, and how far a matrix product may be from it."""

import torch
from torch import Tensor


def exact_dot(left: Tensor, right: Tensor) -> Tensor:
    """Inner products over the last dimension, the same to the last bit wherever computed.

    Products of float32 values are exact in float64, and halves are added elementwise, so that
    neither vector width nor fused multiply-adds nor a library's blocking can change the result.

    Args:
        left: ``float32 [..., dim]``.
        right: ``float32 [..., dim]``.

    Returns:
        ``float64 [...]``.
    """
    products = left.double() * right.double()
    while products.shape[-1] > 1:
        half = products.shape[-1] // 2
        folded = products[..., :half] + products[..., half : 2 * half]
        odd = products[..., 2 * half :]
        products = torch.cat([folded, odd], -1) if odd.shape[-1] else folded
    return products[..., 0]


def roundoff(vectors: Tensor) -> float:
    """Bound of ``|computed - exact| / (|u| |v|)`` of a matrix product of rows like ``vectors``.

    The standard bound of an inner product of n terms in any order of summation (Higham, Accuracy
    and Stability of Numerical Algorithms, section 3.1) with Cauchy-Schwarz, and room for the
    rounding of norms and thresholds. Reduced precision (TF32, bfloat16) rounds the inputs too.

    Args:
        vectors: ``float32 [n, dim]``.
    """
    reduced = torch.get_float32_matmul_precision() != "highest" or (
        vectors.is_cuda and torch.backends.cuda.matmul.allow_tf32
    )
    return 1.01 * ((2.0**-7 if reduced else 0.0) + (vectors.shape[1] + 6) * 2.0**-24)
