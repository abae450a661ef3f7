//! Measures the pure stages on an event of 1,000 messages: a million elements a second is 1 µs a message.
//! Measures the log of a batch, which is the same for every size, and the log of a failed message.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use login::failures::FailureReason;
use login_etl::telemetry::batch::BatchLog;
use login_etl::telemetry::{self, Format};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

mod batch;

criterion_group!(benches, stages, telemetry);
criterion_main!(benches);

/// Measures each stage without the stages before it, and then all stages together.
fn stages(criterion: &mut Criterion) {
    let event = batch::event();
    let mut masker = batch::masker();
    let messages = batch::read(&event);
    let mut group = criterion.benchmark_group("stages");
    group.throughput(Throughput::Elements(batch::MESSAGES as u64));
    group.bench_function("read", |bench| bench.iter(|| batch::read(&event)));
    group.bench_function("decode", |bench| bench.iter(|| drop(batch::decode(&messages))));
    group.bench_function("mask", |bench| {
        bench.iter_custom(|rounds| {
            let mut round = || {
                let logins = batch::decode(&messages);
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
            drop(batch::mask(batch::decode(&messages), &mut masker));
        });
    });
    group.finish();
}

/// Measures the lines of a batch and the measuring behind them. They are written to `/dev/null`, which costs
/// a system call.
fn telemetry(criterion: &mut Criterion) {
    let dev_null = File::create("/dev/null").unwrap_or_else(|error| unreachable!("{error}"));
    let filter = Targets::new().with_default(tracing::Level::INFO);
    tracing_subscriber::registry()
        .with(telemetry::log_layer(filter, Format::Json, Arc::new(dev_null)))
        .init();
    let event = batch::event();
    let messages = batch::read(&event);
    let mut group = criterion.benchmark_group("telemetry");
    group.bench_function("a batch", |bench| bench.iter(|| log_batch(|_| ())));
    group.bench_function("a batch with a failed message", |bench| {
        bench.iter(|| log_batch(|log| log.message_failed(&messages[0], &FailureReason::HeldBack)));
    });
    group.finish();
}

fn log_batch(failed: impl FnOnce(&mut BatchLog<'_>)) {
    let mut log = BatchLog::start("8476a536-e9f4-11e8-9739-2dfe598c3fcd", "bench", Duration::from_secs(30));
    log.event_read(batch::MESSAGES, None, Some(SystemTime::UNIX_EPOCH));
    log.writing_ended();
    failed(&mut log);
    log.batch_done(batch::MESSAGES as u64);
}
