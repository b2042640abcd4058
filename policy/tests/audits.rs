//! Audits: each shard as often as promised, no cheat that escapes by silence, nobody blamed for being away.

use std::collections::{BTreeMap, BTreeSet};

use commonhold_policy::{
    audit::{
        Answer, CHALLENGE_MAX, Outcome, Sample,
        containment::{Action, Containment, Event, FAILED_MAX, REPEATS_MAX},
        schedule::{self, GROUPS_PER_DAY_MIN, Rate, Schedule},
    },
    reputation::{DISQUALIFIED_BELOW, Reputation, Trust, VETTING_AUDITS, VETTING_MS},
};
use commonhold_protocol::{NodeId, SegmentId, ShardIndex, Timestamp, ask::Refusal};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn segment(number: u32) -> SegmentId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    SegmentId::from_bytes(bytes)
}

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

fn sample(number: u32) -> Sample {
    Sample { segment: segment(number), index: ShardIndex(0), groups: vec![number % 64] }
}

fn verdicts(actions: &[Action]) -> Vec<(SegmentId, Outcome)> {
    let verdict = |action: &Action| match action {
        Action::Verdict { segment, outcome, .. } => Some((*segment, *outcome)),
        _ => None,
    };
    actions.iter().filter_map(verdict).collect()
}

fn asked(actions: &[Action]) -> Option<&[Sample]> {
    actions.iter().find_map(|action| match action {
        Action::Ask { samples, .. } => Some(samples.as_slice()),
        _ => None,
    })
}

fn timer(actions: &[Action]) -> Timestamp {
    let timer = actions.iter().rev().find_map(|action| match action {
        Action::Timer { at } => Some(*at),
        _ => None,
    });
    timer.expect("a timer was asked for")
}

/// The mean over many segments and epochs, with the eight stewards together: 7 days, whatever `every` is.
#[test]
fn a_shard_is_audited_once_in_the_time_that_was_set_by_all_stewards_together() {
    for (every_ms, stewards) in [(7 * DAY_MS, 8), (7 * DAY_MS, 3), (20_000, 8), (4_000, 8)] {
        let rate = Rate { every_ms };
        let schedules: Vec<Schedule> = (0..stewards).map(|seed| Schedule::new([seed as u8; 32], rate)).collect();
        let (segments, epochs) = (100, 200);
        let mut audits = 0u32;
        for number in 0..segments {
            for epoch in 0..epochs {
                let due = schedules.iter().filter(|schedule| schedule.is_due(&segment(number), stewards, epoch));
                audits += due.count() as u32;
            }
        }
        let expected = f64::from(segments) * epochs as f64 * rate.epoch_ms() as f64 / every_ms as f64;
        // Binomial, so four standard deviations are less than four square roots of the mean.
        let off = (f64::from(audits) - expected).abs();
        assert!(off < 4.0 * expected.sqrt(), "{audits} audits, {expected} expected, every {every_ms} ms");
    }
}

#[test]
fn who_says_that_it_gave_a_shard_up_is_neither_blamed_nor_asked_again() {
    let mut holder = Containment::new(Rate::default());
    let asked_for = vec![sample(0), sample(1), sample(2)];
    assert!(asked(&holder.handle(Timestamp(0), Event::Due(asked_for))).is_some());
    let answers = vec![Answer::Held, Answer::Refused(Refusal::Released), Answer::Held];
    let actions = holder.handle(Timestamp(1), Event::Answered(answers));
    assert_eq!(verdicts(&actions), [(segment(0), Outcome::Held), (segment(2), Outcome::Held)]);
    assert!(actions.contains(&Action::Released { segment: segment(1), index: ShardIndex(0) }), "{actions:?}");
    assert!(!actions.contains(&Action::Review) && holder.is_idle(), "{actions:?}");
}

