"""The simulated world holds what its formulas and knobs promise: statistics of its logs against its own truth."""

import dataclasses

import numpy as np
import pytest

from mmoe_ranker.errors import InputError
from mmoe_ranker.simulation import DEVICES, EVENT_NAMES, World, WorldConfig, simulate
from mmoe_ranker.simulation.logs import SimulatedLogs
from mmoe_ranker.simulation.requests import draw_requests

# Two-sided, for the 60 cells of position and device: one false alarm in 1,700 fixed seeds.
Z_OF_ONE_CELL = 4.5


@pytest.fixture(scope="module")
def random_logs() -> SimulatedLogs:
    return simulate(12_000, seed=5, world=WorldConfig(random_share=1.0))


@pytest.fixture(scope="module")
def logs() -> SimulatedLogs:
    return simulate(8_000, seed=3)


def happened(logs: SimulatedLogs, event: str) -> np.ndarray:
    """[B, P] whether the impression has the event."""
    grid = np.zeros(logs.shown.shape, dtype=bool)
    of_kind = logs.events.kind == EVENT_NAMES.index(event)
    grid[logs.events.request[of_kind], logs.events.slot[of_kind]] = True
    return grid


def values(logs: SimulatedLogs, event: str) -> np.ndarray:
    """[B, P] the event's value, NaN where there is none."""
    grid = np.full(logs.shown.shape, np.nan)
    of_kind = logs.events.kind == EVENT_NAMES.index(event)
    grid[logs.events.request[of_kind], logs.events.slot[of_kind]] = logs.events.value[of_kind]
    return grid


def z_score(observed: np.ndarray, probability: np.ndarray) -> float:
    """Of a sum of independent Bernoulli draws against its expectation."""
    return float((observed.sum() - probability.sum()) / np.sqrt((probability * (1 - probability)).sum()))


def mean_rank_correlation(logs: SimulatedLogs) -> float:
    """Mean over requests of Spearman's rho between true relevance and height in the list."""
    ranks = np.argsort(np.argsort(logs.preferences.relevance, axis=1), axis=1).astype(float)
    height = -np.arange(logs.shown.shape[1], dtype=float)
    centred, height = ranks - ranks.mean(axis=1, keepdims=True), height - height.mean()
    return float(np.mean(centred @ height / np.sqrt((centred**2).sum(axis=1) * (height**2).sum())))


def test_relevance_is_the_formula_of_the_latent_truth():
    world = World(WorldConfig(), seed=2)
    user, video = np.array([3, 8]), np.array([[1, 5, 9], [2, 5, 7]])
    pairs = np.random.default_rng(0)
    some_users, some_videos = pairs.integers(2000, size=(2, 40_000))
    taste, factors = world.users.taste, world.videos.factors
    spread = np.array([taste[u] @ factors[v] for u, v in zip(some_users, some_videos, strict=True)])
    for row, u in enumerate(user):
        for column, v in enumerate(video[row]):
            match = (taste[u] @ factors[v] - spread.mean()) / spread.std()
            logit = -1.7 + match + 0.8 * world.videos.clickbait[v] + 0.5 * world.videos.quality[v]
            assert world.relevance(user, video)[row, column] == pytest.approx(1 / (1 + np.exp(-logit)), abs=0.02)


def test_click_rate_in_random_order_gives_back_the_examination_curves(random_logs):
    """In random order relevance does not depend on position, so CTR(p) / CTR(1) is examination(p) / examination(1)."""
    clicked = happened(random_logs, "click")
    positions = np.arange(1, 21)
    for device in range(len(DEVICES)):
        rows = clicked[random_logs.device == device]
        rate = rows.mean(axis=0)
        truth = random_logs.world.examination(device, positions)
        # Delta method on the log of a ratio of two rates.
        error = np.sqrt((1 - rate) / (rate * len(rows)) + (1 - rate[0]) / (rate[0] * len(rows)))
        z = (np.log(rate / rate[0]) - np.log(truth / truth[0])) / error
        assert np.abs(z[1:]).max() < Z_OF_ONE_CELL
        # The curve is seen, not lost in noise: the last position is far below the first one.
        assert (np.log(rate[-1] / rate[0]) / error[-1]) < -10


def test_clicks_are_examination_times_relevance_in_every_cell(logs):
    clicked, probability = happened(logs, "click"), logs.preferences.relevance * logs.examination
    z = [
        z_score(clicked[logs.device == device, place], probability[logs.device == device, place])
        for device in range(len(DEVICES))
        for place in range(20)
    ]
    assert np.max(np.abs(z)) < Z_OF_ONE_CELL
    assert 0.7 < np.std(z) < 1.3


