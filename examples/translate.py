"""A Transformer learns to translate number words, and is asked for numbers it has never seen.

    pip install '.[family]'                                     # num2words, and cn2an for Chinese numerals
    python examples/translate.py                                to French and German: about three minutes on two idle cores
    python examples/translate.py --languages fr,de,zh           and to Chinese numerals
    python examples/translate.py --preset quick                 seconds, to see all of it work; it learns nothing yet
    python examples/translate.py --data pairs.tsv               your own pairs: a line each, the two texts with a tab between
    python examples/translate.py --say "seven thousand and six" translate this as well, at the end

"three thousand and four" -> "trois mille quatre", "dreitausendvier". Of the numbers below --numbers, 20% are held out in
blocks of 100: nothing between 3400 and 3499, say, is ever learnt from. But every word of theirs is: who has understood
how numbers are made gets them right. A translation counts if it is right letter by letter. The model
(minigpt/models/transformer.py) is told by a first token which language to write; its tokens are frequent pieces of the
words (byte-level BPE), learnt from the pairs that are learnt from.
"""
import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minigpt import checkpoint
from minigpt.data import lines_of
from minigpt.kernels import cpu
from minigpt.models.transformer import Transformer, TransformerConfig, beam_search
from minigpt.parallel import Workers
from minigpt.report import prepare_folder, write_results
from minigpt.settings import UserError, program
from minigpt.tokenizers import BpeTokenizer
from minigpt.train import TrainSettings, fit

PAD, BEGIN, END = "<|pad|>", "<|begin|>", "<|end|>"
LANGUAGES = {"fr": "French", "de": "German", "zh": "Chinese"}
BLOCK = 100                         # numbers that are held out together
HELD_OUT = 0.2                      # share of the pairs
LONGEST = 512                       # tokens in a text of the user's
SHOWN = 6                           # translations that are shown


@dataclass(frozen=True)
class Settings(TrainSettings):
    languages: str = "fr,de"        # to translate to: some of fr, de, zh, with commas between
    numbers: int = 10_000           # the numbers 0 ... numbers - 1 are learnt from or asked for
    data: str | None = None         # pairs of your own, a line each with a tab between (none: numbers)
    say: str | None = None          # a text to translate at the end
    out: str | None = None          # folder for results.json and the model
    steps: int = 800                # updates of the parameters
    batch_size: int = 64            # pairs in an update
    learning_rate: float = 2e-3     # highest learning rate
    warm_up: int = 100              # steps in which the learning rate rises
    hold: float = 0.4               # share of the steps after which the learning rate begins to fall
    beta2: float = 0.98             # AdamW: how long the mean of squared gradients remembers
    weight_decay: float = 0.01      # AdamW's decay of matrices and embeddings
    vocabulary_size: int = 340      # tokens, at least 256 and the special ones
    layers: int = 2                 # blocks of the encoder, and as many of the decoder
    heads: int = 4                  # attention heads
    width: int = 128                # numbers in the stream
    dropout: float = 0.0            # share of numbers dropped while training
    beams: int = 4                  # beginnings that beam search keeps
    alpha: float = 0.0              # how much beam search favours long texts: 0 compares by probability alone

    presets: ClassVar[dict[str, dict]] = {
        "quick": {"numbers": 400, "steps": 8, "batch_size": 8, "layers": 1, "width": 16, "heads": 2}}

    def __post_init__(self):
        super().__post_init__()
        for language in self.tongues():
            if language not in LANGUAGES:
                raise UserError(f"there is no language {language!r} here: --languages takes some of {','.join(LANGUAGES)}")
        if not 3 * BLOCK <= self.numbers <= 1_000_000:
            raise UserError(f"numbers is {self.numbers}, but has to be at least {3 * BLOCK}, so that a block can be held "
                            "out, and at most 1000000")
        if not 1 <= self.beams <= 100:
            raise UserError(f"beams is {self.beams}, but has to be at least 1 and at most 100")
        if not 0 <= self.alpha <= 10:
            raise UserError(f"alpha is {self.alpha}, but has to be at least 0 and at most 10")

    def tongues(self):
        return list(dict.fromkeys(name.strip() for name in self.languages.split(",")))


# ---- the pairs: (language, source, target) ----

