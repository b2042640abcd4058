//! Time of the processor that work for one peer takes, on whichever thread it is done. Unlike the time that passes, it
//! does not grow when the machine is busy with something else.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinError;

tokio::task_local! {
    static METER: CpuMeter;
}

/// Adds up what a piece of work takes.
#[derive(Debug, Clone, Default)]
pub(crate) struct CpuMeter(Arc<AtomicU64>);

impl CpuMeter {
    /// What was taken so far.
    pub(crate) fn taken(&self) -> Duration {
        Duration::from_nanos(self.0.load(Relaxed))
    }

    /// Does `work` and counts it, with what it hands to [`blocking`].
    pub(crate) async fn count<T>(self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(METER.scope(self.clone(), work));
        poll_fn(|context| self.during(|| work.as_mut().poll(context))).await
    }

    fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = of_thread();
        let done = work();
        self.0.fetch_add(of_thread().saturating_sub(before).as_nanos() as u64, Relaxed);
        done
    }
}

/// Does what blocks off the runtime's thread, and counts it where [`CpuMeter::count`] asks for that.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    let meter = METER.try_with(Clone::clone).ok();
    let counted = move || match meter {
        Some(meter) => meter.during(work),
        None => work(),
    };
    tokio::task::spawn_blocking(counted).await
}

fn of_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn work_for(time: Duration) {
        let until = of_thread() + time;
        while of_thread() < until {}
    }

    #[tokio::test]
    async fn work_is_counted_on_each_thread_and_waiting_is_not() {
        let meter = CpuMeter::default();
        let began = Instant::now();
        let work = async {
            work_for(Duration::from_millis(30));
            tokio::time::sleep(Duration::from_millis(200)).await;
            blocking(|| work_for(Duration::from_millis(50))).await
        };
        meter.clone().count(work).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(280));
        let taken = meter.taken();
        assert!(taken >= Duration::from_millis(80) && taken < Duration::from_millis(180), "{taken:?}");
        blocking(|| work_for(Duration::from_millis(1))).await.unwrap();
        assert_eq!(meter.taken(), taken, "nobody asked for this to be counted");
    }
}
