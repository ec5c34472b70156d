"""What a comparison says, in figures and in sentences."""

import math
from typing import Any

from dbp_mae.comparison.results import QUANTITIES, Results, Spread
from dbp_mae.pages.formatting import UNKNOWN, count, decimal
from dbp_mae.pretraining.constant_predictor import hardly_beaten

FEW_SEEDS = 3
"""With fewer seeds than these the sentences warn of chance."""
DRIFT = 1.1
"""A change of the machine's speed that is worth a warning."""
WAITING = 0.1
"""A share of the time spent waiting for batches that is worth a warning."""
AHEAD = 2
"""Batches that PyTorch's loader keeps ready for each of its processes."""
NAMES = {"step": "steps", "seconds": "time", "joules": "energy"}
"""What the quantities are called."""


def headline(results: Results) -> dict[str, Any]:
    """Return the few figures to quote: sentences, shares of what each target took itself, and the mIoU."""
    return {
        "sentences": sentences(results),
        "seeds": len(results.seeds),
        "energy": results.energy.kind,
        **{
            f"{variant}: {NAMES[quantity]} to the best loss of {target}": _rounded(
                results.ratio(variant, target, quantity).geometric_mean
            )
            for target in _targets(results)
            for variant in results.settings
            if variant != target
            for quantity in QUANTITIES
        },
        **{
            f"{variant}: mIoU by encoder": _listed(miou)
            for variant in results.settings
            if (miou := results.miou(variant)).values
        },
    }


def table(results: Results) -> list[dict[str, Any]]:
    """Return a row for each variant and target: what it took, and as a share of the target's own."""
    return [
        {
            "variant": variant,
            "target": target,
            "target_loss": _listed(results.best_loss(target)),
            **{
                f"{NAMES[quantity]}_{name}": _listed(spread(variant, target, quantity))
                for quantity in QUANTITIES
                for name, spread in (("taken", results.to_target), ("ratio", results.ratio))
            },
        }
        for target in results.plain
        for variant in results.settings
    ]


def sentences(results: Results) -> list[str]:
    """Return the findings: against baseline and best plain rival, the verdict, what encoders are worth.

    Then what to beware of, and what is not known.
    """
    return [
        *_candidate_against_plain(results),
        *_shorter_against_baseline(results),
        *_verdict(results),
        *_worth(results),
        *_empty_target(results),
        *_divergences(results),
        *_drift(results),
        *_waiting(results),
        *_loaded_ahead(results),
        *_level(results),
        *_not_bracketed(results),
        *_not_finished(results),
    ]


def _targets(results: Results) -> list[str]:
    """Return the plain variants to beat: the baseline and its best rival, or the one that is both."""
    return list(dict.fromkeys((results.plan.baseline, results.rival)))


def _candidate_against_plain(results: Results) -> list[str]:
    """Say how soon decorrelation reached the best loss of the plain variants to beat."""
    candidate, variants = results.candidate, len(results.decorrelated)
    if candidate is None:
        return [
            f"No variant is decorrelated, so nothing is said of tuned {target}'s best loss."
            for target in _targets(results)
        ]
    choice = [f"of {variants} decorrelated variants the best in tuning"] * (variants > 1)
    remarks = choice + _trained_for(results, candidate)
    return [_against(results, candidate, remarks, target) for target in _targets(results)]


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


def _divergences(results: Results) -> list[str]:
    seeds = len(results.seeds)
    lost = {name: n for name in results.settings if (n := results.diverged(name))}
    if not lost:
        return []
    times = [f"{name} in {n} of {seeds} seeds" for name, n in lost.items()]
    return [
        f"Beware: {_listing(times)} diverged. Such a run reached no loss: as the one compared it "
        "counts as never, and as the one to compare with not at all."
    ]


def _drift(results: Results) -> list[str]:
    """Warn of what a drifting machine leaves uncertain, with the shares of time without the drift."""
    if results.drift <= DRIFT:
        return []
    told = (
        f"Beware: the machine's speed changed by a factor of {results.drift:.2f} within a seed, which "
        "shares of time mix with what the variants do."
    )
    return [" ".join([told, *_steadied(results)])]


