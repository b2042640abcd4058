//! Who of a segment's stewards repairs it, and when: one does, the others see that it is done.

use commonhold_policy::repair::{
    Decision,
    order::{Action, Event, RepairOrder, Times},
};
use commonhold_protocol::{NodeId, Timestamp};

const HOUR_MS: u64 = 60 * 60 * 1000;

fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

const TIMES: Times = Times { top_up_ms: 7 * 24 * HOUR_MS, back_off_ms: 600_000 };

/// The last one counts: it makes those before it void.
fn timer(actions: &[Action]) -> Timestamp {
    let at = actions.iter().rev().find_map(|action| if let Action::Timer { at } = action { Some(*at) } else { None });
    at.expect("a timer was asked for")
}

#[test]
fn stewards_act_in_order_of_rank_and_look_before_they_act() {
    let mut orders = [RepairOrder::new(TIMES), RepairOrder::new(TIMES), RepairOrder::new(TIMES)];
    let starts: Vec<Timestamp> = orders
        .iter_mut()
        .enumerate()
        .map(|(rank, order)| timer(&order.handle(Timestamp(0), Event::Assessed { decision: Decision::Now, rank })))
        .collect();
    assert_eq!(starts, [Timestamp(0), Timestamp(600_000), Timestamp(1_200_000)]);
    // The first dies. The second looks, finds that it is still needed, and repairs.
    assert_eq!(orders[1].handle(starts[1], Event::Timer), [Action::Look { urgent: true }]);
    let acts = orders[1].handle(starts[1], Event::Looked { decision: Decision::Now, busy: None });
    assert_eq!(acts, [Action::Repair]);
    assert!(orders[1].is_repairing());
    // The third finds it at work, waits, and then finds it done.
    assert_eq!(orders[2].handle(starts[2], Event::Timer), [Action::Look { urgent: true }]);
    let looked = Event::Looked { decision: Decision::Now, busy: Some(node(1)) };
    let again = timer(&orders[2].handle(starts[2], looked));
    assert_eq!(again, starts[2].after_ms(600_000 + 2 * 75_000));
    orders[1].handle(again, Event::Repaired);
    orders[2].handle(again, Event::Timer);
    assert_eq!(orders[2].handle(again, Event::Looked { decision: Decision::Whole, busy: None }), []);
    assert!(orders[1].is_idle() && orders[2].is_idle());
}

/// A full segment over a slow link takes longer than a head start: whoever has begun is let finish.
#[test]
fn who_is_at_work_is_waited_for_and_only_so_long() {
    let mut order = RepairOrder::new(TIMES);
    let mut at = timer(&order.handle(Timestamp(0), Event::Assessed { decision: Decision::Now, rank: 1 }));
    let busy = Some(node(0));
    for _ in 0..4 {
        order.handle(at, Event::Timer);
        let next = timer(&order.handle(at, Event::Looked { decision: Decision::Now, busy }));
        assert_eq!(next, at.after_ms(TIMES.back_off_ms + TIMES.back_off_ms / 8));
        at = next;
    }
    order.handle(at, Event::Timer);
    assert_eq!(order.handle(at, Event::Looked { decision: Decision::Now, busy }), [Action::Repair]);
}

/// Each of two that look at one moment is about to repair: both wait, and the first in rank comes first.
#[test]
fn two_that_look_at_one_moment_come_apart() {
    let mut orders = [RepairOrder::new(TIMES), RepairOrder::new(TIMES)];
    let now = Timestamp(HOUR_MS);
    for (rank, order) in orders.iter_mut().enumerate() {
        // The second heard of it so much earlier as its head start is short.
        let since = Timestamp(HOUR_MS - rank as u64 * TIMES.back_off_ms);
        assert_eq!(timer(&order.handle(since, Event::Assessed { decision: Decision::Now, rank })), now);
        order.handle(now, Event::Timer);
        assert!(order.is_about_to_repair() && !order.is_repairing());
    }
    let next = [0, 1].map(|rank| {
        let looked = Event::Looked { decision: Decision::Now, busy: Some(node(1 - rank as u8)) };
        timer(&orders[rank].handle(now, looked))
    });
    assert!(next[0] < next[1], "{next:?}");
}

/// A repair that waited long for its turn finds it done; one for which there is no room comes again.
#[test]
fn the_look_comes_when_the_turn_has_come() {
    let mut order = RepairOrder::new(TIMES);
    let at = timer(&order.handle(Timestamp(0), Event::Assessed { decision: Decision::Now, rank: 0 }));
    assert_eq!(order.handle(at, Event::Timer), [Action::Look { urgent: true }]);
    assert!(!order.is_repairing(), "those that look at it see nobody at work while it waits");
    let again = timer(&order.handle(at, Event::Failed));
    assert_eq!(again, at.after_ms(TIMES.back_off_ms), "there were too many");
    order.handle(again, Event::Timer);
    let much_later = again.after_ms(HOUR_MS);
    assert_eq!(order.handle(much_later, Event::Looked { decision: Decision::Whole, busy: None }), []);
    assert!(order.is_idle());
    // What is not needed any more gives up its place.
    let at = timer(&order.handle(much_later, Event::Assessed { decision: Decision::Now, rank: 0 }));
    order.handle(at, Event::Timer);
    assert_eq!(order.handle(at, Event::Assessed { decision: Decision::Whole, rank: 0 }), [Action::Stop]);
}

