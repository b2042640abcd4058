//! A node's life: who is silent is suspect, who stays silent is lost, and nobody who comes and goes is lost every time.

use commonhold_policy::life::{self, Life, NodeLife, ProbePace, STRETCH_MAX, SearchPace};
use commonhold_protocol::Timestamp;
use proptest::prelude::*;

const HOUR_MS: u64 = 60 * 60 * 1000;
const GRACE_MS: u64 = 12 * HOUR_MS;

fn silent(now: u64) -> life::Event {
    life::Event::Silent { heard_at: Timestamp(now) }
}

/// Plays absences (from, to) of one node, asking timers as a driver would; says when it was given up.
fn play(life: &mut NodeLife, absences: impl IntoIterator<Item = (u64, u64)>) -> Vec<u64> {
    let mut lost = Vec::new();
    for (from, to) in absences {
        let mut actions = life.handle(Timestamp(from), silent(from));
        while let Some(life::Action::Timer { at }) =
            actions.iter().find(|action| matches!(action, life::Action::Timer { at } if at.0 < to))
        {
            let at = *at;
            actions = life.handle(at, life::Event::Timer);
            if actions.contains(&life::Action::Lost) {
                lost.push(at.0);
            }
        }
        life.handle(Timestamp(to), life::Event::Seen);
    }
    lost
}

#[test]
fn a_node_is_suspect_at_once_and_lost_after_the_grace_time() {
    let mut life = NodeLife::new(GRACE_MS);
    let suspected = life.handle(Timestamp(5), silent(5));
    assert_eq!(suspected, [life::Action::Suspect, life::Action::Timer { at: Timestamp(5 + GRACE_MS) }]);
    assert_eq!(life.handle(Timestamp(6), silent(6)), []);
    assert_eq!(life.handle(Timestamp(5 + GRACE_MS), life::Event::Timer), [life::Action::Lost]);
    let back = life.handle(Timestamp(3 * GRACE_MS), life::Event::Seen);
    assert_eq!(back, [life::Action::Returned { was_lost: true }]);
    assert_eq!(life.life(), Life::Up);
}

#[test]
fn an_honest_node_that_sleeps_at_night_is_given_up_once_at_most() {
    let nights = |hours: u64| (0..100).map(move |day| (day * 24 * HOUR_MS, (day * 24 + hours) * HOUR_MS));
    assert_eq!(play(&mut NodeLife::new(GRACE_MS), nights(8)), [], "less than the grace time");
    assert_eq!(play(&mut NodeLife::new(5 * HOUR_MS), nights(8)).len(), 1, "more: learned from the first night");
    assert_eq!(play(&mut NodeLife::new(3 * HOUR_MS), nights(8)).len(), 1);
    assert!(play(&mut NodeLife::new(HOUR_MS), nights(8)).len() > 50, "the stretch is bounded");
}

/// To notice a silence takes as long as to ask, and that varies.
#[test]
fn a_night_noticed_late_teaches_as_much_as_one_noticed_at_once() {
    const NIGHT_MS: u64 = 8 * HOUR_MS;
    let mut life = NodeLife::new(4 * HOUR_MS);
    let mut lost = 0;
    for (noticed_ms, night) in [3 * HOUR_MS, 0, 2 * HOUR_MS, 0].into_iter().zip(1..) {
        let falls_asleep = Timestamp(night * 24 * HOUR_MS);
        let noticed = falls_asleep.after_ms(noticed_ms);
        let actions = life.handle(noticed, life::Event::Silent { heard_at: falls_asleep });
        let [life::Action::Suspect, life::Action::Timer { at }] = actions[..] else { panic!("{actions:?}") };
        assert!(at >= noticed.after_ms(4 * HOUR_MS), "the grace time begins when silence is noticed");
        let wakes = falls_asleep.after_ms(NIGHT_MS);
        if at < wakes {
            assert_eq!(life.handle(at, life::Event::Timer), [life::Action::Lost]);
            lost += 1;
        }
        life.handle(wakes, life::Event::Seen);
        assert!(life.absence_ms() >= NIGHT_MS / 8 * 7, "{} ms after night {night}", life.absence_ms());
    }
    assert_eq!(lost, 1, "in the first night only");
    // An answer that is lost says nothing of how it sleeps, though it was last asked long ago.
    let slept_ms = life.absence_ms();
    life.handle(Timestamp(200 * HOUR_MS), life::Event::Silent { heard_at: Timestamp(199 * HOUR_MS) });
    life.handle(Timestamp(200 * HOUR_MS + 1000), life::Event::Seen);
    assert_eq!(life.absence_ms(), slept_ms);
    // A clock that was set back: no sign of life lies ahead.
    let mut life = NodeLife::new(GRACE_MS);
    life.handle(Timestamp(5), silent(7));
    assert_eq!(life.life(), Life::Suspect { since: Timestamp(5) });
}