def number_pairs(settings):
    """(learnt from, held out): pairs of number words, the held out ones in blocks."""
    names = ["num2words", *(["cn2an"] if "zh" in settings.tongues() else [])]
    try:
        modules = {name: __import__(name) for name in names}
    except ImportError as error:
        raise UserError(f"number words come from the package {error.name}, which is not installed: pip install "
                        "'minigpt[family]', or give pairs of your own with --data") from None
    words = modules["num2words"].num2words
    blocks = range(1, settings.numbers // BLOCK)                            # not the first one: it has words of its own
    number = max(1, round(HELD_OUT * settings.numbers / BLOCK))
    chosen = set(np.random.default_rng(settings.seed).choice(blocks, min(number, len(blocks)), replace=False).tolist())
    learnt, held_out = [], []
    for n in range(settings.numbers):
        source, part = words(n), held_out if n // BLOCK in chosen else learnt
        for language in settings.tongues():
            target = modules["cn2an"].an2cn(n) if language == "zh" else words(n, lang=language)
            part.append((language, source, target))
    unseen = set().union(*map(words_of, held_out)) - set().union(*map(words_of, learnt))
    if unseen:
        raise UserError(f"the numbers held out have words that no other has, {sorted(unseen)[0]!r} for one: choose another "
                        "--seed, or more --numbers")
    return learnt, held_out


def words_of(pair):
    """The words of a pair: of the source, and of a target that has any (German and Chinese write numbers as one)."""
    language, source, target = pair
    return set(re.findall(r"\w+", source)) | (set(re.findall(r"\w+", target)) if language == "fr" else set())


def pairs_of_file(path, seed):
    """(learnt from, held out): the pairs in a file, 20% of them drawn by chance."""
    lines = lines_of(path, "a pair of texts")
    pairs = []
    for number, line in enumerate(lines, 1):
        parts = [part.strip() for part in line.split("\t")]
        if not line.strip():
            continue
        if len(parts) != 2 or not all(parts):
            raise UserError(f"line {number} of {path} should be two texts with a tab between, and has {len(parts)} "
                            f"part{'s' * (len(parts) != 1)}, some perhaps empty: correct it")
        pairs.append(("", *parts))
    if len(pairs) < 10:
        raise UserError(f"{path} has {len(pairs)} pairs, too few to learn from: give 10 at least")
    order = np.random.default_rng(seed).permutation(len(pairs))
    held_out = set(order[:max(1, int(HELD_OUT * len(pairs)))].tolist())
    return ([pair for i, pair in enumerate(pairs) if i not in held_out],
            [pair for i, pair in enumerate(pairs) if i in held_out])


# ---- from pairs to batches ----

def tag(language):
    """The special token that asks for a language."""
    return f"<|{language}|>"


def new_tokenizer(settings, pairs):
    """Learnt from the pairs that are learnt from."""
    special = [PAD, BEGIN, END, *sorted({tag(language) for language, _, _ in pairs if language})]
    text = "\n".join(f"{source}\n{target}" for _, source, target in pairs)
    return BpeTokenizer.train(text, settings.vocabulary_size, special)


def encode_source(tokenizer, language, source):
    first = [tokenizer.special[tag(language)]] if language else []
    return np.array([*first, *tokenizer.encode(source), tokenizer.special[END]], np.int64)


def encode_target(tokenizer, target):
    return np.array([tokenizer.special[BEGIN], *tokenizer.encode(target), tokenizer.special[END]], np.int64)


def padded(texts, fill):
    """Arrays of tokens, of different lengths -> (B, T), filled up with `fill`, and (B, T) bools, False where filled up."""
    lengths = np.array([len(ids) for ids in texts])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, fill, np.int64)
    ids[mask] = np.concatenate(texts)
    return ids, mask


def batches(settings, tokenizer, pairs):
    """loss_at(step), as minigpt.train.fit asks for it: the loss of pairs that are drawn from (seed, step)."""
    sources = [encode_source(tokenizer, language, source) for language, source, _ in pairs]
    targets = [encode_target(tokenizer, target) for _, _, target in pairs]
    pad = tokenizer.special[PAD]

    def loss_at(step):
        drawn = np.random.default_rng([settings.seed, step]).integers(len(pairs), size=settings.batch_size)
        drawn = sorted(drawn, key=lambda i: len(targets[i]))                # those of a micro-batch are of like lengths
        total = sum(len(targets[i]) - 1 for i in drawn)

        def loss(model, part):
            source, mask = padded([sources[i] for i in drawn[part]], pad)
            target, _ = padded([targets[i][:-1] for i in drawn[part]], pad)
            following, _ = padded([targets[i][1:] for i in drawn[part]], -1)
            return model.loss(source, mask, target, following, total=total)

        return loss

    return loss_at