/// A steward that came after a repair has a record in which most holders are dead. It must not sit on that for ever.
#[test]
fn who_knows_too_few_shards_looks_at_the_others_now_and_then() {
    let mut order = RepairOrder::new(TIMES);
    let out_of_reach = Decision::OutOfReach { healthy: 2 };
    let mut at = timer(&order.handle(Timestamp(0), Event::Assessed { decision: out_of_reach, rank: 1 }));
    assert_eq!(at, Timestamp(600_000));
    for wait_ms in [600_000, 1_200_000, 2_400_000] {
        assert_eq!(order.handle(at, Event::Timer), [Action::Look { urgent: false }]);
        let next = timer(&order.handle(at, Event::Looked { decision: out_of_reach, busy: None }));
        assert_eq!(next, at.after_ms(wait_ms), "less and less often");
        at = next;
    }
    order.handle(at, Event::Timer);
    // The others knew of more. What is missing then is repaired as ever, without the patience of before.
    let looked = order.handle(at, Event::Looked { decision: Decision::Now, busy: None });
    assert_eq!(timer(&looked), at.after_ms(TIMES.back_off_ms), "a head start for the first in rank");
    assert_eq!(order.handle(at, Event::Assessed { decision: Decision::Whole, rank: 1 }), []);
    assert!(order.is_idle());
}

/// Seven of eight stewards say for ever that they are repairing.
#[test]
fn liars_that_are_always_at_work_delay_a_repair_and_do_not_prevent_it() {
    let mut order = RepairOrder::new(TIMES);
    let mut at = timer(&order.handle(Timestamp(0), Event::Assessed { decision: Decision::Now, rank: 7 }));
    for liar in 0..=8 {
        order.handle(at, Event::Timer);
        // All seven speak, in turns.
        let actions = order.handle(at, Event::Looked { decision: Decision::Now, busy: Some(node(liar % 7)) });
        if liar == 8 {
            assert_eq!(actions, [Action::Repair]);
        } else {
            at = timer(&actions);
        }
    }
    assert_eq!(at, Timestamp(15 * 600_000 + 8 * 7 * 75_000), "less than four hours");
}

#[test]
fn top_up_waits_and_a_holder_that_returns_saves_the_work() {
    let mut order = RepairOrder::new(TIMES);
    let top_up = |rank| Event::Assessed { decision: Decision::TopUp, rank };
    let at = timer(&order.handle(Timestamp(0), top_up(1)));
    assert_eq!(at, Timestamp(TIMES.top_up_ms + TIMES.back_off_ms));
    assert_eq!(order.handle(Timestamp(1), top_up(1)), [], "nothing new");
    assert_eq!(order.handle(Timestamp(2), Event::Assessed { decision: Decision::Whole, rank: 1 }), []);
    assert!(order.is_idle());
    assert_eq!(order.handle(at, Event::Timer), []);
    // The next time begins anew.
    assert_eq!(timer(&order.handle(at, top_up(0))), at.after_ms(TIMES.top_up_ms));
    // It becomes urgent.
    let urgent = at.after_ms(HOUR_MS);
    assert_eq!(timer(&order.handle(urgent, Event::Assessed { decision: Decision::Now, rank: 0 })), urgent);
}

#[test]
fn what_waited_before_a_restart_waits_no_longer_for_it() {
    let since = Timestamp(1_000);
    let now = since.after_ms(TIMES.top_up_ms / 2);
    let top_up = Event::Assessed { decision: Decision::TopUp, rank: 0 };
    let mut order = RepairOrder::resumed(TIMES, since);
    assert_eq!((order.waits_since(), order.is_idle()), (Some(since), false));
    assert_eq!(order.due(), None);
    assert_eq!(timer(&order.handle(now, top_up)), since.after_ms(TIMES.top_up_ms));
    assert_eq!(order.due(), Some(since.after_ms(TIMES.top_up_ms)));
    // What has become urgent meanwhile waits for the ranks before, and not for the time that it was not.
    let mut order = RepairOrder::resumed(TIMES, since);
    let urgent = order.handle(now, Event::Assessed { decision: Decision::Now, rank: 2 });
    assert_eq!((timer(&urgent), order.waits_since()), (now.after_ms(2 * TIMES.back_off_ms), None));
    // What is whole again begins anew.
    let mut order = RepairOrder::resumed(TIMES, since);
    order.handle(now, Event::Assessed { decision: Decision::Whole, rank: 0 });
    assert!(order.is_idle() && order.waits_since().is_none());
    assert_eq!(timer(&order.handle(now, top_up)), now.after_ms(TIMES.top_up_ms));
}

#[test]
fn what_becomes_urgent_while_it_waits_for_its_turn_hurries() {
    let mut order = RepairOrder::new(TIMES);
    let at = timer(&order.handle(Timestamp(0), Event::Assessed { decision: Decision::TopUp, rank: 0 }));
    assert_eq!(order.handle(at, Event::Timer), [Action::Look { urgent: false }]);
    let urgent = Event::Assessed { decision: Decision::Now, rank: 0 };
    assert_eq!(order.handle(at, urgent), [Action::Hurry]);
    assert_eq!(order.handle(at, urgent), [], "once");
}

#[test]
fn a_repair_that_fails_backs_off_and_one_that_is_not_needed_stops() {
    let mut order = RepairOrder::new(TIMES);
    let mut at = timer(&order.handle(Timestamp(0), Event::Assessed { decision: Decision::Now, rank: 0 }));
    for wait_ms in [600_000, 1_200_000, 2_400_000] {
        order.handle(at, Event::Timer);
        order.handle(at, Event::Looked { decision: Decision::Now, busy: None });
        let next = timer(&order.handle(at, Event::Failed));
        assert_eq!(next, at.after_ms(wait_ms));
        at = next;
    }
    order.handle(at, Event::Timer);
    order.handle(at, Event::Looked { decision: Decision::Now, busy: None });
    assert_eq!(order.handle(at, Event::Assessed { decision: Decision::Whole, rank: 0 }), [Action::Stop]);
    assert_eq!(order.handle(at, Event::Failed), []);
}
