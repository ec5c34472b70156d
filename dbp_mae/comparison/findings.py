"""What a comparison found about decorrelation, in sentences."""

from dbp_mae.comparison.cautions import cautions
from dbp_mae.comparison.results import Results
from dbp_mae.comparison.spread import Spread, average, share
from dbp_mae.pages.formatting import UNKNOWN, count
from dbp_mae.pretraining.constant_predictor import hardly_beaten

FEW_SEEDS = 3
"""With fewer seeds than these the sentences warn of chance."""


def sentences(results: Results) -> list[str]:
    """Return the findings: against baseline and best plain rival, the verdict, what encoders are worth.

    Then what to beware of, and what is not known; but an empty target comes first of all.
    """
    return [
        *_empty_target(results),
        *_candidate_against_plain(results),
        *_shorter_against_baseline(results),
        *_verdict(results),
        *_worth(results),
        *cautions(results),
    ]


def _empty_target(results: Results) -> list[str]:
    """Warn of a baseline that learnt next to nothing."""
    target = results.best_loss(results.plan.baseline).mean or 0
    if not hardly_beaten(target, results.constant_loss):
        return []
    return [
        f"Beware: {results.plan.baseline} hardly learnt anything (its best loss is {target:.3f}, "
        f"that of predicting each patch's mean {results.constant_loss:.3f}), so its best loss is "
        "an empty target. Train for more steps."
    ]


def _candidate_against_plain(results: Results) -> list[str]:
    """Say how soon decorrelation reached the best loss of the plain variants to beat."""
    candidate, variants = results.candidate, len(results.decorrelated)
    if candidate is None:
        return [
            f"No variant is decorrelated, so nothing is said of tuned {target}'s best loss."
            for target in results.targets
        ]
    choice = [f"of {variants} decorrelated variants the best in tuning"] * (variants > 1)
    remarks = choice + _trained_for(results, candidate)
    return [_against(results, candidate, remarks, target) for target in results.targets]


def _shorter_against_baseline(results: Results) -> list[str]:
    """Say how soon the other variants of fewer steps reached the baseline's best loss."""
    return [
        _against(results, variant, _trained_for(results, variant), results.plan.baseline)
        for variant in results.shorter
        if variant != results.candidate
    ]


def _trained_for(results: Results, variant: str) -> list[str]:
    """Return the remark that a variant is trained for fewer steps than the baseline, if it is."""
    steps, usual = (results.settings[name].steps for name in (variant, results.plan.baseline))
    return [f"trained for {count(steps)} steps instead of {count(usual)}"] * (steps < usual)


def _against(results: Results, variant: str, remarks: list[str], target: str) -> str:
    """Say how soon a variant reached the best loss of a plain one; `remarks` follow its name."""
    named = ", ".join([variant, *remarks]) + "," * bool(remarks)
    tuned = f"tuned {target}'s best loss"
    images = f"on your {count(results.data.training_images)} images"
    ratio = results.ratio(variant, target, "seconds")
    seeds = len(results.seeds)
    if not ratio.values:
        return f"{target} reached no loss to compare with in any of {seeds} seeds."
    compared = f" (compared in {len(ratio.values)} of {seeds} seeds)" * (len(ratio.values) < seeds)
    if not ratio.always:
        return (
            f"{named} reached {tuned} in {ratio.reached} of {len(ratio.values)} seeds "
            f"{images}{compared}."
        )
    cost = f"{share(ratio)} of its time{_energy(results, variant, target)}"
    return f"{named} reached {tuned} in {cost} {images}{compared}."


def _energy(results: Results, variant: str, target: str) -> str:
    if results.energy.kind == "measured":
        return f" and {share(results.ratio(variant, target, 'joules'))} of its energy"
    if results.energy.kind == "estimated":
        return " (and of its energy, which is estimated from the time)"
    return ""


def _verdict(results: Results) -> list[str]:
    """Say whether decorrelation pays against the best variant without it, and how sure that is."""
    candidate, rival = results.candidate, results.rival
    if candidate is None:
        return []
    ratios = results.ratio(candidate, rival, "seconds").values
    if not ratios:
        return [
            f"Whether decorrelation pays cannot be told: {rival} reached no loss to compare with."
        ]
    optimizer = results.settings[candidate].optimizer
    isolated = any(results.settings[name].optimizer == optimizer for name in results.plain)
    if not isolated:
        ahead = sum(ratio < 1 for ratio in ratios)
        verdict = (
            f"{candidate} is ahead of {rival} in {ahead} of {len(ratios)} seeds; what decorrelation does "
            f"cannot be told, for no variant has the optimizer {optimizer} without it"
        )
    elif max(ratios) < 1:
        compared = " compared" * (len(ratios) < len(results.seeds))
        verdict = (
            f"decorrelation pays on these data: it is ahead of {rival} in every seed{compared}"
        )
    elif min(ratios) >= 1:
        verdict = f"decorrelation does not pay on these data: in no seed is it ahead of {rival}"
    else:
        verdict = f"whether decorrelation pays cannot be told: the seeds disagree about {rival}"
    seeds = len(ratios)
    chance = (
        f"; {seeds} seed{'s' * (seeds > 1)} cannot rule out chance" if seeds < FEW_SEEDS else ""
    )
    return [f"In time, {verdict}{chance}."]


def _worth(results: Results) -> list[str]:
    """Say what the encoders are worth, where they were fine-tuned: a lower loss alone is no better model."""
    if results.candidate is None:
        return []
    ours, theirs = (results.miou(name) for name in (results.candidate, results.rival))
    if not (ours.always and theirs.always):
        return []
    return [
        f"Fine-tuned, the encoders of {results.candidate} have a held-out mIoU of {_miou(ours)}, "
        f"those of {results.rival} {_miou(theirs)}."
    ]


def _miou(spread: Spread) -> str:
    return average(spread, 3, never=UNKNOWN) + " (one encoder)" * (len(spread.values) == 1)
