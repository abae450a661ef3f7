//! The filters of the templates.
#![expect(
    unreachable_pub,
    clippy::inline_always,
    clippy::trivially_copy_pass_by_ref,
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "askama's macro requires these signatures and writes the rest"
)]

use askama::{Result, Values, filter_fn};

use super::text;
use crate::parameters::{Field, Period};

#[filter_fn]
pub(super) fn number(number: &i64, _: &dyn Values) -> Result<String> {
    Ok(text::separate_thousands(*number))
}

#[filter_fn]
pub(super) fn short(token: &str, _: &dyn Values) -> Result<String> {
    Ok(text::shorten(token))
}

#[filter_fn]
pub(super) fn shown(id: &str, _: &dyn Values) -> Result<String> {
    Ok(text::show(id))
}

#[filter_fn]
pub(super) fn kind(field: &Field, _: &dyn Values) -> Result<&'static str> {
    Ok(text::kind(*field))
}

#[filter_fn]
pub(super) fn period_name(period: &Period, _: &dyn Values) -> Result<&'static str> {
    Ok(match period {
        Period::Day => "1 day",
        Period::Week => "7 days",
        Period::Month => "28 days",
        Period::All => "all time",
    })
}
