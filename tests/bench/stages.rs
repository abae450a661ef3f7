//! Measures the pure stages on an event of 1,000 messages; a million elements a second is 1 µs a
//! message.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

mod batch;

criterion_group!(benches, stages);
criterion_main!(benches);

/// Measures each stage without the making of what it is given, and then all of them together.
fn stages(criterion: &mut Criterion) {
    let event = batch::event();
    let masker = batch::masker();
    let messages = batch::read(&event);
    let mut group = criterion.benchmark_group("stages");
    group.throughput(Throughput::Elements(batch::MESSAGES as u64));
    group.bench_function("read", |bench| bench.iter(|| batch::read(&event)));
    group.bench_function("decode", |bench| bench.iter(|| batch::decode(&messages)));
    group.bench_function("mask", |bench| {
        let logins = || batch::decode(&messages);
        bench.iter_batched(logins, |logins| batch::mask(logins, &masker), BatchSize::LargeInput);
    });
    group.bench_function("all", |bench| {
        bench.iter(|| batch::mask(batch::decode(&batch::read(&event)), &masker));
    });
    group.finish();
}