def translate(model, tokenizer, asked, beams, workers, alpha=0.0, size=100):
    """What the model makes of each (language, source), a list of texts."""
    sources = [encode_source(tokenizer, language, source) for language, source in asked]
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    special, found = tokenizer.special, [None] * len(sources)

    def some(model, indices):
        source, mask = padded([sources[i] for i in indices], special[PAD])
        return beam_search(model, source, mask, special[BEGIN], special[END], model.config.context - 1, beams, alpha)

    parts = [order[i:i + size] for i in range(0, len(order), size)]
    for indices, texts in zip(parts, workers.each(some, parts)):
        for i, ids in zip(indices, texts):
            found[i] = tokenizer.decode(ids)
    return found


# ---- train, and ask ----

def main(settings):
    learnt, held_out = pairs_of_file(settings.data, settings.seed) if settings.data else number_pairs(settings)
    out = prepare_folder(settings.out) if settings.out else None
    tokenizer = new_tokenizer(settings, learnt)
    longest = max(len(encode(text)) for pair in learnt + held_out for encode, text in (
        (tokenizer.encode, pair[1]), (tokenizer.encode, pair[2]))) + 2
    if longest > LONGEST:
        raise UserError(f"the longest text has {longest} tokens, and {LONGEST} are the most here: give shorter ones")
    if settings.say is not None and not 0 < len(tokenizer.encode(settings.say)) <= longest + 2:
        raise UserError(f"the text {settings.say!r} is empty, or longer than all that is learnt from: give another --say")
    model = Transformer(TransformerConfig(tokenizer.vocabulary_size, longest + 4, settings.layers, settings.heads,
                                          settings.width, 4 * settings.width, settings.dropout), settings.seed)
    print(f"pairs     {len(learnt):,} to learn from, {len(held_out):,} held out\n"
          f"tokens    {tokenizer.vocabulary_size} different ones; the longest text has {longest - 2}\n"
          f"model     transformer, {settings.layers} + {settings.layers} layers, width {settings.width}: "
          f"{len(model.flat):,} parameters\nkernels   {cpu.status()}\n"
          f"training  {settings.steps} steps of {settings.batch_size} pairs", flush=True)
    fit(model, settings, batches(settings, tokenizer, learnt))
    if out:
        checkpoint.save(out / "model", model, tokenizer)
    results = {"steps": settings.steps, "seed": settings.seed, "parameters": len(model.flat), "learnt": len(learnt),
               "held_out": len(held_out), "beams": settings.beams, "kernels": cpu.status()}
    with Workers(model, settings.workers) as workers:
        results |= ask(model, tokenizer, held_out, settings, workers)
        if settings.say is not None:
            for language in sorted({language for language, _, _ in learnt}):
                said = translate(model, tokenizer, [(language, settings.say)], settings.beams, workers, settings.alpha)[0]
                print(f"\n{settings.say}  ->  {said}")
    if out:
        write_results(out, results)
        print(f"\nsaved in {out}: results.json and the model")


def ask(model, tokenizer, held_out, settings, workers):
    """Translate what was held out, one token at a time and with beam search; print and return the shares that are right."""
    results = {"exact": {}, "exact_greedy": {}}
    written = {beams: translate(model, tokenizer, [pair[:2] for pair in held_out], beams, workers, settings.alpha)
               for beams in dict.fromkeys((1, settings.beams))}
    for language in dict.fromkeys(pair[0] for pair in held_out):
        mine = [i for i, pair in enumerate(held_out) if pair[0] == language]
        right = {beams: np.array([texts[i] == held_out[i][2] for i in mine]) for beams, texts in written.items()}
        name = LANGUAGES.get(language, "pairs")
        results["exact_greedy"][name], results["exact"][name] = (float(right[b].mean()) for b in (1, settings.beams))
        print(f"\n{name}: {right[settings.beams].mean():.2%} of {len(mine):,} held out are right letter by letter with "
              f"{settings.beams} beams, {right[1].mean():.2%} greedily")
        rng = np.random.default_rng(settings.seed)
        wrong = [i for i, ok in zip(mine, right[settings.beams]) if not ok]
        for i in [*rng.choice(mine, min(SHOWN, len(mine)), replace=False).tolist(), *wrong[:SHOWN]]:
            said, true = written[settings.beams][i], held_out[i][2]
            print(f"  {held_out[i][1]}  ->  {said}" + ("" if said == true else f"   (wrong: {true})"))
    return results


if __name__ == "__main__":
    program(main, Settings)
