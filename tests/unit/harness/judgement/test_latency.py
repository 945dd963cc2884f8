import pytest

from driftloop.harness.judgement.latency import ArmLatency, summarize
from driftloop.harness.records.observation import Conditions, Observation, TotalTime

from ..run_factory import fault, observation, observations, timings

ARM = "phone:q8_0+app"
SIZES = dict.fromkeys(range(8), 3)


def summary(seen: list[Observation]) -> ArmLatency:
    (latency,) = summarize(seen, SIZES)
    return latency


def test_stages_sum_over_tiles_and_steps() -> None:
    stages = summary(observations(ARM, phone="A")).stages
    assert list(stages) == ["image_decode", "tokenize", "encode", "prefill", "decode", "total"]
    assert stages["encode"].median_ms == 500.0
    assert stages["decode"].median_ms == 20.0


def test_median_90th_percentile_and_interquartile_range() -> None:
    seen = [observation(ARM, i, "A", timings_ms=timings(100.0 * (i + 1))) for i in range(11)]
    total = summary(seen).stages["total"]
    assert (total.n, total.median_ms, total.p90_ms, total.iqr_ms) == (11, 600.0, 1000.0, 500.0)


@pytest.mark.parametrize(("decode", "rate"), [((20.0, 30.0), pytest.approx(40.0)), ((), None)])
def test_tokens_a_second_are_steps_over_decode_time(
    decode: tuple[float, ...], rate: float | None
) -> None:
    seen = [observation(ARM, 0, "A", timings_ms=timings(decode=decode))]
    assert summary(seen).tokens_per_s == rate


def test_a_session_is_the_sum_of_its_images() -> None:
    latency = summary(observations(ARM, phone="A"))
    assert latency.session is not None
    assert (latency.session.n, latency.session.median_ms) == (8, 6000.0)
    assert latency.sessions_ms == (6000.0,) * 8


def test_an_image_timed_as_a_whole_counts_for_its_session() -> None:
    seen = [observation("app", i, timings_ms=TotalTime(total=700.0)) for i in range(24)]
    latency = summary([Observation.model_validate_json(one.model_dump_json()) for one in seen])
    assert (list(latency.stages), latency.tokens_per_s) == (["total"], None)
    assert latency.sessions_ms == (2100.0,) * 8


def test_throttled_images_are_counted_and_left_out_with_their_session() -> None:
    seen = observations(ARM, phone="A")
    hot = Conditions(throttled=True)
    seen[4] = observation(ARM, 4, "A", timings_ms=timings(90000.0), conditions=hot)
    latency = summary(seen)
    assert (latency.images, latency.throttled) == (23, 1)
    assert latency.stages["total"].p90_ms == 2000.0
    assert latency.session is not None
    assert latency.session.n == 7


@pytest.mark.parametrize(
    "other", [Conditions(load_ms=2.0), Conditions(boot_id="b"), Conditions(cached=True)]
)
def test_a_session_that_another_process_finished_is_counted_and_left_out(
    other: Conditions,
) -> None:
    seen = observations(ARM, phone="A")
    seen[5:] = [observation(ARM, index, "A", conditions=other) for index in range(5, 24)]
    latency = summary(seen)
    assert (latency.images, latency.interrupted, len(latency.sessions_ms)) == (24, 1, 7)


def test_images_without_an_answer_or_times_are_left_out() -> None:
    seen = observations(ARM, phone="A")
    seen[0] = observation(ARM, 0, "A", error=fault())
    seen[1] = observation(ARM, 1, "A", timings_ms=None)
    latency = summary(seen)
    assert (latency.images, latency.unanswered) == (22, 2)


def test_peak_memory_and_loads_stand_apart() -> None:
    loads = [100.0, 100.0, 100.0, 300.0, 300.0, 300.0]
    seen = [
        observation(ARM, i, "A", conditions=Conditions(memory_peak_kib=1000 + i, load_ms=load))
        for i, load in enumerate(loads)
    ]
    latency = summary(seen)
    assert latency.memory_peak_kib == 1005
    assert latency.load_ms is not None
    assert (latency.load_ms.n, latency.load_ms.median_ms) == (2, 200.0)


def test_phones_have_their_own_summaries_and_cached_times_are_counted() -> None:
    cached = observations("torch", 3, conditions=Conditions(cached=True))
    seen = observations(ARM, 3, "A") + observations(ARM, 3, "B") + cached
    found = [(latency.arm, latency.phone, latency.cached) for latency in summarize(seen, SIZES)]
    assert found == [(ARM, "A", 0), (ARM, "B", 0), ("torch", None, 3)]


def test_an_arm_that_answered_nothing_has_no_times() -> None:
    latency = summary([observation(ARM, 0, "A", error=fault(), timings_ms=None)])
    assert (latency.images, latency.stages, latency.session) == (0, {}, None)
