//! The analysts' API: read-only answers over the rollups in the schema `analytics`, and over `user_logins` itself.
//!
//! ```text
//! request ── parameters ──▶ handlers ── queries ──▶ Statement ── database ──▶ rows ── answer ──▶ JSON or CSV
//!                               └───────────────── Problem ────────────────────────┘
//! ```
//!
//! [`queries`] has one file for each question, with its SQL beside it. A query makes a
//! [`Statement`](statement::Statement): the database runs it, and [`as_sql`](database::Database::as_sql) writes it as
//! text that psql runs and that returns the same rows.
//!
//! [`router`] serves the same routes in Lambda and behind [`server`], the plain server.

pub mod answer;
pub mod authenticator;
pub mod caller;
pub mod cursor;
pub mod database;
pub mod etag;
pub mod freshness;
mod handlers;
pub mod lambda;
pub mod load_balancer;
pub mod negotiation;
mod openapi;
mod page;
pub mod parameters;
pub mod problem;
pub mod queries;
mod request;
pub mod request_log;
pub mod router;
pub mod rows;
pub mod server;
pub mod settings;
pub mod statement;