#[test]
fn holders_are_challenged_at_moments_spread_over_the_epoch() {
    let schedule = Schedule::new([3; 32], Rate::default());
    let epoch = 1_000;
    let mut tenths = [0; 10];
    for number in 0..200u8 {
        let moment = schedule.moment(&node(number), epoch);
        assert_eq!(schedule.epoch(moment), epoch);
        tenths[((moment.0 % DAY_MS) * 10 / DAY_MS) as usize] += 1;
    }
    assert!(tenths.iter().all(|count| (5..40).contains(count)), "{tenths:?}");
}

#[test]
fn holders_of_few_shards_are_asked_for_more_groups_of_each() {
    let rate = Rate::default();
    for shards in [1, 10, 100, 699, 700, 701, 100_000] {
        let per_day = u64::from(rate.groups(shards)) * shards * DAY_MS / rate.every_ms;
        assert!(per_day >= GROUPS_PER_DAY_MIN, "{shards} shards: {per_day} groups a day");
        assert!(shards <= 700 || rate.groups(shards) == 1);
    }
}

proptest! {
    #[test]
    fn samples_are_different_groups_of_the_shard_in_challenges_that_fit(
        seed: u64, shard_bytes in 1..(3u64 << 20), groups in 0..200u32,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let samples = schedule::samples(&mut rng, segment(1), ShardIndex(2), shard_bytes, groups);
        let all = schedule::shard_groups(shard_bytes);
        prop_assert!(samples.iter().all(|sample| (1..=CHALLENGE_MAX).contains(&sample.groups.len())));
        let drawn: Vec<u32> = samples.into_iter().flat_map(|sample| sample.groups).collect();
        prop_assert_eq!(drawn.len() as u32, groups.clamp(1, all));
        prop_assert!(drawn.windows(2).all(|pair| pair[0] < pair[1]) && drawn.iter().all(|group| *group < all));
    }

    /// Whatever a holder does, and in whatever order: as long as it is there, a shard that it does not prove ends as
    /// refused after four askings, and one that it proves in any of them is never called lost.
    #[test]
    fn no_silent_cheat_escapes_and_nothing_that_is_held_is_lost(
        seed: u64, shards in 1..100u32, lost in prop::collection::btree_set(0..100u32, 0..20),
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let rate = Rate::default();
        let mut machine = Containment::new(rate);
        let mut now = Timestamp(0);
        let mut pending = machine.handle(now, Event::Due((0..shards).map(sample).collect()));
        let mut found = BTreeMap::new();
        let mut proven = BTreeSet::new();
        let mut askings: BTreeMap<SegmentId, u32> = BTreeMap::new();
        let is_lost = |segment: &SegmentId| lost.iter().any(|number| segment == &self::segment(*number));
        while !machine.is_idle() {
            for (segment, outcome) in verdicts(&pending) {
                prop_assert!(found.insert(segment, outcome).is_none());
            }
            let event = if let Some(samples) = asked(&pending) {
                for sample in samples {
                    *askings.entry(sample.segment).or_default() += 1;
                }
                let any_lost = samples.iter().any(|sample| is_lost(&sample.segment));
                match rng.random_range(0..4) {
                    0 if any_lost => Event::Unanswered { connected: true },
                    // It hangs up when it is asked, and comes back for other things.
                    1 if any_lost => Event::Unanswered { connected: false },
                    _ => {
                        let answer = |sample: &Sample| match is_lost(&sample.segment) {
                            false => Answer::Held,
                            true if rng.random() => Answer::Missing,
                            true => Answer::Refused(Refusal::Busy),
                        };
                        proven.extend(samples.iter().map(|sample| sample.segment).filter(|segment| !is_lost(segment)));
                        Event::Answered(samples.iter().map(answer).collect())
                    }
                }
            } else if pending.contains(&Action::Unreachable) {
                now = now.after_ms(60_000);
                Event::Alive
            } else {
                now = timer(&pending);
                Event::Timer
            };
            pending = machine.handle(now, event);
            // New ones do not count while a challenge is pinned.
            if machine.is_pinned() {
                prop_assert!(machine.handle(now, Event::Due(vec![sample(1_000)])).is_empty());
            }
        }
        found.extend(verdicts(&pending));
        for number in 0..shards {
            let outcome = if proven.contains(&segment(number)) { Outcome::Held } else { Outcome::Refused };
            prop_assert_eq!(found.get(&segment(number)), Some(&outcome));
            let askings = askings[&segment(number)];
            prop_assert!(askings <= 1 + REPEATS_MAX);
            prop_assert!(outcome == Outcome::Held || askings == 1 + REPEATS_MAX, "given up too early");
        }
        prop_assert!(!found.contains_key(&segment(1_000)));
    }

    /// A node that cannot be reached is asked again when it is back, and nothing is ever held against it.
    #[test]
    fn being_away_is_never_a_verdict(events in prop::collection::vec((0..3u8, 0..100_000u64), 1..50)) {
        let mut machine = Containment::new(Rate::default());
        let mut now = Timestamp(0);
        let mut reputation = Reputation::new(now);
        let mut actions = machine.handle(now, Event::Due((0..40).map(sample).collect()));
        for (what, wait_ms) in events {
            now = now.after_ms(wait_ms);
            let event = match what {
                0 => Event::Unanswered { connected: false },
                1 => Event::Timer,
                _ => Event::Due(vec![sample(50)]),
            };
            actions.extend(machine.handle(now, event));
            reputation.count(Outcome::Unreachable);
        }
        prop_assert_eq!(verdicts(&actions), vec![]);
        prop_assert_eq!(reputation, Reputation::new(Timestamp(0)));
    }
}

