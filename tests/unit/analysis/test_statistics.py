"""Win rates, their bootstrap intervals, means over seeds and paired differences."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from implicit_tuning.analysis.statistics import (
    combine,
    difference,
    holm,
    length_ratio,
    mean_of_numbers,
    mean_over_seeds,
    mean_score,
    paired_difference,
    paired_test,
    sign_flip_test,
    summarise,
    widened,
)


def annotations(preferences, length_1=10, length_2=20, generator_1="instruction"):
    return [
        {
            "instruction_sha256": f"{index:064d}",
            "generator_1": generator_1,
            "generator_2": "response",
            "preference": preference,
            "length_1": length_1,
            "length_2": length_2,
        }
        for index, preference in enumerate(preferences)
    ]


def random_annotations(seed, win_probability, count=200):
    draws = np.random.default_rng(seed).random(count)
    return annotations([2.0 if draw < win_probability else 1.0 for draw in draws])


def test_counts_and_rate_of_one_comparison():
    rate = summarise(annotations([2.0, 2.0, 1.5, 1.0, 1.25, None]))
    assert (rate.n, rate.n_wins, rate.n_draws, rate.n_losses) == (5, 2, 1, 2)
    assert rate.win_rate == pytest.approx(100 * (1 + 1 + 0.5 + 0 + 0.25) / 5)
    scores = [100, 100, 50, 0, 25]
    assert rate.standard_error == pytest.approx(np.std(scores, ddof=1) / math.sqrt(5))


def test_interval_agrees_with_the_normal_approximation():
    rate = summarise(random_annotations(1, 0.4, count=400))
    assert rate.low == pytest.approx(rate.win_rate - 1.96 * rate.standard_error, abs=0.6)
    assert rate.high == pytest.approx(rate.win_rate + 1.96 * rate.standard_error, abs=0.6)
    assert rate == summarise(random_annotations(1, 0.4, count=400))


def exact_bound(n):
    """The exact binomial bound for 0 of n, 1 - (alpha / 2) ** (1 / n), in percent."""
    return 100 * (1 - 0.025 ** (1 / n))


def test_a_run_against_itself_has_an_interval_of_one_point():
    itself = annotations([1.5] * 30, generator_1="response")
    rate, mean = summarise(itself), combine([itself] * 3)
    assert (rate.win_rate, rate.low, rate.high, rate.standard_error) == (50.0, 50.0, 50.0, 0.0)
    assert (mean.mean, mean.low, mean.high) == (50.0, 50.0, 50.0)


def test_draws_alone_do_not_prove_that_two_runs_are_equal():
    rate, mean = summarise(annotations([1.5] * 30)), combine([annotations([1.5] * 30)] * 3)
    reach = exact_bound(30) / 2
    assert [rate.low, rate.win_rate, rate.high] == pytest.approx([50 - reach, 50, 50 + reach])
    assert (mean.low, mean.high) == (rate.low, rate.high)


def test_no_win_and_no_loss_are_not_certainties():
    none, every = summarise(annotations([1.0] * 200)), summarise(annotations([2.0] * 200))
    bound = exact_bound(200)
    assert (none.low, none.high) == (0.0, pytest.approx(bound))
    assert (every.low, every.high) == (pytest.approx(100 - bound), 100.0)
    one_draw = summarise(annotations([1.0] * 199 + [1.5]))
    assert (one_draw.low, one_draw.high > none.high) == (0.0, True)
    two_draws = summarise(annotations([1.0] * 198 + [1.5] * 2))
    assert two_draws.high == summarise(annotations([1.0] * 199 + [2.0])).high
    both = combine([annotations([1.0] * 200)] * 2)
    assert (both.mean, both.low, both.high) == (0.0, 0.0, pytest.approx(bound))


@pytest.mark.parametrize("n_wins", [1, 5])
def test_seeds_that_win_the_same_few_instructions_narrow_no_interval(n_wins):
    one = annotations([2.0] * n_wins + [1.0] * (200 - n_wins))
    exact = binomtest(n_wins, 200).proportion_ci(0.95, "exact")
    for n_seeds in (1, 3, 5):
        mean = combine([one] * n_seeds)
        assert mean.high == pytest.approx(100 * exact.high)
        assert mean.low <= 100 * exact.low


def test_verdicts_weighted_by_probabilities_are_wins_draws_and_losses():
    draw = np.random.default_rng(4)
    losses = summarise(annotations((1 + draw.uniform(0, 2e-4, 200)).tolist()))
    assert losses.low == pytest.approx(losses.win_rate, abs=0.01)
    assert losses.high == pytest.approx(exact_bound(200), abs=0.02)
    # Wins of between 74 and 76 say how sure they are.
    wins = summarise(annotations((1 + draw.uniform(0.74, 0.76, 200)).tolist()))
    opposite = 2 * (wins.win_rate - 50)  # how far a loss would lie that is as sure
    assert wins.low == pytest.approx(wins.win_rate - opposite * exact_bound(200) / 100, abs=0.1)
    assert wins.high < wins.win_rate + 2


def test_several_scores_of_one_item_are_one_piece_of_evidence():
    """Two models of a calibration were judged on 30 instructions each, one of which one lost."""
    scores = np.array([0.0] + [100.0] * 59)
    items = np.tile(np.arange(30), 2)
    low, high = widened((90.0, 99.0), scores, items)
    ends = [binomtest(count, 30).proportion_ci(0.95, "exact") for count in (0, 1)]
    assert low == pytest.approx(100 - 100 * ends[1].high)
    assert high == 100 - 100 * ends[0].low == 100.0


def test_a_single_pair_has_no_standard_error():
    assert summarise(annotations([2.0])).standard_error is None


def test_nothing_judged_is_refused():
    with pytest.raises(ValueError, match="no pair of this comparison was judged"):
        summarise(annotations([None, None]))


def test_mean_and_sample_deviation_over_seeds():
    mean = combine([annotations([2.0, 1.0]), annotations([2.0, 2.0]), annotations([1.0, 1.0])])
    assert mean.mean == pytest.approx(50.0)
    assert mean.std == pytest.approx(50.0)
    assert (mean.n, mean.n_seeds) == (6, 3)


def test_one_seed_has_no_deviation_and_the_interval_of_its_comparison():
    single = random_annotations(3, 0.3)
    mean, rate = combine([single]), summarise(single)
    assert mean.std is None
    assert (mean.mean, mean.low, mean.high, mean.n) == (rate.win_rate, rate.low, rate.high, rate.n)


def test_spread_between_seeds_widens_the_interval():
    alike = combine([random_annotations(seed, 0.4) for seed in (1, 2)])
    apart = combine([random_annotations(1, 0.2), random_annotations(2, 0.6)])
    assert apart.high - apart.low > 2 * (alike.high - alike.low)
    assert alike.low < alike.mean < alike.high


def test_instructions_are_resampled_in_common_for_all_seeds():
    """Seeds that answer each instruction alike carry no more information than one of them."""
    one = random_annotations(5, 0.4)
    copies, single = combine([one] * 4), combine([one])
    assert copies.std == 0.0
    assert copies.high - copies.low == pytest.approx(single.high - single.low, abs=1.0)


def test_unjudged_pairs_leave_each_seed_its_own_rate():
    mean = combine([annotations([2.0, None]), annotations([1.0, 2.0])])
    assert mean.mean == pytest.approx((100 + 50) / 2)
    assert mean.n == 3


def test_seeds_of_other_instructions_are_refused():
    with pytest.raises(
        ValueError, match="seeds 0 and 1 of a mean differ in 1 of their instructions"
    ):
        combine([annotations([2.0, 1.0]), annotations([2.0])])


def test_seeds_need_a_judged_pair_each():
    with pytest.raises(ValueError, match="without any judged pair"):
        combine([annotations([2.0]), annotations([None])])
    with pytest.raises(ValueError, match="no seeds"):
        combine([])


def test_order_of_rows_does_not_matter_for_pairing():
    first, second = random_annotations(1, 0.3), random_annotations(2, 0.5)
    assert combine([first, second]) == combine([first, second[::-1]])


def test_difference_is_paired_by_instruction():
    """A constant difference has no spread although both win rates have; it is no certainty."""
    low = annotations([1.0, 1.5] * 50)
    high = annotations([1.5, 2.0] * 50)
    result = difference([high, high], [low, low])
    assert (result.mean, result.std) == (50.0, 0.0)
    unseen = exact_bound(100) / 100
    assert result.low == pytest.approx(50 - 100 * unseen)
    assert result.high == pytest.approx(50 + 50 * unseen)
    assert summarise(low).high - summarise(low).low > result.high - result.low
    assert difference([low], [high]).mean == -50.0


@pytest.mark.parametrize("n_none", [0, 4])
@pytest.mark.parametrize("n_up", [5, 6, 11])
@pytest.mark.parametrize("size", [50.0, 100.0])
def test_interval_and_sign_test_agree_on_few_items_that_differ_one_way(size, n_up, n_none):
    """The sign test over all items: those that do not differ count half for either side."""
    scores = np.array([[size] * n_up + [0.0] * n_none])
    up = paired_difference(scores, np.zeros_like(scores))
    n = n_up + n_none
    share = binomtest(n_up + n_none // 2, n).proportion_ci(0.95, "exact")
    assert (up.low > 0) == (share.low > 0.5)
    assert up.high <= 100.0
    down = paired_difference(np.zeros_like(scores), scores)
    assert (down.low, down.high) == pytest.approx((-up.high, -up.low))


def test_a_single_large_loss_among_equal_gains_is_not_cut_short():
    scores = np.array([[50.0] * 10 + [0.0]])
    others = np.array([[0.0] * 10 + [100.0]])
    result = paired_difference(scores, others)
    assert result.low < 0 < result.mean == pytest.approx(400 / 11)


def test_difference_needs_as_many_seeds_on_both_sides():
    with pytest.raises(ValueError, match="2 seeds cannot be paired with a baseline of 1"):
        difference([annotations([1.0])] * 2, [annotations([1.0])])


def test_length_ratio_is_model_over_reference():
    assert length_ratio(annotations([1.0, 2.0], length_1=10, length_2=25)).value == 2.5
    assert length_ratio(annotations([1.0], length_1=0)) is None


def rows_of_lengths(model, reference):
    return [
        row | {"length_1": theirs, "length_2": ours}
        for row, ours, theirs in zip(annotations([1.0] * len(model)), model, reference, strict=True)
    ]


def test_the_interval_of_a_length_ratio_is_that_of_a_plain_bootstrap():
    draw = np.random.default_rng(3)
    model, reference = draw.integers(1, 60, 80), draw.integers(20, 60, 80)
    ratio = length_ratio(rows_of_lengths(model.tolist(), reference.tolist()))
    places = draw.integers(80, size=(3000, 80))
    rounds = model[places].sum(axis=1) / reference[places].sum(axis=1)
    assert ratio.value == pytest.approx(model.sum() / reference.sum())
    assert [ratio.low, ratio.high] == pytest.approx(np.percentile(rounds, [2.5, 97.5]), abs=0.02)


def test_lengths_of_several_seeds_are_drawn_by_instruction():
    """Two seeds that write alike tell no more of the instructions than one of them."""
    one = rows_of_lengths([5, 10, 30, 20], [10, 10, 10, 10])
    assert length_ratio(one + one) == length_ratio(one)
    proportional = length_ratio(rows_of_lengths([20, 40, 2], [10, 20, 1]))
    assert (proportional.low, proportional.high) == (2.0, 2.0)


def test_a_mean_over_seeds_takes_any_score_and_gaps():
    scores = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, 5.0]])
    mean = mean_over_seeds(scores)
    assert (mean.mean, mean.n, mean.n_seeds) == (pytest.approx((1.5 + 4.0) / 2), 4, 2)
    assert mean.std == pytest.approx(np.std([1.5, 4.0], ddof=1))
    assert mean.low < mean.mean < mean.high
    with pytest.raises(ValueError, match="without any judged pair"):
        mean_over_seeds(np.array([[1.0], [np.nan]]))


def test_the_mean_of_one_number_a_seed_has_student_s_interval():
    mean = mean_of_numbers([40.0, 44.0])
    # The 97.5 % quantile of t with one degree of freedom is 12.706.
    reach = 12.706 * math.sqrt(8) / math.sqrt(2)
    assert (mean.mean, mean.std) == (42.0, pytest.approx(math.sqrt(8)))
    assert [mean.low, mean.high] == pytest.approx([42 - reach, 42 + reach], abs=0.01)
    assert mean_of_numbers([40.0]) is None
    assert mean_of_numbers([7.0, 7.0, 7.0]).low == 7.0


def test_differences_that_hardly_any_instruction_shows_are_no_certainty():
    alike = difference([annotations([1.5] * 200)], [annotations([1.5] * 200)])
    bound = exact_bound(200)
    assert alike.mean == 0.0
    assert [alike.low, alike.high] == pytest.approx([-bound, bound])
    one = difference([annotations([2.0] + [1.5] * 199)], [annotations([1.5] * 200)])
    exact = binomtest(1, 200).proportion_ci(0.95, "exact")
    assert one.mean == 0.25
    # Half a change; one way only, so there is less room below than above.
    assert one.low == pytest.approx(-bound)
    assert one.high == pytest.approx(100 * exact.high)
    whole = difference([annotations([2.0] + [1.0] * 199)], [annotations([1.0] * 200)])
    assert whole.low == pytest.approx(100 * exact.low - bound)
    assert whole.high == pytest.approx(100 * exact.high)


@pytest.mark.parametrize(("n_up", "told"), [(4, False), (5, False), (6, True), (8, True)])
def test_an_interval_excludes_none_only_where_the_sign_test_does(n_up, told):
    """Of 208 instructions a few are won by the one side alone."""
    others = np.zeros((2, 208))
    scores = others.copy()
    scores[:, :n_up] = 100.0
    result = paired_difference(scores, others)
    assert (sign_flip_test(scores - others) <= 0.05) is told
    assert (result.low > 0) is told
    mirrored = paired_difference(others, scores)
    assert [mirrored.low, mirrored.high] == pytest.approx([-result.high, -result.low])


def test_all_changed_one_way_is_no_point():
    lost = paired_difference(np.zeros((3, 20)), np.full((3, 20), 100.0))
    assert (lost.mean, lost.low) == (-100.0, -100.0)
    assert lost.high == pytest.approx(-100 + 200 * exact_bound(20) / 100)


def test_one_model_without_a_seed_is_paired_with_each_seed():
    draw = np.random.default_rng(6)
    scores, other = draw.choice([0.0, 100.0], (3, 50)), draw.choice([0.0, 100.0], (1, 50))
    assert paired_difference(scores, other) == paired_difference(
        scores, np.repeat(other, 3, axis=0)
    )


def test_gaps_count_neither_as_alike_nor_as_other():
    scores = np.array([[0.0] * 40 + [np.nan] * 10])
    mean = mean_score(scores)
    assert (mean.n, mean.low) == (40, 0.0)
    assert mean.high == pytest.approx(exact_bound(40))


# --- tests --------------------------------------------------------------------------------------


def test_a_p_value_is_that_of_all_signs():
    """Four wins and nothing else: 2 of the 16 sets of signs are as extreme."""
    assert paired_test([annotations([2.0] * 4)]) == pytest.approx(2 / 16)
    assert paired_test([annotations([2.0, 2.0, 2.0, 1.0])]) == pytest.approx(10 / 16)
    assert paired_test([annotations([2.0, 1.5, 1.5])]) == 1.0


def test_only_draws_are_no_evidence_at_all():
    assert paired_test([annotations([1.5] * 30)]) == 1.0
    same = random_annotations(1, 0.3)
    assert paired_test([same], [same]) == 1.0


def test_the_test_is_paired_with_its_baseline_by_instruction():
    """Each instruction is half a win better than the baseline's, at very different levels."""
    low, high = annotations([1.0, 1.5] * 20), annotations([1.5, 2.0] * 20)
    assert paired_test([high], [low]) < 0.001
    assert paired_test([high[::-1]], [low]) == paired_test([high], [low])
    with pytest.raises(ValueError, match="2 seeds cannot be paired with a baseline of 1"):
        paired_test([low, low], [high])


