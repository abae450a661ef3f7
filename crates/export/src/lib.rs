//! Exports the days of `user_logins` to S3, each day as an object that is replaced whole.
//!
//! ```text
//! Postgres ── COPY … BINARY ──▶ copy ── encoder ──▶ Parquet parts ── bucket ──▶ S3
//!     ▲                                                                │
//!     └──────────────────────────── books ◀── day ◀────────────────────┘
//! ```
//!
//! Objects: `user_logins/dt=YYYY-MM-DD/part-00000.parquet`, or `part-00000` to `part-00015` of a large day.
//!
//! [`run`] finds the days that are due in the [`books`], the table `lake.exports`, and exports them over two connections:
//! a [`day`] begins when the rows of the day before are read. A day is one transaction: it locks the day, reads the day
//! and the ledger in one snapshot, compares the numbers, completes the upload and writes the books.

pub mod books;
pub mod bucket;
pub mod copy;
pub mod day;
pub mod encoder;
pub mod error;
pub mod run;
pub mod session;
pub mod settings;
