"""What fine-tuning and feedback are meant to reach, each as a figure, and what became of it in a run."""
from .evaluate import paired

FACTS = "facts, demonstrated", "facts, only pre-trained"
SECONDS = 30 * 60                   # that the whole line may take


def verdicts(cards, figures, seconds):
    """What the project set out to reach, and what became of it, as lines."""
    lines = []

    def say(what, value, reached):
        lines.append(f"{'reached ' if reached else 'MISSED  '}  {what}: {value}")

    def share(stage, name):
        return cards[stage][name].share

    if "pretrain" in cards:
        before = share("pretrain", "in form")
        say("replies in form before fine-tuning, below 20%", f"{before:.1%}", before < 0.2)
    if "sft" in cards:
        for name, goal in (("in form", 0.95), ("facts, demonstrated", 0.95), ("facts, only pre-trained", 0.85),
                           ("calculator, three digits", 0.98)):
            say(f"{name} after fine-tuning, {goal:.0%}", str(cards["sft"][name]).strip(), share("sft", name) >= goal)
    if "reward" in figures:
        accuracy, ceiling = figures["reward"]["accuracy"], figures["reward"]["ceiling"]
        say("reward model on labels held out, 85% or within 3 points of the ceiling", f"{accuracy:.1%} of at most {ceiling:.1%}",
            accuracy >= min(0.85, ceiling - 0.03))
    for stage in [stage for stage in ("ppo", "dpo", "grpo") if stage in cards and stage in figures and "sft" in cards]:
        gain, margin, kl = (figures[stage][name] for name in ("gain", "gain_margin", "kl_held_out"))
        say(f"{stage}: the judge's true score rises", f"{gain:+.3f} (+-{margin:.3f}) at {kl:.2f} nats of KL", gain > margin)
        before, after = (share(one, "hallucination (invented)") for one in ("sft", stage))
        say(f"{stage}: hallucination, a third at most (not worse, where below 10%)", f"{before:.1%} to {after:.1%}",
            after <= (before if before < 0.1 else before / 3))
        lost, gained = (sum(pair) for pair in zip(*(paired(cards["sft"][name], cards[stage][name])
                                                    for name in FACTS)))
        number = sum(cards["sft"][name].number for name in FACTS)
        say(f"{stage}: facts, at most 2 points lost", f"{lost} lost and {gained} gained of {number}",
            lost - gained <= 0.02 * number)
    say(f"the whole line within {SECONDS // 60} minutes", f"{seconds / 60:.1f} minutes", seconds <= SECONDS)
    return lines
