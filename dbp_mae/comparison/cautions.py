"""What to beware of in a comparison, and what it leaves unknown, in sentences."""

from dbp_mae.comparison.results import Results
from dbp_mae.comparison.spread import share

DRIFT = 1.1
"""A change of the machine's speed that is worth a warning."""
WAITING = 0.1
"""A share of the time spent waiting for batches that is worth a warning."""
AHEAD = 2
"""Batches that PyTorch's loader keeps ready for each of its processes."""


def cautions(results: Results) -> list[str]:
    """Return the warnings that hold."""
    return [
        *_divergences(results),
        *_drift(results),
        *_waiting(results),
        *_loaded_ahead(results),
        *_level(results),
        *_not_bracketed(results),
        *_not_finished(results),
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
    ratios = {target: results.steadied_ratio(candidate, target) for target in results.targets}
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
    rates = {name: it.measured(name in results.plain) for name, it in results.tuning.items()}
    level = [f"{name}'s {its[0]:g} and {its[1]:g}" for name, its in rates.items() if len(its) > 1]
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


def _listing(names: list[str]) -> str:
    return " and ".join(("; ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]
