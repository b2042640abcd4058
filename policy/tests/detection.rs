//! The law of detection against audits that are really played, and against its closed form.

use std::time::Duration;

use commonhold_policy::{
    audit::{
        Answer,
        containment::{Action, Containment, Event},
        deadline::deadline_ms,
        detection::{DetectionParams, contained_ms, detection_chance, first_audit_delay, silent_ms},
        schedule::{self, Rate, Schedule},
    },
    detection_delay,
};
use commonhold_protocol::{NodeId, SegmentId, ShardIndex, Timestamp, shard_stream::GROUP_BYTES};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const HOLDER: NodeId = NodeId::from_bytes([9; 32]);

fn segment(number: u64) -> SegmentId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    SegmentId::from_bytes(bytes)
}

/// How long an answer is waited for at most.
const WAITED_MS_MAX: u64 = 60_000;

/// What a holder does when it is asked for what it lost.
#[derive(Clone, Copy, PartialEq)]
enum Holder {
    IsWrong,
    /// It answers all the rest.
    LeavesOut,
    IsSilent,
}

/// Plays audits of a holder that, at a random moment, lost the first groups of each shard: schedules of stewards that
/// all know all of its shards, and one containment for each.
fn play(rng: &mut ChaCha8Rng, params: &DetectionParams, holder: Holder) -> u64 {
    let rate = params.rate;
    let schedules: Vec<Schedule> = (0..params.stewards).map(|_| Schedule::new(rng.random(), rate)).collect();
    let lost_at = Timestamp(rng.random_range(0..rate.epoch_ms()));
    let lost_groups = (params.lost * f64::from(params.shard_groups)).round() as u32;
    let mut first: Option<u64> = None;
    for epoch in 0.. {
        for schedule in &schedules {
            let moment = schedule.moment(&HOLDER, epoch);
            if moment < lost_at {
                continue;
            }
            let mut machine = Containment::new(rate);
            let mut due = Vec::new();
            for number in (0..params.shards).filter(|number| schedule.is_due(&segment(*number), params.stewards, epoch))
            {
                let bytes = u64::from(params.shard_groups) * GROUP_BYTES;
                due.extend(schedule::samples(rng, segment(number), ShardIndex(0), bytes, params.groups_asked));
            }
            let mut now = moment;
            let mut actions = machine.handle(now, Event::Due(due));
            while !actions.is_empty() {
                if actions.contains(&Action::Review) {
                    let delay = now.ms_since(lost_at);
                    first = Some(first.map_or(delay, |first| first.min(delay)));
                    break;
                }
                let event = match actions.last() {
                    Some(Action::Ask { samples, asked_before }) => {
                        let answer = |lost: bool| match (lost, holder) {
                            (false, _) => Answer::Held,
                            (true, Holder::IsWrong) => Answer::Wrong,
                            (true, Holder::LeavesOut | Holder::IsSilent) => Answer::Missing,
                        };
                        let lost = samples.iter().map(|sample| sample.groups.iter().any(|group| *group < lost_groups));
                        let answers: Vec<Answer> = lost.map(answer).collect();
                        if holder == Holder::IsSilent && answers.contains(&Answer::Missing) {
                            now = now.after_ms(deadline_ms(0, 0, *asked_before).min(WAITED_MS_MAX));
                            Event::Unanswered { connected: true }
                        } else {
                            Event::Answered(answers)
                        }
                    }
                    Some(Action::Timer { at }) => {
                        now = *at;
                        Event::Timer
                    }
                    _ => break,
                };
                actions = machine.handle(now, event);
            }
        }
        // With silence, one found later in this epoch may still be judged earlier in the next, but never before one
        // that was met before: the wait is the same for all.
        if let Some(first) = first {
            return first;
        }
    }
    unreachable!("epochs do not end")
}

/// The largest distance between the two distributions (Kolmogorov and Smirnov).
fn distance(mut a: Vec<u64>, mut b: Vec<u64>) -> f64 {
    a.sort_unstable();
    b.sort_unstable();
    let (mut i, mut j, mut largest) = (0, 0, 0.0f64);
    while i < a.len() && j < b.len() {
        let value = a[i].min(b[j]);
        i += a[i..].partition_point(|other| *other <= value);
        j += b[j..].partition_point(|other| *other <= value);
        largest = largest.max((i as f64 / a.len() as f64 - j as f64 / b.len() as f64).abs());
    }
    largest
}

fn agree(params: DetectionParams, holder: Holder, draws: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(20_260_101);
    let played: Vec<u64> = (0..draws).map(|_| play(&mut rng, &params, holder)).collect();
    let drawn: Vec<u64> =
        (0..draws).map(|_| detection_delay(&mut rng, &params).expect("something is lost").as_millis() as u64).collect();
    // Level 0.001, two samples of one size.
    let critical = 1.9495 * (2.0 / draws as f64).sqrt();
    let apart = distance(played, drawn);
    assert!(apart < critical, "{apart:.5} apart, {critical:.5} allowed: {params:?}");
}