#[test]
fn how_a_node_sleeps_is_known_over_a_restart_of_whoever_watches_it() {
    let nights = || (0..10).map(|day| (day * 24 * HOUR_MS, (day * 24 + 8) * HOUR_MS));
    let mut watched = NodeLife::new(5 * HOUR_MS);
    assert_eq!(play(&mut watched, nights()).len(), 1);
    let mut restarted = NodeLife::restore(5 * HOUR_MS, watched.absence_ms(), 0);
    assert_eq!(play(&mut restarted, nights()), []);
    assert_eq!(restarted.grace_ms(), watched.grace_ms());
}

proptest! {
    /// A node whose absences are about alike is repaired at most once, as long as the bound on the stretch allows.
    #[test]
    fn a_flapping_node_is_given_up_at_most_once(
        away_ms in 1..(GRACE_MS * STRETCH_MAX * 2 / 3), up_ms in 1..GRACE_MS, wobble in prop::collection::vec(0.7..1.0f64, 30),
    ) {
        let mut life = NodeLife::new(GRACE_MS);
        let mut now = 0;
        let absences: Vec<(u64, u64)> = wobble.into_iter().map(|wobble| {
            let from = now + up_ms;
            now = from + (away_ms as f64 * wobble) as u64;
            (from, now)
        }).collect();
        let lost = play(&mut life, absences.iter().copied());
        // Longer than half as long again as the longest before it: the first such may cost another.
        prop_assert!(lost.len() <= 1, "given up at {:?}", lost);
        prop_assert!(life.grace_ms() <= GRACE_MS * STRETCH_MAX);
    }

    #[test]
    fn no_absence_shorter_than_the_grace_time_costs_anything(
        absences in prop::collection::vec((1..GRACE_MS, 1..GRACE_MS), 1..50),
    ) {
        let mut now = 0;
        let absences = absences.into_iter().map(|(up_ms, away_ms)| {
            let from = now + up_ms;
            now = from + away_ms;
            (from, now)
        });
        prop_assert_eq!(play(&mut NodeLife::new(GRACE_MS), absences.collect::<Vec<_>>()), vec![]);
    }
}

/// A laptop or a home server that is switched off each night has to give up the dead too.
#[test]
fn the_silence_that_was_seen_adds_up_over_restarts_and_sleep_of_whoever_watches() {
    const ASKED_MS: u64 = HOUR_MS / 4;
    for suspended in [false, true] {
        let mut life = NodeLife::new(GRACE_MS);
        let mut lost = None;
        let mut timer = None;
        for day in 0..10 {
            if !suspended {
                life = NodeLife::restore(GRACE_MS, life.absence_ms(), life.silent_ms());
                timer = None;
            }
            // Eight hours a day.
            for asked in 0..8 * HOUR_MS / ASKED_MS {
                let now = Timestamp(day * 24 * HOUR_MS + asked * ASKED_MS);
                let mut actions = life.handle(now, silent(now.0));
                if timer.is_some_and(|at| at <= now) {
                    actions.extend(life.handle(now, life::Event::Timer));
                }
                for action in actions {
                    match action {
                        life::Action::Timer { at } => timer = Some(at),
                        life::Action::Lost => lost = lost.or(Some(now)),
                        life::Action::Suspect | life::Action::Returned { .. } => {}
                    }
                }
            }
        }
        // Of the time between two questions that we slept through, an eighth of the grace time counts at most.
        let hours = lost.expect("it is given up").0 / HOUR_MS;
        assert!((24 + 2..48).contains(&hours), "after {hours} h of 8 in 24, suspended: {suspended}");
    }
    // Whoever is heard of has been silent for no time.
    let mut life = NodeLife::restore(GRACE_MS, 0, GRACE_MS - 1);
    life.handle(Timestamp(1), life::Event::Seen);
    let [_, life::Action::Timer { at }] = life.handle(Timestamp(2), silent(2))[..] else { panic!("it is suspect") };
    assert_eq!(at, Timestamp(2 + GRACE_MS));
    // The lost of before a restart get some time to show themselves.
    let mut life = NodeLife::restore(GRACE_MS, 0, GRACE_MS);
    let [_, life::Action::Timer { at }] = life.handle(Timestamp(2), silent(2))[..] else { panic!("it is suspect") };
    assert_eq!(at, Timestamp(2 + GRACE_MS / 8));
}