def test_each_device_has_a_strictly_falling_curve_of_its_own():
    world = World(WorldConfig(), seed=1)
    curves = np.array([world.examination(device, np.arange(1, 21)) for device in range(3)])
    assert (np.diff(curves, axis=1) < 0).all()
    assert curves.max() < 1
    assert curves.min() > 0
    shapes = np.log(curves / curves[:, :1])
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(shapes[one] - shapes[other]).max() > 0.3


def test_what_follows_a_click_follows_its_probability(logs):
    clicked = happened(logs, "click")
    truth = logs.preferences
    assert abs(z_score(happened(logs, "like")[clicked], truth.like_probability[clicked])) < 4
    watched = values(logs, "watch")
    assert np.array_equal(~np.isnan(watched), clicked)
    excess = watched[clicked] - truth.expected_watch[clicked]
    assert abs(excess.mean() / (excess.std() / np.sqrt(clicked.sum()))) < 4
    assert (watched[clicked] <= logs.world.videos.duration[logs.shown][clicked]).all()
    assert not (happened(logs, "like") & ~clicked).any()
    assert not (happened(logs, "rating") & ~clicked).any()
    rating = values(logs, "rating")
    assert set(np.unique(rating[~np.isnan(rating)])) == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_dismissals_follow_their_probability_where_nothing_was_liked(logs):
    dismissed, liked = happened(logs, "dismiss"), happened(logs, "like")
    assert not (dismissed & liked).any()
    truth = logs.preferences
    not_liked = 1 - truth.relevance * truth.like_probability  # given examination
    expected = logs.examination * not_liked * truth.dismiss_probability
    assert abs(z_score(dismissed, expected)) < 4


def test_rates_are_plausible(logs):
    num_clicks = happened(logs, "click").sum()
    assert 0.10 < num_clicks / logs.shown.size < 0.16
    assert 0.02 < happened(logs, "like").sum() / num_clicks < 0.10
    assert 0.08 < happened(logs, "rating").sum() / num_clicks < 0.12
    assert 0.004 < happened(logs, "dismiss").mean() < 0.015
    assert 0.04 < logs.random_order.mean() < 0.06


def test_objectives_conflict_over_clickbait(random_logs):
    clickbait = random_logs.world.videos.clickbait[random_logs.shown]
    clicked, rating = happened(random_logs, "click"), values(random_logs, "rating")

    def z_of_correlation(event: np.ndarray, among: np.ndarray) -> float:
        return float(np.corrcoef(clickbait[among], event[among])[0, 1] * np.sqrt(among.sum()))

    everywhere = np.ones_like(clicked)
    assert z_of_correlation(clicked, everywhere) > 10
    assert z_of_correlation(happened(random_logs, "dismiss"), everywhere) > 10
    assert z_of_correlation(happened(random_logs, "like"), clicked) < -10
    share = values(random_logs, "watch") / random_logs.world.videos.duration[random_logs.shown]
    assert z_of_correlation(share, clicked) < -10
    assert z_of_correlation(rating, ~np.isnan(rating)) < -10


def test_alignment_raises_the_rank_correlation_of_height_and_relevance():
    correlations = [
        mean_rank_correlation(
            simulate(1000, seed=4, world=WorldConfig(alignment=alignment, agenda=0.0, random_share=0))
        )
        for alignment in (0.0, 0.3, 1.0, 3.0)
    ]
    assert abs(correlations[0]) < 0.03
    assert (np.diff(correlations) > 0.05).all()


def test_agenda_puts_its_videos_higher_and_the_random_share_does_not():
    height = []
    for agenda in (0.0, 0.5, 2.0):
        world = WorldConfig(alignment=0.0, agenda=agenda, random_share=0.3)
        logs = simulate(1500, seed=4, world=world)
        boosted = logs.world.videos.boost[logs.shown] > 0
        height.append(boosted[~logs.random_order, :5].mean())
        base = (logs.world.videos.boost > 0).mean()
        assert abs(boosted[logs.random_order].mean() - base) < 0.06
    assert height[0] == pytest.approx(0.2, abs=0.06)
    assert height[0] + 0.1 < height[1] < height[2] - 0.1


def test_users_do_not_care_for_the_agenda():
    videos = World(WorldConfig(num_videos=20_000), seed=1).videos
    appeal = 0.8 * videos.clickbait + 0.5 * videos.quality
    boosted = videos.boost > 0
    gap = appeal[boosted].mean() - appeal[~boosted].mean()
    assert abs(gap) < 4 * np.sqrt(appeal.var() * (1 / boosted.sum() + 1 / (~boosted).sum()))