#[test]
fn a_wrong_proof_or_a_confession_is_final_and_the_holder_is_reviewed_once_an_epoch() {
    let mut machine = Containment::new(Rate::default());
    machine.handle(Timestamp(0), Event::Due(vec![sample(0), sample(1), sample(2)]));
    let answers = vec![Answer::Wrong, Answer::Refused(Refusal::Damaged), Answer::Held];
    let actions = machine.handle(Timestamp(1), Event::Answered(answers));
    let expected = [(segment(0), Outcome::Wrong), (segment(1), Outcome::Refused), (segment(2), Outcome::Held)];
    assert_eq!(verdicts(&actions), expected);
    assert_eq!(actions.last(), Some(&Action::Review));
    assert!(machine.is_idle());

    for (at, reviews) in [(2, false), (DAY_MS, false), (DAY_MS + 1, true)] {
        machine.handle(Timestamp(at), Event::Due(vec![sample(3)]));
        let actions = machine.handle(Timestamp(at), Event::Answered(vec![Answer::Wrong]));
        assert_eq!(actions.contains(&Action::Review), reviews, "at {at}");
    }
}

/// Of a holder of few shards each is asked for in many challenges. One that is gone counted as often against it, and an
/// honest holder of one rotten shard was out for good.
#[test]
fn a_shard_counts_once_however_many_challenges_it_takes() {
    let part = |first: u32| Sample {
        segment: segment(7),
        index: ShardIndex(1),
        groups: (first..).take(CHALLENGE_MAX).collect(),
    };
    let parts: Vec<Sample> = (0..5).map(|number| part(number * CHALLENGE_MAX as u32)).collect();
    let mut machine = Containment::new(Rate::default());
    let mut actions = machine.handle(Timestamp(0), Event::Due(parts.clone()));
    for at in 0..5 {
        assert_eq!((asked(&actions), verdicts(&actions)), (Some(&parts[at..=at]), vec![]));
        actions = machine.handle(Timestamp(1), Event::Answered(vec![Answer::Held]));
    }
    assert_eq!((asked(&actions), verdicts(&actions)), (None, vec![(segment(7), Outcome::Held)]));

    machine.handle(Timestamp(2), Event::Due(parts));
    machine.handle(Timestamp(3), Event::Answered(vec![Answer::Held]));
    let actions = machine.handle(Timestamp(3), Event::Answered(vec![Answer::Refused(Refusal::Damaged)]));
    assert_eq!((asked(&actions), verdicts(&actions)), (None, vec![(segment(7), Outcome::Refused)]));
    let mut reputation = Reputation::new(Timestamp(0));
    reputation.count(Outcome::Refused);
    assert!(machine.is_idle() && !reputation.disqualified);

    let few = |number: u32| Sample { segment: segment(8), index: ShardIndex(1), groups: vec![number] };
    let pairs = [
        ([Answer::Wrong, Answer::Refused(Refusal::Damaged)], Outcome::Wrong),
        ([Answer::Wrong, Answer::Missing], Outcome::Wrong),
        ([Answer::Contradicted, Answer::Held], Outcome::Contradicted),
    ];
    for (answers, outcome) in pairs {
        let mut machine = Containment::new(Rate::default());
        machine.handle(Timestamp(0), Event::Due(vec![few(1), few(2)]));
        let actions = machine.handle(Timestamp(1), Event::Answered(answers.to_vec()));
        assert_eq!((verdicts(&actions), machine.is_idle()), (vec![(segment(8), outcome)], true));
    }
}

