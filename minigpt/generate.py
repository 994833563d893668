"""Generation: the model says how likely each token is to come next, one is drawn, and so on.

The sampling rules, in the order in which they apply to the logits of the last position:

    temperature     logits / temperature: below 1 the likely gets likelier; 0 takes the likeliest, always
    top_k           only the k likeliest tokens; None or 0 is off
    top_p           only the likeliest tokens that together reach probability p ("nucleus", Holtzman et al. 2020)

The prompt goes through the model at once ("prefill"); then token by token, as the keys and values of what came before
are kept (nn.KeyValueCache). A GPT with learned positions can't read past its context: when that is full, the later half
of the text goes in anew, as if it were the beginning.
"""
import numpy as np

from .device import on_host
from .settings import UserError
from .tensor import no_grad


def check_rules(temperature, top_k, top_p):
    """Raise UserError for sampling rules that make no sense."""
    if not 0 <= temperature < float("inf"):
        raise UserError(f"temperature is {temperature}, but has to be 0 (the likeliest token) or a positive number")
    if top_k is not None and top_k < 0:
        raise UserError(f"top_k is {top_k}, but has to be a number of tokens (0 turns it off)")
    if top_p is not None and not 0 < top_p <= 1:
        raise UserError(f"top_p is {top_p}, but has to be above 0 and at most 1 (1 turns it off)")


def probabilities(logits, temperature=1.0, top_k=None, top_p=None):
    """The distribution (V,) of float64 from which the next token is drawn, by the rules above, from logits (V,)."""
    check_rules(temperature, top_k, top_p)
    logits = np.asarray(logits, np.float64)
    if temperature == 0:
        return np.eye(1, len(logits), int(logits.argmax()))[0]
    with np.errstate(over="ignore"):                        # close to 0 all but the likeliest become -inf, as they should
        x = (logits - logits.max()) / temperature
    order = np.argsort(-x, kind="stable")                   # the likeliest first; of equals, the one of lower number
    if top_k:
        x[order[top_k:]] = -np.inf
    p = np.exp(x) / np.exp(x).sum()
    if top_p is not None and top_p < 1:
        reached_before = np.cumsum(p[order]) - p[order]     # what the likelier ones reach without this one
        p[order[reached_before >= top_p]] = 0
        p /= p.sum()
    return p


def generate(model, ids, rng, temperature=1.0, top_k=None, top_p=None):
    """Yield token after token, without end, after the prompt `ids`, a sequence of at least one integer.

    rng: a numpy Generator; the same state of it gives the same tokens.
    """
    check_rules(temperature, top_k, top_p)
    context, ids = model.config.context, list(map(int, ids))
    if not ids:
        raise UserError("the prompt is empty: give at least one character to begin with")
    unread, caches = ids[-context:], model.new_caches()
    while True:
        if caches[0].length + len(unread) > context:
            unread, caches = ids[-(context // 2 or 1):], model.new_caches()
        with no_grad():
            ids_there = np.asarray([unread], like=model.flat.data)                      # (1, T)
            logits = on_host(model(ids_there, caches).data[0, -1])                      # (V,)
        p = probabilities(logits, temperature, top_k, top_p)
        token = int(rng.choice(len(p), p=p)) if temperature else int(p.argmax())
        ids.append(token)
        unread = [token]
        yield token


def generate_text(model, tokenizer, prompt, length, seed=0, stop=None, temperature=1.0, top_k=None, top_p=None):
    """Yield pieces of text after the prompt: up to `length` tokens, or up to the text `stop`, which is left out.

    What could still become `stop` is held back until it is clear.
    """
    tokens = generate(model, tokenizer.encode(prompt), np.random.default_rng(seed), temperature, top_k, top_p)
    held = ""
    for _ in range(length):
        held += tokenizer.decode([next(tokens)])
        if stop and stop in held:
            yield held[:held.index(stop)]
            return
        keep = max((n for n in range(1, len(stop)) if held.endswith(stop[:n])), default=0) if stop else 0
        piece, held = held[:len(held) - keep], held[len(held) - keep:]
        if piece:
            yield piece
    if held:
        yield held
