//! How long decisions take, and how much they allocate. Each is made per segment, so at 18 segments a second (290
//! MiB/s) even a millisecond would be too much for one of them. Ends with 1 if one allocates more than it may.

use std::process::ExitCode;

use allocations::{Allocations, Counting, counted};
use criterion::{BatchSize, Criterion};
use decisions::Measure;

mod allocations;
mod decisions;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Prints how much each decision allocates, and times it.
struct Bench {
    criterion: Criterion,
    too_much: bool,
}

impl Measure for Bench {
    fn measure<I, O>(
        &mut self,
        name: &str,
        most: Allocations,
        mut prepare: impl FnMut() -> I,
        mut decide: impl FnMut(I) -> O,
    ) {
        let input = prepare();
        let (_, Allocations { count, bytes }) = counted(|| decide(input));
        println!("{name}: {count} allocations of {bytes} bytes");
        if count > most.count || bytes > most.bytes {
            eprintln!("{name}: that is more than {} of {} bytes", most.count, most.bytes);
            self.too_much = true;
        }
        self.criterion.bench_function(name, |b| b.iter_batched(&mut prepare, &mut decide, BatchSize::SmallInput));
    }
}

fn main() -> ExitCode {
    let mut bench = Bench { criterion: Criterion::default().configure_from_args(), too_much: false };
    decisions::measure_all(&mut bench);
    bench.criterion.final_summary();
    if bench.too_much { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