/// An owner who signs two manifests for one segment, has honest nodes hold shards of one and hands stewards the other,
/// would else have them all thrown out, and with them the shards of everybody.
#[test]
fn an_owner_who_contradicts_itself_loses_its_own_shards_and_harms_no_holder() {
    let mut machine = Containment::new(Rate::default());
    let mut reputation = Reputation::new(Timestamp(0));
    for at in 0..1_000 {
        let now = Timestamp(at.into());
        machine.handle(now, Event::Due(vec![sample(at), sample(at + 1)]));
        let actions = machine.handle(now, Event::Answered(vec![Answer::Contradicted, Answer::Held]));
        assert_eq!(verdicts(&actions), [(segment(at), Outcome::Contradicted), (segment(at + 1), Outcome::Held)]);
        assert!(!actions.contains(&Action::Review), "there is nothing to suspect");
        assert!(!reputation.count(Outcome::Contradicted));
    }
    assert_eq!(reputation, Reputation::new(Timestamp(0)));
}

#[test]
fn the_same_groups_are_asked_for_again_and_a_late_truth_is_a_truth() {
    let mut machine = Containment::new(Rate::default());
    let first = machine.handle(Timestamp(0), Event::Due((0..3).map(sample).collect()));
    let first = asked(&first).expect("asked").to_vec();
    // It answers one of three.
    let actions = machine.handle(Timestamp(10), Event::Answered(vec![Answer::Missing, Answer::Held]));
    assert_eq!(verdicts(&actions), [(segment(1), Outcome::Held)]);
    assert_eq!(timer(&actions), Timestamp(15 * 60 * 1000));
    assert_eq!(machine.handle(Timestamp(11), Event::Timer), [Action::Timer { at: timer(&actions) }], "too early");
    let again = machine.handle(timer(&actions), Event::Timer);
    assert_eq!(asked(&again), Some(&[first[0].clone(), first[2].clone()][..]));
    // A restart does not free it.
    let mut machine = Containment::restore(Rate::default(), machine.pinned().to_vec(), Vec::new());
    let actions = machine.handle(Timestamp(DAY_MS), Event::Alive);
    let again = machine.handle(timer(&actions), Event::Timer);
    assert_eq!(asked(&again).map(<[Sample]>::len), Some(2));
    let actions = machine.handle(Timestamp(DAY_MS + 5), Event::Answered(vec![Answer::Held, Answer::Held]));
    assert_eq!(verdicts(&actions).len(), 2);
    assert!(machine.is_idle());
}

