"""What a comparison says in sentences, on results whose ratios are known."""

from made_results import clear_win, measurement, results

from dbp_mae.comparison.findings import sentences
from dbp_mae.comparison.results import Finetuned, Results


def test_the_headline_quotes_ratio_and_spread() -> None:
    said = sentences(results(clear_win()))
    assert said[0].startswith(
        "Muon, function-preserving, of 2 decorrelated variants the best in tuning, reached"
    )
    assert "tuned AdamW's best loss in 0.30 (0.30 to 0.30) of its time" in said[0]
    assert "0.30 (0.30 to 0.30) of its energy" in said[0]
    assert "on your 1\u202f234 images" in said[0]
    assert "tuned Muon's best loss in 0.50" in said[1]
    assert "decorrelation pays on these data" in said[2]


def test_a_rival_that_is_as_good_is_not_hidden() -> None:
    """Decorrelation beats AdamW, but plain Muon beats it."""
    slopes = {"AdamW": 1, "Muon": 4, "AdamW, paper": 2, "Muon, function-preserving": 3}
    runs = [
        measurement(name, seed, slope / 1000)
        for seed in (1, 2, 3)
        for name, slope in slopes.items()
    ]
    said = " ".join(sentences(results(runs)))
    assert "of its time" in said
    assert "reached tuned Muon's best loss in 0 of 3 seeds" in said
    assert "does not pay" in said


def shortened(found: Results, name: str) -> Results:
    """Return results in which a variant had half of the steps."""
    short = found.settings[name].model_copy(update={"steps": 50})
    return found.model_copy(update={"settings": found.settings | {name: short}})


def test_a_shorter_schedule_speaks_for_itself() -> None:
    """Beside the candidate it tells what one may do without."""
    name = "AdamW, paper"
    found = shortened(results(clear_win()), name)
    assert found.shorter == [name]
    assert sentences(found)[2].startswith(
        "AdamW, paper, trained for 50 steps instead of 100, reached tuned AdamW's best loss in 0.50"
    )
    assert not results(clear_win()).shorter


def test_a_candidate_of_fewer_steps_is_spoken_of_once() -> None:
    name = "Muon, function-preserving"
    said = sentences(shortened(results(clear_win()), name))
    assert said[0].startswith(
        f"{name}, of 2 decorrelated variants the best in tuning, trained for 50 steps instead of 100, "
        "reached tuned AdamW's best loss in 0.30"
    )
    assert sum("tuned AdamW's best loss" in sentence for sentence in said) == 1


def test_seeds_in_which_the_target_diverged_are_counted() -> None:
    runs = clear_win()
    for index in (0, 1):  # the plain ones of the first seed
        runs[index] = measurement(runs[index].variant, 1, 0.001, diverged=True)
    said = " ".join(sentences(results(runs)))
    assert "compared in 2 of 3 seeds" in said
    assert "2 seeds cannot rule out chance" in said


def test_a_rival_that_diverged_in_a_seed_has_still_to_be_beaten() -> None:
    slopes = {"AdamW": 1, "Muon": 5, "AdamW, paper": 2, "Muon, function-preserving": 4}
    runs = [
        measurement(name, seed, slope / 1000, diverged=(name, seed) == ("Muon", 1))
        for seed in (1, 2, 3)
        for name, slope in slopes.items()
    ]
    found = results(runs)
    assert found.rival == "Muon"
    said = " ".join(sentences(found))
    assert "decorrelation does not pay" in said
    assert "Muon in 1 of 3 seeds diverged" in said
    assert "diverged" not in " ".join(sentences(results(clear_win())))


def test_batches_that_are_loaded_in_others_turns_are_told() -> None:
    found = results(clear_win())
    assert "cost no time here" not in " ".join(sentences(found))
    settings = {
        name: params.model_copy(update={"workers": 8}) for name, params in found.settings.items()
    }
    said = " ".join(sentences(found.model_copy(update={"settings": settings})))
    assert "of the 10 batches between two validations, up to 10 are loaded while other" in said


def test_an_optimizer_of_its_own_is_not_taken_for_decorrelation() -> None:
    """AdamW against decorrelated Muon, without plain Muon: which of the two helps is unknown."""
    found = results([run for run in clear_win() if run.variant != "Muon"])
    known = {name: params for name, params in found.settings.items() if name != "Muon"}
    said = " ".join(sentences(found.model_copy(update={"settings": known})))
    assert "Muon, function-preserving is ahead of AdamW in 3 of 3 seeds" in said
    assert "no variant has the optimizer muon without it" in said
    assert "pays" not in said


def test_seeds_that_disagree_leave_it_open() -> None:
    runs = clear_win()
    runs[3] = measurement(runs[3].variant, 1, 0.0001)  # the candidate's first seed
    assert "cannot be told" in " ".join(sentences(results(runs)))


def test_a_baseline_that_learnt_nothing_is_an_empty_target() -> None:
    learnt = results(clear_win())
    assert "Beware" not in " ".join(sentences(learnt))
    idle = learnt.model_copy(update={"constant_loss": 0.9})
    assert sentences(idle)[0].startswith("Beware: AdamW hardly learnt anything")


def test_without_decorrelation_there_is_no_verdict() -> None:
    found = results(clear_win())
    plain = {name: found.settings[name] for name in ("AdamW", "Muon")}
    said = " ".join(sentences(found.model_copy(update={"settings": plain})))
    assert "No variant is decorrelated" in said
    assert "decorrelation pays" not in said


def test_a_variant_that_waits_for_its_images_is_named() -> None:
    runs = clear_win()
    hungry = [
        measurement("Muon", run.seed, 2 / 1000, waiting=0.2) if run.variant == "Muon" else run
        for run in runs
    ]
    assert "waited for images" not in " ".join(sentences(results(runs)))
    assert "Beware: Muon waited for images during more than 10%" in " ".join(
        sentences(results(hungry))
    )


def test_what_the_encoders_are_worth_is_said() -> None:
    found = results(clear_win())
    assert "mIoU" not in " ".join(sentences(found))
    shares = {"Muon": [0.5, 0.7], "Muon, function-preserving": [0.4, 0.5]}
    finetuned = [
        Finetuned(variant=name, seed=seed, finetune_seed=0, miou=miou)
        for name, mious in shares.items()
        for seed, miou in enumerate(mious, start=1)
    ]
    said = " ".join(sentences(found.model_copy(update={"finetuned": finetuned})))
    assert (
        "function-preserving have a held-out mIoU of 0.450 (0.400 to 0.500), those of Muon" in said
    )
    assert "those of Muon 0.600 (0.500 to 0.700)." in said


def test_few_seeds_are_said_to_be_few() -> None:
    assert "1 seed cannot rule out chance" in " ".join(sentences(results(clear_win()[:4])))
