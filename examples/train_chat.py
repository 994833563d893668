"""Train a chat model from scratch, in the steps that made ChatGPT out of GPT, and see what each step changes.

    python examples/train_chat.py                           the whole line: less than half an hour on two cores
    python examples/train_chat.py --preset quick            three minutes, to see every stage at work; it learns little
    python examples/train_chat.py --stage sft               one stage; what it builds on has to be there already
    python examples/train_chat.py --data my.txt             prose of your own in place of Shakespeare
    python examples/train_chat.py --demonstrations my.jsonl --preferences my_preferences.jsonl
    python examples/train_chat.py --stage report --questions my.jsonl       all stages, asked what you want to know

    pretrain    a GPT learns to continue a text: Shakespeare, and plain statements about a small world (align/world.py)
    sft         it learns to answer, from demonstrations (align/sft.py)
    reward      another copy learns to tell better replies from worse ones, from comparisons (align/reward.py)
    ppo         the model learns what the reward model prefers (align/ppo.py)
    dpo         or learns straight from the comparisons (align/dpo.py)
    grpo        or without a value model, from groups of replies (align/grpo.py)
    report      all stages side by side: report.txt, report.json, report.png

A run that was stopped goes on where it was when it is started again: stages that are done are not done twice. The facts
of the small world come with two packages: pip install '.[chat,examples]'. Then talk to it:

    python examples/chat.py --checkpoint runs/chat
"""
import json
import re
import time
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

from minigpt import checkpoint, device
from minigpt.align import evaluate as card_of
from minigpt.align import feedback
from minigpt.align.chat import SPECIAL, Template, fitted, read_conversations, read_preferences
from minigpt.align.comparisons import ComparisonSettings, counted_as_mistaken, from_preferences
from minigpt.align.dpo import DPOSettings
from minigpt.align.goals import verdicts
from minigpt.align.grpo import GRPO, GRPOSettings
from minigpt.align.judge import Judge, Labelled, gather
from minigpt.align.lessons import demonstrations
from minigpt.align.ppo import PPO, PPOSettings
from minigpt.align.reward import load_reward, save_reward
from minigpt.align.sft import SFTSettings, fine_tune
from minigpt.align.world import World
from minigpt.data import load_corpus, split
from minigpt.models.gpt_modern import GPTModern, GPTModernConfig
from minigpt.report import Stages, prepare_folder, write_text
from minigpt.settings import UserError, as_dict, from_dict, program
from minigpt.tokenizers import BpeTokenizer
from minigpt.train import Position, TrainSettings, train

STAGES = ("pretrain", "sft", "reward", "ppo", "dpo", "grpo", "report")
SPEAKING = ("pretrain", "sft", "ppo", "dpo", "grpo")        # stages that leave a model that speaks
FREE = ("stage", "workers", "out", "questions")             # settings that may differ when a run goes on