#[test]
fn what_we_slept_ourselves_is_not_taken_for_the_silence_of_others() {
    const NOTICED_MS: u64 = HOUR_MS;
    let now = Timestamp(100 * HOUR_MS);
    let before = |ms| Timestamp(now.0 - ms);
    assert_eq!(life::silent_since(now, before(HOUR_MS / 2), NOTICED_MS), before(HOUR_MS / 2));
    assert_eq!(life::silent_since(now, before(8 * HOUR_MS), NOTICED_MS), before(NOTICED_MS));
    assert_eq!(life::silent_since(Timestamp(5), Timestamp(0), NOTICED_MS), Timestamp(0));
}

/// A laptop that held stewards' duties and slept for two days must not give up the whole network when it wakes.
#[test]
fn whoever_was_away_itself_gives_nobody_up() {
    let mut life = NodeLife::new(GRACE_MS);
    life.handle(Timestamp(0), silent(0));
    let late = Timestamp(48 * HOUR_MS);
    assert_eq!(life.handle(late, life::Event::Timer), [life::Action::Timer { at: late.after_ms(GRACE_MS) }]);
    let back = life.handle(late.after_ms(HOUR_MS), life::Event::WeWereAway);
    assert_eq!(back, [life::Action::Timer { at: late.after_ms(HOUR_MS + GRACE_MS) }]);
}

#[test]
fn who_hears_of_nearly_nobody_is_cut_off_itself() {
    let since = Timestamp(0);
    let of = |up: usize, silent: usize, lost: usize| {
        let lives = [(Life::Up, up), (Life::Suspect { since }, silent), (Life::Lost { since }, lost)];
        life::we_are_cut_off(lives.into_iter().flat_map(|(life, count)| std::iter::repeat_n(life, count)))
    };
    assert!(of(1, 19, 0) && !of(10, 10, 0) && !of(0, 1, 0));
    // A network that shrank to a tenth would give nobody up any more.
    assert!(!of(9, 1, 90) && of(0, 10, 90));
}

/// A node that took connections and ended them was asked 400 times a second whether it is there.
#[test]
fn who_ends_each_connection_is_asked_every_five_seconds_and_no_more() {
    let mut pace = ProbePace::default();
    let (mut asked, mut due) = (0, Some(Timestamp(0)));
    for now in (0..60_000).map(Timestamp) {
        // The connection has ended, a few milliseconds after the last; or the moment has come that was put off.
        let wanted = now.0 % 3 == 0 || due.is_some_and(|at| at <= now);
        if !wanted {
            continue;
        }
        due = pace.not_before(now, 15 * 60 * 1000);
        if due.is_none() {
            pace.asked(now);
            asked += 1;
        }
    }
    assert_eq!(asked, 12);
    assert_eq!(pace.not_before(Timestamp(0), 15 * 60 * 1000), None, "our clock was set back");
    // Who is asked more often in any case may be asked that often.
    assert_eq!(pace.not_before(Timestamp(55_500), 500), None);
}

#[test]
fn made_up_nodes_are_looked_for_a_few_at_a_time() {
    let start = Timestamp(1_000_000);
    let mut pace = SearchPace::new(start, GRACE_MS);
    let at_once = (0..1000).map(|_| pace.next(start)).filter(|at| *at == start).count();
    assert_eq!(at_once, 16);
    let last = pace.next(start);
    assert_eq!(last.ms_since(start), (1000 - 16 + 1) * 2_000);
    // Nobody waits longer for having been quiet, and no more is saved up than at first.
    let later = last.after_ms(3_600_000);
    assert_eq!((0..1000).map(|_| pace.next(later)).filter(|at| *at == later).count(), 16);

    // Old records name dozens of the dead: to look for them takes no longer than to give one up.
    let mut pace = SearchPace::new(start, 6_000);
    let last = (0..16 + 30).map(|_| pace.next(start)).last();
    assert_eq!(last, Some(start.after_ms(6_000)));
}

#[test]
fn nodes_that_are_there_are_looked_for_without_a_wait() {
    let start = Timestamp(1_000_000);
    let mut pace = SearchPace::new(start, GRACE_MS);
    for _ in 0..1000 {
        assert_eq!(pace.next(start), start);
        pace.found();
    }
    assert_eq!((0..1000).map(|_| pace.next(start)).filter(|at| *at == start).count(), 16);
}
