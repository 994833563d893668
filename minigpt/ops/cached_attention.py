"""cached_attention: attention of the newest positions of some texts, over the keys and values kept of all earlier ones.

A model that makes token after token asks at each step one query of each text, and the keys and values of what came
before are in a cache (cache.py), where each text has a slot. The texts differ in length, so

    q (B, T, H, D)                          queries of the newest T positions of B texts
    k, v (slots, capacity, H, D)            the caches of one layer
    slots (B,), lengths (B,) of int64       text b lies in slot slots[b]; lengths[b] positions are older than q's
    ->  y (B, T, H, D)                      query t of text b sees the keys 0 ... lengths[b] + t of its slot

are equations (1)-(3) of attention.py, with no more than what a text has. Keys and values of the newest positions are in
the cache already. There is no backward pass: nobody learns from a cache.
Cost: 4 D operations a head, query and key, but what takes the time is to read the keys and values.
"""
import numpy as np

from ..op import kernel
from .attention import attention_forward


def cached_attention(q, k, v, slots, lengths):
    T = q.shape[1]
    y = np.empty_like(q)
    for b, (slot, length) in enumerate(zip(slots.tolist(), lengths.tolist())):
        text = slice(slot, slot + 1), slice(0, length + T)
        y[b:b + 1] = attention_forward(q[b:b + 1], k[text], v[text])[0]     # (1) (2) (3)
    return y


def check(q, k, v, slots, lengths):
    if k.shape != v.shape or k.ndim != 4 or q.ndim != 4 or k.shape[2:] != q.shape[2:]:
        raise ValueError(f"cached_attention: queries {q.shape} do not fit caches of {k.shape} and {v.shape}")
    for name, x in ("slots", slots), ("lengths", lengths):
        if x.shape != q.shape[:1] or x.dtype != np.int64:
            raise ValueError(f"cached_attention: {len(q)} texts need {name} of int64, not {x.shape} of {x.dtype}")
    for slot, length in zip(slots.tolist(), lengths.tolist()):
        if not (0 <= slot < len(k) and 0 <= length <= k.shape[1] - q.shape[1]):
            raise ValueError(f"cached_attention: {q.shape[1]} positions after {length} in slot {slot} are not within "
                             f"caches of {k.shape}")


cached_attention = kernel(cached_attention, check)
