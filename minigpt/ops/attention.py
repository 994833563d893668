"""attention: every query takes a weighted mean of the values (Vaswani et al. 2017).

q (B, T, H, D); k, v (B, S, H, D)  ->  y (B, T, H, D): for each sequence and head on its own, Q (T, D), K, V (S, D):

    (1)  X = Q K^T / sqrt(D)                     (T, S): how well query t and key s match
    (2)  P = exp(X - l),  l = log-sum-exp(X)     (T, S), (T, 1): softmax of each row
    (3)  Y = (P M) V                             (T, D): M = 1, or dropout's mask over 1 - dropout

X is -inf where a query may not look: causal=True, query t sees keys 0 ... t + S - T (so the last query sees all, and
with a key/value cache T new queries see what came before them); mask (B, S), a bool array, False for keys that are
padding. A query that sees no key gives y = 0.

Backward, from matmul's and softmax's (the mask M multiplies P elementwise):

    (4)  dV = (P M)^T dY                         (S, D)
    (5)  dP = (dY V^T) M                         (T, S)
    (6)  dX = P (dP - c),  c = rowsum(P dP) = rowsum(dY Y)            softmax's backward; c from (3) and (5)
    (7)  dQ = dX K / sqrt(D)                     (T, D)
    (8)  dK = dX^T Q / sqrt(D)                   (S, D)

P of (T, S) numbers is never kept: (2) gives it back from q, k and one number a row, l (Dao et al. 2022). The identity
in (6) is sum_s P M (dY . V_s) = dY . sum_s P M V_s = dY . Y, and holds with dropout too.
Saved: q, k, v, y, l. Cost: 4 T S D operations a head forward, 10 T S D backward; half of it where causal.
"""
import numpy as np

from ..op import op
from .philox import check_share, keep_mask


def heads_first(x):
    return x.transpose(0, 2, 1, 3)                                          # (B, T, H, D) <-> (B, H, T, D)


def scores(q, k, mask, causal):
    """(1), and -inf where a query may not look; q, k with heads first."""
    T, S = q.shape[2], k.shape[2]
    x = q @ k.swapaxes(-1, -2) * q.shape[3] ** -0.5                         # (1)  (B, H, T, S)
    seen = np.ones_like(x, dtype=bool)
    if causal:
        seen &= np.tri(T, S, S - T, dtype=bool, like=x)
    if mask is not None:
        seen &= mask[:, None, None, :]
    return np.where(seen, x, -np.inf)


def weights(x, seeds, dropout):
    """M of (3), or None without dropout."""
    if dropout == 0 or seeds is None:
        return None
    return keep_mask(seeds, shape=x.shape[1:], p=dropout).astype(x.dtype) * (1 / (1 - dropout))


def attention_forward(q, k, v, mask=None, seeds=None, *, causal=True, dropout=0.0):
    x = scores(heads_first(q), heads_first(k), mask, causal)                # (1)  (B, H, T, S)
    m = np.maximum(x.max(-1, keepdims=True) if x.size else x.sum(-1, keepdims=True), -1e30)     # finite for a row
    total = np.exp(x - m).sum(-1, keepdims=True)                            # that sees no key; its sum is 0
    l = m + np.log(np.where(total > 0, total, 1))                           # (2)  (B, H, T, 1)
    p = np.exp(x - l)                                                       # (2)  (B, H, T, S)
    M = weights(x, seeds, dropout)
    y = heads_first((p if M is None else p * M) @ heads_first(v))           # (3)  (B, T, H, D)
    y = y.copy(order="C")
    return y, (q, k, v, mask, seeds, y, l, causal, dropout)


def attention_backward(dy, saved):
    q, k, v, mask, seeds, y, l, causal, dropout = saved
    c = heads_first((dy * y).sum(-1, keepdims=True))                        # (6)  (B, H, T, 1)
    q, k, v, dy = map(heads_first, (q, k, v, dy))
    p = np.exp(scores(q, k, mask, causal) - l)                              # (2)  (B, H, T, S)
    M = weights(p, seeds, dropout)
    dv = (p if M is None else p * M).swapaxes(-1, -2) @ dy                  # (4)  (B, H, S, D)
    dp = dy @ v.swapaxes(-1, -2)                                            # (5)  (B, H, T, S)
    dx = p * ((dp if M is None else dp * M) - c) * q.shape[3] ** -0.5       # (6)  and the factor of (7) (8)
    dq = dx @ k                                                             # (7)  (B, H, T, D)
    dk = dx.swapaxes(-1, -2) @ q                                            # (8)  (B, H, S, D)
    return heads_first(dq), heads_first(dk), heads_first(dv), None, None


def check(q, k, v, mask=None, seeds=None, *, causal=True, dropout=0.0):
    B, S = q.shape[0], k.shape[1]
    if q.ndim != 4 or (S == 0 and q.size) or k.shape != (B, S, *q.shape[2:]) or v.shape != k.shape:
        raise ValueError(f"attention: queries {q.shape} need keys and values of one shape (B, S, H, D) with the same "
                         f"B, H and D and at least one key, not {k.shape} and {v.shape}")
    check_options(B, S, mask, seeds, dropout)


def check_options(B, S, mask, seeds, dropout):
    """Raise an error where mask, seeds or dropout do not fit B sequences of S keys."""
    if mask is not None and (mask.shape != (B, S) or mask.dtype != bool):
        raise ValueError(f"attention: {B} sequences of {S} keys need a mask of {(B, S)} bools, not {mask.shape} of "
                         f"{mask.dtype}")
    if seeds is not None and (seeds.shape != (B,) or seeds.dtype != np.uint64):
        raise ValueError(f"attention: {B} sequences need as many seeds of uint64, not {seeds.shape} of {seeds.dtype}")
    check_share(dropout)


def examples(rng):
    def qkv(B, T, S, H, D):
        return rng.normal(size=(B, T, H, D)), rng.normal(size=(B, S, H, D)), rng.normal(size=(B, S, H, D))

    seeds = rng.integers(2 ** 64, size=2, dtype=np.uint64)
    padding = np.array([[True, False, True, True, False], [True, True, True, True, True]])
    yield qkv(2, 5, 5, 3, 4), {}
    yield qkv(2, 3, 7, 1, 9), {}
    yield qkv(1, 7, 5, 2, 16), {}
    yield qkv(2, 3, 5, 2, 4), {"causal": False}
    yield (*qkv(2, 4, 5, 3, 6), padding), {"causal": True}
    yield (*qkv(2, 4, 6, 3, 5), None, seeds), {"causal": True, "dropout": 0.4}
    yield (*qkv(2, 4, 5, 3, 8), padding, seeds), {"causal": False, "dropout": 0.2}
    yield qkv(1, 50, 50, 2, 16), {}


attention = op(attention_forward, attention_backward, examples, check)
