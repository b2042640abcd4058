//! Deciding allocates little: the bounds are those of the benchmark, which prints what each decision takes.

#[path = "../benches/policy/allocations.rs"]
mod allocations;
#[path = "../benches/policy/decisions.rs"]
mod decisions;

use allocations::{Allocations, Counting, counted};
use decisions::Measure;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Counts what ten of each decision allocate.
#[derive(Default)]
struct Bounds {
    measured: usize,
    broken: Vec<String>,
}

impl Measure for Bounds {
    fn measure<I, O>(
        &mut self,
        name: &str,
        most: Allocations,
        mut prepare: impl FnMut() -> I,
        mut decide: impl FnMut(I) -> O,
    ) {
        self.measured += 1;
        let counts = (0..10).map(|_| {
            let input = prepare();
            counted(|| decide(input)).1
        });
        let above = |allocated: &Allocations| allocated.count > most.count || allocated.bytes > most.bytes;
        self.broken.extend(counts.filter(above).map(|allocated| format!("{name}: {allocated:?}, above {most:?}")));
    }
}

#[test]
fn no_decision_allocates_more_than_it_may() {
    let mut bounds = Bounds::default();
    decisions::measure_all(&mut bounds);
    assert!(bounds.broken.is_empty(), "{:#?}", bounds.broken);
    assert!(bounds.measured >= 16, "{} were measured", bounds.measured);
}

/// Or the bounds would hold whatever is allocated.
#[test]
fn what_is_allocated_is_counted() {
    let (list, allocated) = counted(|| {
        let mut list: Vec<u64> = Vec::with_capacity(4);
        list.extend([1, 2, 3, 4]);
        list.reserve_exact(4);
        list
    });
    assert_eq!((list.len(), allocated), (4, Allocations { count: 2, bytes: 32 + 64 }));
}