/// The next groups drawn of a shard of which little is missing are there, and would make it healthy before it is rebuilt.
#[test]
fn a_shard_that_failed_is_proven_by_nothing_but_what_it_failed_for() {
    let of_shard = |groups: &[u32]| Sample { segment: segment(1), index: ShardIndex(0), groups: groups.to_vec() };
    let mut machine = Containment::new(Rate::default());
    // Several samples of one shard: what it proves of it beside what it fails for counts for nothing.
    machine.handle(Timestamp(0), Event::Due(vec![of_shard(&[1, 2]), of_shard(&[5]), of_shard(&[7]), sample(2)]));
    let answers = vec![Answer::Held, Answer::Wrong, Answer::Held, Answer::Held];
    let actions = machine.handle(Timestamp(1), Event::Answered(answers));
    let expected = [(segment(1), Outcome::Held), (segment(1), Outcome::Wrong), (segment(2), Outcome::Held)];
    assert_eq!(verdicts(&actions), expected);

    // Nor does a restart, or that the shard is given up and claimed again.
    let failed = machine.failed().cloned().collect();
    let mut machine = Containment::restore(Rate::default(), Vec::new(), failed);
    machine.handle(Timestamp(2), Event::Forget(segment(1)));
    for answer in [Answer::Wrong, Answer::Refused(Refusal::Unknown)] {
        let actions = machine.handle(Timestamp(3), Event::Due(vec![of_shard(&[8, 9]), of_shard(&[10])]));
        assert_eq!(asked(&actions), Some(&[of_shard(&[5])][..]));
        assert_eq!(verdicts(&machine.handle(Timestamp(4), Event::Answered(vec![answer]))).len(), 1);
    }
    // Silence is a failure as well, and no other.
    let mut actions = machine.handle(Timestamp(5), Event::Due(vec![of_shard(&[11])]));
    while verdicts(&actions).is_empty() {
        assert_eq!(asked(&actions), Some(&[of_shard(&[5])][..]));
        let waiting = machine.handle(Timestamp(6), Event::Unanswered { connected: true });
        actions = if verdicts(&waiting).is_empty() { machine.handle(timer(&waiting), Event::Timer) } else { waiting };
    }
    assert_eq!(verdicts(&actions), [(segment(1), Outcome::Refused)]);

    machine.handle(Timestamp(7), Event::Due(vec![of_shard(&[12])]));
    let actions = machine.handle(Timestamp(8), Event::Answered(vec![Answer::Held]));
    assert_eq!(verdicts(&actions), [(segment(1), Outcome::Held)]);
    let actions = machine.handle(Timestamp(9), Event::Due(vec![of_shard(&[12])]));
    assert_eq!(asked(&actions), Some(&[of_shard(&[12])][..]), "it is like any other again");
}

#[test]
fn what_was_wrong_when_somebody_read_it_is_to_be_proven_whole() {
    let of_shard = |groups: &[u32]| Sample { segment: segment(1), index: ShardIndex(0), groups: groups.to_vec() };
    let wrong = vec![of_shard(&[1, 2, 3]), of_shard(&[4])];
    let mut machine = Containment::new(Rate::default());
    assert_eq!(machine.handle(Timestamp(0), Event::Failed(wrong.clone())), [], "it is asked when it is due");
    let actions = machine.handle(Timestamp(1), Event::Due(vec![of_shard(&[9]), of_shard(&[10]), sample(2)]));
    assert_eq!(asked(&actions), Some(&[wrong[0].clone(), wrong[1].clone(), sample(2)][..]));
    let answers = vec![Answer::Held, Answer::Wrong, Answer::Held];
    let actions = machine.handle(Timestamp(2), Event::Answered(answers));
    assert_eq!(verdicts(&actions), [(segment(1), Outcome::Wrong), (segment(2), Outcome::Held)]);
    let actions = machine.handle(Timestamp(3), Event::Due(vec![of_shard(&[9])]));
    assert_eq!(asked(&actions), Some(&wrong[1..]));
    let actions = machine.handle(Timestamp(4), Event::Answered(vec![Answer::Held]));
    assert_eq!(verdicts(&actions), [(segment(1), Outcome::Held)]);
    assert_eq!(machine.failed().count(), 0);
}

#[test]
fn of_what_was_failed_the_last_is_remembered() {
    let mut machine = Containment::new(Rate::default());
    for number in 0..FAILED_MAX as u32 + 10 {
        machine.handle(Timestamp(0), Event::Due(vec![sample(number)]));
        machine.handle(Timestamp(1), Event::Answered(vec![Answer::Wrong]));
    }
    assert!(machine.failed().eq(&(10..FAILED_MAX as u32 + 10).map(sample).collect::<Vec<_>>()));
}