def test_knobs_of_the_logging_ranker_leave_world_and_requests_alone():
    one = simulate(300, seed=9)
    other = simulate(300, seed=9, world=WorldConfig(alignment=1.0, agenda=0.0, noise=0.1, random_share=0.5))
    for name in ("timestamp", "user", "device"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    for kind in ("users", "videos"):
        for field in dataclasses.fields(getattr(one.world, kind)):
            assert np.array_equal(
                getattr(getattr(one.world, kind), field.name), getattr(getattr(other.world, kind), field.name)
            )
    assert not np.array_equal(one.shown, other.shown)


def test_lists_hold_each_video_once_and_none_before_its_upload(logs):
    assert all(len(set(row)) == 20 for row in logs.shown.tolist())
    assert (logs.world.videos.upload_timestamp[logs.shown] <= logs.timestamp[:, None]).all()
    new = logs.world.videos.upload_timestamp > logs.timestamp[0]
    assert new[logs.shown].any()


def test_smallest_catalogue_still_fills_every_list():
    config = WorldConfig(num_users=5, num_videos=46, candidates=40, new_video_share=0.1)
    logs = simulate(500, seed=1, world=config)
    assert all(len(set(row)) == 20 for row in logs.shown.tolist())
    assert (logs.world.videos.upload_timestamp[logs.shown] <= logs.timestamp[:, None]).all()


def test_candidates_are_eligible_once():
    world = World(WorldConfig(), seed=1)
    requests = draw_requests(world, 50, np.random.default_rng(0))
    for candidates, eligible, timestamp in zip(requests.candidates, requests.eligible, requests.timestamp, strict=True):
        uploaded = [v for v in candidates if world.videos.upload_timestamp[v] <= timestamp]
        assert sorted(candidates[eligible]) == sorted(set(uploaded))


def test_any_list_can_be_answered_and_luck_is_shared():
    world = World(WorldConfig(), seed=1)
    users = np.repeat(np.arange(2000), 5)
    device = np.zeros(10_000, dtype=int)
    by_relevance = np.argsort(-world.relevance(np.arange(2000), np.tile(np.arange(200), (2000, 1))), axis=1)[:, :10]
    best, worst = np.repeat(by_relevance, 5, axis=0), np.tile(np.arange(1990, 2000), (10_000, 1))
    answers = [world.respond(users, shown, device, np.random.default_rng(7)) for shown in (best, worst)]
    assert np.array_equal(answers[0].examined, answers[1].examined)
    assert not (answers[0].clicked & ~answers[0].examined).any()
    assert answers[0].clicked.mean() > 2 * answers[1].clicked.mean()


@pytest.mark.parametrize("position", [0, 21])
def test_examination_of_a_position_that_does_not_exist(position):
    with pytest.raises(InputError, match=rf"`position` must be from 1 to 20 .*Received: {position}\."):
        World(WorldConfig(), seed=1).examination(0, position)


@pytest.mark.parametrize(
    ("knob", "value", "allowed"),
    [
        ("num_users", 0, "an integer of at least 1"),
        ("num_videos", 100, "an integer of at least 107"),
        ("num_factors", 2.5, "an integer of at least 1"),
        ("content_size", True, "an integer of at least 1"),
        ("content_noise", -0.1, "a finite number of at least 0"),
        ("positions", 1, "an integer from 2 to 100"),
        ("candidates", 39, "an integer of at least 40, twice `positions`"),
        ("history_length", 0, "an integer of at least 1"),
        ("days", -1, "an integer of at least 1"),
        ("new_video_share", 0.6, "a number from 0 to 0.5"),
        ("alignment", -1.0, "a finite number of at least 0"),
        ("agenda", float("nan"), "a finite number of at least 0"),
        ("noise", float("inf"), "a finite number of at least 0"),
        ("agenda_share", 1.01, "a number from 0 to 1"),
        ("random_share", "some", "a number from 0 to 1"),
    ],
)
def test_knob_out_of_range(knob, value, allowed):
    with pytest.raises(InputError) as error:
        WorldConfig(**{knob: value})
    sentence = str(error.value)
    assert sentence.startswith(f"`{knob}` of the simulated world must be {allowed}")
    assert sentence.endswith(f"Received: {value!r}.")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_requests": 0}, "`num_requests` must be an integer of at least 1. Received: 0."),
        ({"num_requests": 2.0}, "`num_requests` must be an integer of at least 1. Received: 2.0."),
        ({"seed": -1}, "`seed` must be an integer of at least 0. Received: -1."),
    ],
)
def test_simulate_refuses(arguments, sentence):
    with pytest.raises(InputError) as error:
        simulate(**arguments)
    assert str(error.value) == sentence