@dataclass(frozen=True)
class Settings:
    out: str = "runs/chat"          # folder for everything that the run leaves
    stage: Literal["all", "pretrain", "sft", "reward", "ppo", "dpo", "grpo", "report"] = "all"  # all, or one of them
    data: str | None = None         # a text file of prose (none: tiny Shakespeare)
    demonstrations: str | None = None   # conversations of your own, JSON lines, beside those about the small world
    preferences: str | None = None  # comparisons of your own, JSON lines, in place of the scripted judge's
    questions: str | None = None    # questions with answers of your own, JSON lines, for the report card
    countries: int | None = None    # how many countries the small world has (none: all there are)
    characters: int = 12_000_000    # of the text of pre-training
    vocabulary_size: int = 1536     # tokens, those that mark turns included
    layers: int = 4                 # blocks of the GPT
    heads: int = 4                  # attention heads in a block
    width: int = 128                # numbers in the residual stream
    context: int = 128              # tokens that the model can look back on
    batch_size: int = 16            # rows in an update, of pre-training and fine-tuning
    pretrain_steps: int = 3600      # updates of pre-training
    pretrain_rate: float = 0.03     # its highest learning rate (Muon)
    taught: int = 32_000            # demonstrations that are made
    sft_steps: int = 850            # updates of fine-tuning
    sft_rate: float = 0.01          # its highest learning rate (Muon)
    compared: int = 48_000          # comparisons that the judge makes
    mistakes: float = 0.1           # share of labels the wrong way round: the judge makes them, learning allows for them
    reward_epochs: int = 1          # how often the reward model sees each comparison
    dpo_compared: int = 6000        # how many of them DPO learns from, at most
    ppo_rounds: int = 40            # rounds of replies of PPO
    grpo_rounds: int = 40           # and of GRPO
    asked: int = 200                # questions for each ability of the report card
    workers: int = 0                # worker threads (0: one a core)
    seed: int = 1                   # of everything

    presets: ClassVar[dict[str, dict]] = {
        "quick": {"countries": 12, "characters": 1_000_000, "vocabulary_size": 768, "layers": 3, "width": 96,
                  "pretrain_steps": 300, "taught": 4000, "sft_steps": 150, "compared": 600, "reward_epochs": 1, "ppo_rounds": 6,
                  "grpo_rounds": 3, "asked": 25},
    }

    def __post_init__(self):
        for name in ("characters", "pretrain_steps", "taught", "sft_steps", "compared", "reward_epochs", "dpo_compared",
                     "ppo_rounds", "grpo_rounds", "asked", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, but has to be at least 1")
        if not 0 <= self.mistakes < 0.5:
            raise UserError(f"mistakes is {self.mistakes}, but has to be at least 0 and below 0.5")
        if self.seed < 0 or self.workers < 0:
            raise UserError("--seed and --workers can't be negative")


class Run:
    """What the stages share: the world, what is known of it, and where results go."""

    def __init__(self, settings):
        self.settings, self.out = settings, prepare_folder(settings.out)
        self.record = Stages(self.out)

    @property
    def workers(self):
        """Worker threads; None for one a core."""
        return self.settings.workers or None

    @cached_property
    def world(self):
        return World(self.settings.seed, self.settings.countries)

    @cached_property
    def prose(self):
        """(what is trained on, what is not) of the prose."""
        corpus = load_corpus(self.settings.data, print)
        return split(corpus.text, 1)

    @cached_property
    def text(self):
        """The text of pre-training."""
        return self.world.text(self.prose[0], self.settings.characters)

    @cached_property
    def template(self):
        return Template(self.load("pretrain").tokenizer)

    @cached_property
    def conversations(self):
        """(demonstrations that fit the context, how many were cut, how many were left out): the world's and the user's."""
        made = [one.messages for one in demonstrations(self.world, self.settings.taught, self.settings.seed)]
        own = [] if self.settings.demonstrations is None else read_conversations(self.settings.demonstrations)
        return fitted(made + own, self.template, self.settings.context)

    @cached_property
    def replay(self):
        """Demonstrations for the stages that learn from feedback to replay meanwhile."""
        return feedback.to_replay(self.conversations[0], self.template, self.settings.context, self.settings.seed)

    @cached_property
    def judge(self):
        return Judge(self.template, self.settings.mistakes, self.settings.seed)

    @cached_property
    def comparisons(self):
        """Comparisons to learn from, and held out: the user's own, or the judge's of what the fine-tuned model says."""
        s = self.settings
        if s.preferences is None:
            return gather(self.load("sft").model, self.world, self.template, self.judge, s.compared, s.seed,
                          workers=self.workers)
        known, left_out = from_preferences(read_preferences(s.preferences), self.template, s.context)
        if left_out:
            print(f"{left_out} comparisons of {s.preferences} are longer than the context of {s.context} tokens: left out")
        labelled = [Labelled(one, False) for one in known]
        return [one for i, one in enumerate(labelled) if i % 5], labelled[::5]

    @cached_property
    def abilities(self):
        return card_of.abilities(self.world, self.settings.seed, self.settings.asked)

    @cached_property
    def before_feedback(self):
        return self.measured(self.load("sft").model)

    def measured(self, policy):
        """What a model says to questions that were held out, and what it is worth."""
        return feedback.measure(policy, self.load("sft").model, self.world, self.template, self.judge,
                                5 * self.settings.asked, self.settings.seed, workers=self.workers)

    def folder(self, stage):
        return self.out / stage

    def log(self, stage):
        """The folder for a stage's metrics.jsonl."""
        return self.out / "logs" / stage

    def load(self, stage):
        """What a stage has left."""
        names = ["latest"] if stage == "pretrain" else []
        try:
            return checkpoint.load(self.folder(stage), names)
        except UserError:
            raise UserError(f"{self.folder(stage)} holds no model: the stage {stage} has to be run first") from None


# ---- the stages: each reads what those before it have left, and leaves its own folder ----

def pretrain(run):
    """A GPT that continues texts."""
    s, folder = run.settings, run.folder("pretrain")
    text = run.text
    write_text(run.out / "text_begins.txt", text[:20_000])
    if (folder / "latest").exists():
        saved = run.load("pretrain")
        model, tokenizer = saved.model, saved.tokenizer
        position = from_dict(Position, saved.training["position"], f"{saved.folder}, 'position',")
    else:
        model, tokenizer, position = *new_model(s, text), None
    ids = tokenizer.encode(text)
    print(f"text      {len(text):,} characters, {len(ids):,} tokens of {tokenizer.vocabulary_size:,}; "
          f"{len(run.world.countries)} countries, for example {run.world.countries[0].name}")
    print(f"model     {model.name}, {s.layers} layers, width {s.width}: {len(model.flat):,} parameters; "
          f"{device.status('cpu')}")
    settings = TrainSettings(steps=s.pretrain_steps, batch_size=s.batch_size, workers=s.workers, optimizer="muon",
                             learning_rate=s.pretrain_rate, last_learning_rate=s.pretrain_rate / 50, warm_up=20, hold=0.4,
                             weight_decay=0.0, beta2=0.95, eval_every=max(1, s.pretrain_steps // 4), seed=s.seed)
    split(ids, s.context)                                   # says so, should the text be too short
    held_out = min(20_000, len(ids) // 10)
    position, interrupted = train(model, tokenizer, ids[:-held_out], ids[-held_out:], settings, folder, position)
    if interrupted:
        raise UserError(f"stopped at step {position.step} of pretrain: start again to go on from there")
    return {"val_loss": position.val_loss, "tokens": position.tokens}


def new_model(settings, text):
    """A GPT, and its tokenizer: no digit is ever merged with another character, so that sums are made of single digits."""
    tokenizer = BpeTokenizer.train(re.sub("[0-9]", "", text), settings.vocabulary_size, SPECIAL)
    shape = tokenizer.vocabulary_size, settings.context, settings.layers, settings.heads, settings.width
    return GPTModern(GPTModernConfig(*shape), seed=settings.seed), tokenizer


def sft(run):
    """The model that answers."""
    s, template, model = run.settings, run.template, run.load("pretrain").model
    conversations, cut, left_out = run.conversations
    print(f"sft       {len(conversations):,} demonstrations; longer than {s.context} tokens: {cut} cut after a turn, "
          f"{left_out} left out")
    print(f"          {template.view(*template.render(conversations[0]))}")
    settings = SFTSettings(steps=s.sft_steps, batch_size=s.batch_size, workers=s.workers, learning_rate=s.sft_rate,
                           last_learning_rate=s.sft_rate / 50, beta2=0.95, hold=0.3, seed=s.seed)
    held_out = fitted([one.messages for one in demonstrations(run.world, 200, s.seed + 1)], template, s.context)[0]
    text = template.tokenizer.encode(run.text)
    loss = fine_tune(model, template, conversations, settings, run.log("sft"), held_out, text)
    checkpoint.save(run.folder("sft"), model, template.tokenizer)
    return {"held_out_loss": loss}


def reward(run):
    """The model that tells better replies from worse ones."""
    s = run.settings
    settings = ComparisonSettings(epochs=s.reward_epochs, mistakes=counted_as_mistaken(s.mistakes), seed=s.seed)
    model, figures = feedback.learn_reward(run.load("sft").model, run.comparisons, settings, run.log("reward"), run.workers)
    save_reward(run.folder("reward"), model, run.template.tokenizer)
    print(f"reward    agrees with {figures['accuracy']:.1%} of the labels held out (with the judge's mistakes, at most "
          f"{figures['ceiling']:.1%}), and with {figures['true_accuracy']:.1%} of what the judge really prefers")
    return figures


def ppo(run):
    """The model that says what the reward model prefers."""
    return reinforced(run, "ppo", PPO, PPOSettings(iterations=run.settings.ppo_rounds, seed=run.settings.seed))


def grpo(run):
    """The same without a model of values."""
    return reinforced(run, "grpo", GRPO, GRPOSettings(iterations=run.settings.grpo_rounds, seed=run.settings.seed))


def reinforced(run, stage, kind, settings):
    rewarding, _ = load_reward(run.folder("reward"))
    policy, records = feedback.reinforce(kind, run.load("sft").model, rewarding, run.world, run.template, run.judge,
                                         settings, run.log(stage), replay=run.replay, workers=run.workers)
    checkpoint.save(run.folder(stage), policy, run.template.tokenizer)
    return records[-1] | against_sft(run, policy)


def dpo(run):
    """The model that learns straight from comparisons."""
    training, held_out = run.comparisons
    first = training[:run.settings.dpo_compared]            # the judge's begin with those of replies of the model's own
    settings = DPOSettings(mistakes=counted_as_mistaken(run.settings.mistakes), seed=run.settings.seed)
    policy, records = feedback.prefer_directly(run.load("sft").model, (first, held_out), settings, run.log("dpo"), run.replay,
                                               run.workers)
    checkpoint.save(run.folder("dpo"), policy, run.template.tokenizer)
    return {"accuracy": records[-1]["accuracy"]} | against_sft(run, policy)


def against_sft(run, policy):
    """The judge's true score of a policy, beside the fine-tuned model's, on the same questions, held out."""
    figures = feedback.gained(run.before_feedback, run.measured(policy))
    print("          the judge's true score: {true_score:.3f}, fine-tuned {true_score_sft:.3f}; gained {gain:+.3f} "
          "(+-{gain_margin:.3f}), {kl_held_out:.2f} nats of KL a reply".format(**figures))
    return figures


# ---- what came of it ----

def examine(run, stage):
    """The report card of a stage's model, written beside it."""
    saved, template = run.load(stage), run.template
    trained_on, begin_from = (template.tokenizer.encode(part) for part in run.prose)
    card = card_of.evaluate(saved.model, template, run.world, run.abilities, (trained_on, begin_from),
                            run.workers)
    write_text(run.out / f"{stage}.card.json", json.dumps(card_of.as_json({stage: card})))
    print(card_of.table({stage: card}))


def report(run):
    """All cards side by side, and what the project set out to reach."""
    cards = {}
    for stage in SPEAKING:
        path = run.out / f"{stage}.card.json"
        if path.exists():
            cards |= card_of.from_json(path.read_text(encoding="utf-8"))
            if run.settings.questions is not None:
                cards[stage] |= own_questions(run, stage)
    if not cards:
        raise UserError(f"{run.out} holds no report card: run the stage pretrain first")
    reached = verdicts(cards, run.record.figures, sum(run.record.seconds.values()))
    text = card_of.table(cards) + "\n\n" + "\n".join(reached)
    print(text)
    write_text(run.out / "report.txt", text + "\n")
    write_text(run.out / "report.json", json.dumps(card_of.as_json(cards), indent=1) + "\n")
    hint = card_of.plot(cards, run.out / "report.png")
    if hint:
        print(hint)
    return {}


def own_questions(run, stage):
    """The score of a stage's model in questions of the user's."""
    own = card_of.Ability("questions of your own", card_of.read_questions(run.settings.questions), run.abilities[0].toolbox)
    card = card_of.evaluate(run.load(stage).model, run.template, run.world, [own], workers=run.workers)
    return {own.name: card[own.name]}


def main(settings):
    check_files(settings)
    run = Run(settings)
    run.record.check({name: value for name, value in as_dict(settings).items() if name not in FREE})
    for stage in STAGES if settings.stage == "all" else (settings.stage,):
        if settings.stage == "all" and stage in run.record.seconds and stage != "report":
            print(f"{stage:9} done already")
            continue
        print(f"\n== {stage}", flush=True)
        begin = time.perf_counter()
        figures = globals()[stage](run)
        if stage in SPEAKING:
            examine(run, stage)
        seconds = time.perf_counter() - begin
        run.record.add(stage, figures | {"seconds": seconds})
        print(f"{stage:9} took {seconds:.0f} s")
    print(f"\nresults in {run.out}; to talk to it: python examples/chat.py --checkpoint {run.out}")


def check_files(settings):
    """Read what the user brings along at once, not after half an hour."""
    for path, read in ((settings.demonstrations, read_conversations), (settings.preferences, read_preferences),
                       (settings.questions, card_of.read_questions)):
        if path is not None:
            read(path)


if __name__ == "__main__":
    program(main, Settings)