fn small() -> DetectionParams {
    DetectionParams {
        rate: Rate::default(),
        stewards: 8,
        shards: 24,
        auditors: 8,
        groups_asked: 2,
        shard_groups: 64,
        lost: 3.0 / 64.0,
        contained_ms: 0,
    }
}

#[test]
fn the_law_is_that_of_played_audits() {
    agree(small(), Holder::IsWrong, 100_000);
}

#[test]
fn the_law_is_that_of_played_audits_for_few_stewards_and_for_all_groups() {
    agree(
        DetectionParams { stewards: 2, auditors: 2, groups_asked: 64, shards: 3, ..small() },
        Holder::IsWrong,
        10_000,
    );
}

#[test]
fn the_law_is_that_of_played_audits_where_the_holder_leaves_out_what_it_lost() {
    let rate = Rate { every_ms: 60_000 };
    agree(DetectionParams { rate, contained_ms: contained_ms(rate), ..small() }, Holder::LeavesOut, 10_000);
}

/// Where a repetition waits for the deadline, and where it waits for longer.
#[test]
fn the_law_is_that_of_played_audits_where_the_holder_is_silent() {
    for (rate, contained) in [(Rate { every_ms: 60_000 }, 102_000), (Rate::default(), 105 * 60 * 1000 + 60_000)] {
        let contained_ms = silent_ms(rate, 0, 0, WAITED_MS_MAX);
        assert_eq!(contained_ms, contained);
        agree(DetectionParams { rate, contained_ms, ..small() }, Holder::IsSilent, 10_000);
    }
}

#[test]
fn a_new_claim_is_audited_in_half_an_epoch_an_hour_and_a_quarter_of_the_time_to_prove_itself() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let hour_ms = 60 * 60 * 1000;
    let (weekly, often) = (Rate::default(), Rate { every_ms: 7_000 });
    for (rate, prove_ms, latest_ms) in
        [(often, hour_ms, 500), (weekly, 24 * hour_ms, hour_ms), (weekly, hour_ms, hour_ms / 4), (weekly, 0, 1)]
    {
        for auditors in [1, 7] {
            let mut delays: Vec<Duration> =
                (0..1_000).map(|_| first_audit_delay(&mut rng, rate, prove_ms, auditors)).collect();
            delays.sort_unstable();
            let (earliest, latest) = (Duration::from_millis((latest_ms / 4).max(1)), Duration::from_millis(latest_ms));
            assert!(delays[0] >= earliest && delays[999] <= latest, "{delays:?}");
            let first_of_several = auditors > 1 && latest_ms > 1;
            assert!(!first_of_several || delays[500] < (earliest + latest) / 2);
        }
    }
}

/// The test itself must be able to fail: a loss that is a half larger is told apart.
#[test]
fn another_loss_follows_another_law() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut draw = |params: &DetectionParams| -> Vec<u64> {
        (0..10_000).filter_map(|_| Some(detection_delay(&mut rng, params)?.as_millis() as u64)).collect()
    };
    let (a, b) = (draw(&small()), draw(&DetectionParams { lost: 4.0 / 64.0, ..small() }));
    assert!(distance(a, b) > 1.9495 * (2.0f64 / 10_000.0).sqrt());
}

#[test]
fn nothing_lost_is_never_found_and_all_lost_at_the_next_audit() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    assert_eq!(detection_delay(&mut rng, &DetectionParams { lost: 0.0, ..small() }), None);
    let params = DetectionParams { lost: 1.0, shards: 100_000, ..small() };
    for _ in 0..1_000 {
        // Each of eight stewards meets it in each epoch, and each time finds something.
        assert!(detection_delay(&mut rng, &params) < Some(Duration::from_millis(2 * params.rate.epoch_ms())));
    }
}

/// The table in the research notes, to its printed digits.
#[test]
fn the_closed_form() {
    for (lost, groups, chance) in [(0.01, 100, 0.634), (0.01, 300, 0.951), (0.01, 460, 0.990)] {
        assert!((detection_chance(lost, groups) - chance).abs() < 0.000_5);
    }
    for (lost, groups) in [(0.001, 4_603), (0.01, 459), (0.05, 90), (0.1, 44), (0.5, 7)] {
        assert!(detection_chance(lost, groups) >= 0.99 && detection_chance(lost, groups - 1) < 0.99);
    }
    assert_eq!((detection_chance(0.0, 100), detection_chance(1.0, 1)), (0.0, 1.0));
}