def test_seeds_that_repeat_each_other_add_no_evidence_and_gaps_are_left_out():
    seed = random_annotations(2, 0.42)
    assert paired_test([seed] * 3) == paired_test([seed])
    gap = [*seed, {**seed[0], "instruction_sha256": "unjudged", "preference": None}]
    assert paired_test([gap]) == paired_test([seed])


def test_p_values_are_small_as_often_as_they_say(monkeypatch):
    """Where run and reference are alike, one test in twenty is below 5 %; 300 repetitions."""
    monkeypatch.setattr("implicit_tuning.analysis.statistics.RESAMPLES", 399)
    p_values = [paired_test([random_annotations(seed, 0.5, count=60)]) for seed in range(300)]
    assert 0.01 < np.mean(np.array(p_values) <= 0.05) < 0.09


def test_holm_s_correction_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.001, 0.9]) == pytest.approx([1.0, 0.003, 1.0])
    assert holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([]) == []


def scores_of(seeds):
    return np.array([[100 * (row["preference"] - 1) for row in seed] for seed in seeds])


def plain_interval(matrix, rounds=3000):
    """The hierarchical bootstrap as a loop: seeds, and instructions in common, with replacement."""
    draw = np.random.default_rng(7)
    n_seeds, n_instructions = matrix.shape
    means = []
    for _ in range(rounds):
        seeds = [draw.integers(n_seeds) for _ in range(n_seeds)]
        instructions = draw.integers(n_instructions, size=n_instructions)
        means.append(np.mean([matrix[seed, instructions].mean() for seed in seeds]))
    return np.percentile(means, [2.5, 97.5])


