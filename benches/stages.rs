//! Measures the pure stages on an event of 1,000 messages; a million elements a second is 1 µs a
//! message. And what it costs to tell of a batch, whatever its size, and of a message that failed.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use login_etl::report::Reason;
use login_etl::telemetry::batch::Batch;
use login_etl::telemetry::{self, Format};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

mod batch;

criterion_group!(benches, stages, telemetry);
criterion_main!(benches);

/// Measures each stage without the making of what it is given, and then all of them together.
fn stages(criterion: &mut Criterion) {
    let event = batch::event();
    let mut masker = batch::masker();
    let messages = batch::read(&event);
    let mut scratches = batch::scratches();
    let mut group = criterion.benchmark_group("stages");
    group.throughput(Throughput::Elements(batch::MESSAGES as u64));
    group.bench_function("read", |bench| bench.iter(|| batch::read(&event)));
    group.bench_function("decode", |bench| bench.iter(|| drop(batch::decode(&messages, &mut scratches))));
    group.bench_function("mask", |bench| {
        bench.iter_custom(|rounds| {
            let mut round = || {
                let logins = batch::decode(&messages, &mut scratches);
                let started = Instant::now();
                let rows = batch::mask(logins, &mut masker);
                let elapsed = started.elapsed();
                drop(rows);
                elapsed
            };
            (0..rounds).map(|_| round()).sum()
        });
    });
    group.bench_function("all", |bench| {
        bench.iter(|| {
            let messages = batch::read(&event);
            let mut scratches = batch::scratches();
            batch::mask(batch::decode(&messages, &mut scratches), &mut masker)
        });
    });
    group.finish();
}

/// Measures the lines of a batch with all of its measuring, written to where they cost a system call
/// and no more.
fn telemetry(criterion: &mut Criterion) {
    let nowhere = File::create("/dev/null").unwrap_or_else(|error| unreachable!("{error}"));
    let filter = Targets::new().with_default(tracing::Level::INFO);
    tracing_subscriber::registry().with(telemetry::lines(filter, Format::Json, Arc::new(nowhere))).init();
    let event = batch::event();
    let messages = batch::read(&event);
    let mut group = criterion.benchmark_group("telemetry");
    group.bench_function("a batch", |bench| bench.iter(|| tell(|_| ())));
    group.bench_function("a batch with a failed message", |bench| {
        bench.iter(|| tell(|batch| batch.message_failed(&messages[0], &Reason::HeldBack)));
    });
    group.finish();
}

fn tell(failed: impl FnOnce(&mut Batch<'_>)) {
    let mut batch = Batch::begin("8476a536-e9f4-11e8-9739-2dfe598c3fcd", "bench", Duration::from_secs(30));
    batch.read(batch::MESSAGES, Some(SystemTime::UNIX_EPOCH));
    batch.stored();
    failed(&mut batch);
    batch.done(batch::MESSAGES as u64);
}