def _steadied(results: Results) -> list[str]:
    """Say which shares of time the candidate would have taken on a steady machine, where one is known."""
    candidate = results.candidate
    if candidate is None:
        return []
    ratios = {target: results.steadied_ratio(candidate, target) for target in _targets(results)}
    steadied = [f"{share(ratio)} of {target}'s" for target, ratio in ratios.items() if ratio.always]
    if not steadied:
        return []
    return [
        "Steps taken, times what a step cost in the same rounds, would make that of "
        f"{candidate} {_listing(steadied)}."
    ]


def _waiting(results: Results) -> list[str]:
    """Warn of variants whose time is that of the loader."""
    waiting = [name for name in results.settings if (results.waiting(name).mean or 0) > WAITING]
    if not waiting:
        return []
    return [
        f"Beware: {_listing(waiting)} waited for images during more than {WAITING:.0%} of the time, "
        "which hides what a step costs. Raise pretrain.workers."
    ]


def _loaded_ahead(results: Results) -> list[str]:
    """Warn of batches whose loading no variant's time tells."""
    common = results.settings[results.plan.baseline]
    ahead = min(AHEAD * common.workers, common.validate_every)
    if ahead <= WAITING * common.validate_every:
        return []
    return [
        f"Beware: of the {common.validate_every} batches between two validations, up to {ahead} are "
        "loaded while other variants train, and these cost no time here. Raise "
        "pretrain.validate_every, or lower pretrain.workers."
    ]


def _level(results: Results) -> list[str]:
    """Say of which variants a second learning rate was measured."""
    level = [
        f"{name}'s {tuning.best:g} and {tuning.level:g}"
        for name, tuning in results.tuning.items()
        if name in results.plain and tuning.level
    ]
    if not level:
        return []
    return [
        f"The tuning's seeds disagree about which is the better learning rate of {_listing(level)}: "
        "both were measured."
    ]


def _not_bracketed(results: Results) -> list[str]:
    unfinished = [name for name, tuning in results.tuning.items() if not tuning.bracketed]
    if not unfinished:
        return []
    return [
        f"The learning rate of {_listing(unfinished)} could not be bracketed within the allowed "
        "trials, so a better one may exist."
    ]


def _not_finished(results: Results) -> list[str]:
    left = set(results.plan.seeds) - set(results.seeds)
    if not left:
        return []
    return [f"Not finished: {len(left)} of {len(results.plan.seeds)} seeds are still to run."]


def share(spread: Spread) -> str:
    """Write ratios by seed: their geometric mean, lowest and highest."""
    mean, low, high = spread.geometric_mean, spread.low, spread.high
    if low is None or any(map(math.isnan, spread.values)):
        return UNKNOWN
    if mean is not None:
        bounds = f" ({low:.2f} to {high:.2f})" if len(spread.values) > 1 else " (one seed)"
        return decimal(mean) + bounds
    if not spread.reached:
        return "never"
    return f"{low:.2f} to never ({spread.reached} of {len(spread.values)} seeds)"


def average(spread: Spread, digits: int, never: str) -> str:
    """Write figures by seed: their mean, lowest and highest."""
    if not spread.values:
        return UNKNOWN
    if spread.mean is None:
        return f"{never} in {len(spread.values) - spread.reached} of {len(spread.values)} seeds"
    text = f"{spread.mean:.{digits}f}"
    if len(spread.values) > 1:
        text += f" ({spread.low:.{digits}f} to {spread.high:.{digits}f})"
    return text


def _listing(names: list[str]) -> str:
    return " and ".join(("; ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]


def _listed(spread: Spread) -> list[float | None]:
    """Return the values by seed for JSON; None for never or unknown."""
    return [_rounded(value) for value in spread.values]


def _rounded(value: float | None) -> float | None:
    """Return four significant digits."""
    return float(f"{value:.4g}") if value is not None and math.isfinite(value) else None