def test_intervals_are_those_of_a_plain_bootstrap():
    seeds = [random_annotations(seed, 0.2 + 0.1 * seed, count=80) for seed in (1, 2, 3)]
    baseline = [random_annotations(seed + 10, 0.5, count=80) for seed in (1, 2, 3)]
    results = [
        (summarise(seeds[0]), scores_of(seeds[:1])),
        (combine(seeds), scores_of(seeds)),
        (difference(seeds, baseline), scores_of(seeds) - scores_of(baseline)),
        (difference(seeds[:1], baseline[:1]), scores_of(seeds[:1]) - scores_of(baseline[:1])),
    ]
    for result, matrix in results:
        # The ends of a percentile interval over 3,000 rounds are known to about half a point.
        assert [result.low, result.high] == pytest.approx(plain_interval(matrix), abs=1.5)


def chance_annotations(draw, rates):
    return annotations([2.0 if won else 1.0 for won in draw.random(len(rates)) < rates])


@pytest.mark.parametrize(
    ("n_seeds", "seed_deviation", "lowest"), [(1, 0.0, 0.9), (5, 0.0, 0.93), (5, 0.05, 0.9)]
)
def test_intervals_cover_the_true_rate(monkeypatch, n_seeds, seed_deviation, lowest):
    """True rate 40 %: instructions differ in difficulty, seeds in luck; 200 repetitions.

    With several seeds that do not differ the interval is wider than it had to be.
    """
    monkeypatch.setattr("implicit_tuning.analysis.statistics.RESAMPLES", 399)
    draw, covered, repetitions = np.random.default_rng(11), 0, 200
    for _ in range(repetitions):
        difficulty = draw.normal(0, 0.15, 100)
        seeds = [
            chance_annotations(draw, np.clip(0.4 + luck + difficulty, 0, 1))
            for luck in draw.normal(0, seed_deviation, n_seeds)
        ]
        result = combine(seeds)
        covered += result.low <= 40 <= result.high
    assert covered / repetitions >= lowest
    assert result.high - result.low < 30


def test_the_interval_of_a_difference_covers_it_and_pairing_narrows_it(monkeypatch):
    monkeypatch.setattr("implicit_tuning.analysis.statistics.RESAMPLES", 399)
    draw, covered, repetitions = np.random.default_rng(13), 0, 200
    for _ in range(repetitions):
        difficulty = draw.choice([-0.35, 0.35], 100)
        better = chance_annotations(draw, 0.55 + difficulty)
        worse = chance_annotations(draw, 0.45 + difficulty)
        result = difference([better], [worse])
        covered += result.low <= 10 <= result.high
    assert 0.9 <= covered / repetitions
    unpaired = sum((rate.high - rate.low) ** 2 for rate in map(summarise, (better, worse))) ** 0.5
    assert result.high - result.low < unpaired
