//! Dials that take much longer than others do: a machine that is frozen, or a router that forgot it, accepts a
//! connection or swallows it, and says nothing. Nobody gives up on such a dial, but whoever can do without the peer
//! for now does.

use std::{
    collections::HashMap,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// A dial hangs when it takes so many times as long as dials usually do on this line ...
const USUAL_TIMES: u32 = 4;
/// ... and at least this long, however fast the others were.
const HANGS_AFTER: Duration = Duration::from_millis(1000);
/// How often dials that go on are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Dials that are timed at once; further ones never hang, they only fail.
const DIALS_MAX: usize = 1024;

/// The dials that go on.
#[derive(Default)]
pub(crate) struct Hanging {
    dials: HashMap<PeerId, Instant>,
    /// How long a dial usually takes, the last ones counting most. Until the first one succeeded a slow line cannot be
    /// told from a slow peer, and nothing hangs.
    usual: Option<Duration>,
    look: Option<Interval>,
}

impl Hanging {
    /// A dial begins, or another one to the same peer.
    pub(crate) fn dialled(&mut self, peer: PeerId, now: Instant) {
        if self.dials.len() < DIALS_MAX {
            self.dials.entry(peer).or_insert(now);
        }
    }

    /// There is a connection, whoever made it.
    pub(crate) fn connected(&mut self, peer: &PeerId, now: Instant) {
        let Some(since) = self.dials.remove(peer) else { return };
        let took = now.saturating_duration_since(since);
        self.usual = Some(self.usual.map_or(took, |usual| (usual * 3 + took) / 4));
    }

    /// The dial has failed.
    pub(crate) fn failed(&mut self, peer: &PeerId) {
        self.dials.remove(peer);
    }

    fn hanging(&self, now: Instant) -> Vec<PeerId> {
        let Some(usual) = self.usual else { return Vec::new() };
        let patience = HANGS_AFTER.max(usual * USUAL_TIMES);
        let hangs = |since: &Instant| now.saturating_duration_since(*since) >= patience;
        self.dials.iter().filter(|(_, since)| hangs(since)).map(|(peer, _)| *peer).collect()
    }

    /// Every now and then while there are dials, and once more after the last: the peers whose dials hang.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Vec<PeerId>> {
        if self.dials.is_empty() && self.look.take().is_none() {
            return Poll::Pending;
        }
        if !self.dials.is_empty() {
            let look = self.look.get_or_insert_with(|| {
                let mut look = interval(LOOK_EVERY);
                look.set_missed_tick_behavior(MissedTickBehavior::Delay);
                look
            });
            if look.poll_tick(cx).is_pending() {
                return Poll::Pending;
            }
            // Asked once more for the time after this one.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(self.hanging(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_hangs_when_others_were_much_faster() {
        let (mut dials, slow, start) = (Hanging::default(), PeerId::random(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        dials.dialled(slow, start);
        assert!(dials.hanging(at(60_000)).is_empty(), "none was faster");
        let fast = PeerId::random();
        dials.dialled(fast, start);
        dials.connected(&fast, at(20));
        assert!(dials.hanging(at(999)).is_empty());
        assert_eq!(dials.hanging(at(1000)), [slow]);
        // On a slow line everything takes its time.
        for _ in 0..10 {
            dials.dialled(fast, start);
            dials.connected(&fast, at(900));
        }
        assert!(dials.hanging(at(3000)).is_empty());
        assert_eq!(dials.hanging(at(3600)), [slow]);
        dials.dialled(slow, at(3600));
        assert_eq!(dials.hanging(at(3600)), [slow], "another dial makes it no younger");
        dials.failed(&slow);
        assert!(dials.hanging(at(3600)).is_empty());
    }
}
