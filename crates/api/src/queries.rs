//! The questions: each file has a question's parameters, its rows and how to send it; its SQL is beside it.

pub mod daily;
pub mod duplicates;
pub mod logins;
pub mod neighbours;
pub mod rings;
pub mod tokens;
pub mod users;

pub use crate::freshness;
pub use crate::rows::{NoParameters, Page, Row};