#[test]
fn what_was_dropped_meanwhile_is_forgotten() {
    let mut machine = Containment::new(Rate::default());
    machine.handle(Timestamp(0), Event::Due((0..40).map(sample).collect()));
    // The first while they are asked, others while they are pinned, the last while they wait in line.
    for number in (0..10).chain(35..40) {
        machine.handle(Timestamp(1), Event::Forget(segment(number)));
    }
    machine.handle(Timestamp(2), Event::Unanswered { connected: true });
    assert_eq!(machine.pinned().len(), 22);
    let mut actions = Vec::new();
    for number in 10..32 {
        actions = machine.handle(Timestamp(3), Event::Forget(segment(number)));
    }
    assert_eq!(asked(&actions).map(<[Sample]>::len), Some(3), "the next in line are asked");
    for number in 32..35 {
        machine.handle(Timestamp(4), Event::Forget(segment(number)));
    }
    let answers = vec![Answer::Refused(Refusal::Unknown); 3];
    assert_eq!(machine.handle(Timestamp(5), Event::Answered(answers)), [], "it rightly has none of them");
    assert!(machine.is_idle());
}

/// A prune drops many segments while their holders are audited: what was not asked for was counted as not answered for.
#[test]
fn who_was_not_asked_after_all_is_asked_for_the_rest_and_blamed_for_nothing() {
    let mut machine = Containment::new(Rate::default());
    machine.handle(Timestamp(0), Event::Due((0..20).map(sample).collect()));
    let mut actions = Vec::new();
    for number in 0..19 {
        actions = machine.handle(Timestamp(1), Event::Gone(vec![segment(number)]));
        assert_eq!(asked(&actions).map(<[Sample]>::len), Some(19 - number as usize));
        assert!(!machine.is_pinned());
    }
    assert!(matches!(actions[..], [Action::Ask { asked_before: 0, .. }]));
    assert_eq!(machine.handle(Timestamp(2), Event::Gone(vec![segment(19)])), []);
    assert!(machine.is_idle());
}

#[test]
fn many_shards_of_a_holder_go_into_one_challenge() {
    let mut machine = Containment::new(Rate::default());
    let mut actions = machine.handle(Timestamp(0), Event::Due((0..70).map(sample).collect()));
    let mut sizes = Vec::new();
    let mut seen = BTreeSet::new();
    while let Some(samples) = asked(&actions) {
        sizes.push(samples.len());
        seen.extend(samples.iter().map(|sample| sample.segment));
        let answers = vec![Answer::Held; samples.len()];
        actions = machine.handle(Timestamp(1), Event::Answered(answers));
    }
    assert_eq!((sizes, seen.len()), (vec![32, 32, 6], 70));
}

#[test]
fn trust_is_earned_and_lost() {
    let mut newcomer = Reputation::new(Timestamp(0));
    assert_eq!(newcomer.trust(Timestamp(VETTING_MS)), Trust::Vetting, "no audits yet");
    let fails = (1..100).find(|_| newcomer.count(Outcome::Wrong)).expect("it is disqualified");
    assert_eq!(fails, 5);

    let mut veteran = Reputation::new(Timestamp(0));
    for _ in 0..10_000 {
        veteran.count(Outcome::Held);
    }
    assert!(veteran.audits >= VETTING_AUDITS && veteran.trust(Timestamp(VETTING_MS)) == Trust::Trusted);
    assert_eq!(veteran.trust(Timestamp(VETTING_MS - 1)), Trust::Vetting);
    // The figure in Storj's tuning, from saturation: 41 failures in a row.
    let fails = (1..100).find(|_| veteran.count(Outcome::Refused)).expect("it is disqualified");
    assert_eq!(fails, 41);
    for _ in 0..100_000 {
        veteran.count(Outcome::Held);
    }
    assert!(veteran.score() > DISQUALIFIED_BELOW);
    assert_eq!(veteran.trust(Timestamp(VETTING_MS)), Trust::Disqualified, "once so, always so");
}
