//! The templates and their values.

use askama::Template;
use jiff::ToSpan as _;
use jiff::civil::Date;

use super::bars::{Bar, bars};
use super::drawing::{Drawing, Neighbourhood};
use super::filters;
use super::links::Offer;
use super::text;
use crate::parameters::{Day, Field, Period, Token};
use crate::queries::Row as _;
use crate::queries::duplicates::Duplicate;
use crate::queries::freshness::Freshness;
use crate::queries::rings::{Ring, RingMember};
use crate::queries::tokens::{MAX_LISTED_USERS, TokenPeriod, TokenUser};
use crate::queries::users::UserToken;

pub(super) const STYLE: &str = include_str!("../../templates/style.css");
pub(super) const ICON: &str = include_str!("../../templates/icon.svg");

/// The largest view, in bytes.
const MAX_SIZE: usize = 60_000;

/// The parts of all views: a title, and how fresh the view is.
pub(super) struct Frame {
    pub(super) title: String,
    /// The relative path to `/`, which works behind any prefix of the path.
    pub(super) root: String,
    /// None in an error.
    pub(super) freshness: Option<Freshness>,
}

/// Logins by day, drawn as bars.
pub(super) struct Chart {
    name: &'static str,
    top: i64,
    days: Vec<ChartDay>,
}

struct ChartDay {
    day: Date,
    logins: i64,
    users: i64,
    bar: Bar,
}

#[derive(Template)]
#[template(path = "overview.html")]
pub(super) struct Overview {
    pub(super) frame: Frame,
    pub(super) days: i64,
    pub(super) chart: Chart,
    pub(super) daily_offer: Offer,
    pub(super) groups: [Group; 2],
    pub(super) rings: Vec<Ring>,
    pub(super) rings_offer: Offer,
}

/// The most shared tokens of a field.
pub(super) struct Group {
    pub(super) field: Field,
    pub(super) rows: Vec<Duplicate>,
    pub(super) offer: Offer,
}

#[derive(Template)]
#[template(path = "duplicates.html")]
pub(super) struct Duplicates {
    pub(super) frame: Frame,
    pub(super) field: Field,
    pub(super) period: Period,
    pub(super) min_users: i64,
    pub(super) rows: Vec<Duplicate>,
    pub(super) next: Option<String>,
    pub(super) offer: Offer,
}

#[derive(Template)]
#[template(path = "rings.html")]
pub(super) struct Rings {
    pub(super) frame: Frame,
    pub(super) rows: Vec<Ring>,
    pub(super) next: Option<String>,
    pub(super) offer: Offer,
}

#[derive(Template)]
#[template(path = "ring.html")]
pub(super) struct OneRing {
    pub(super) frame: Frame,
    pub(super) ring: Ring,
    pub(super) offer: Offer,
    pub(super) devices: Vec<Duplicate>,
    pub(super) devices_offer: Offer,
    pub(super) members: Vec<RingMember>,
    pub(super) next: Option<String>,
    pub(super) members_offer: Offer,
}

#[derive(Template)]
#[template(path = "token.html")]
pub(super) struct OneToken {
    pub(super) frame: Frame,
    pub(super) token: Token,
    pub(super) periods: Vec<TokenPeriod>,
    pub(super) offer: Offer,
    pub(super) chart: Chart,
    pub(super) chart_offer: Offer,
    pub(super) depth: i64,
    pub(super) neighbourhood: Neighbourhood,
    pub(super) drawing: Drawing,
    pub(super) drawing_offer: Offer,
    pub(super) users: Vec<TokenUser>,
    pub(super) users_limit: u32,
    pub(super) users_offer: Offer,
}

#[derive(Template)]
#[template(path = "user.html")]
pub(super) struct OneUser {
    pub(super) frame: Frame,
    pub(super) user_id: String,
    pub(super) rows: Vec<UserToken>,
    pub(super) is_cut: bool,
    pub(super) offer: Offer,
}

#[derive(Template)]
#[template(path = "error.html")]
pub(super) struct Error {
    pub(super) frame: Frame,
    pub(super) explanation: String,
}

/// Writes a view as HTML.
pub(super) fn html(view: &impl Template) -> String {
    view.render().unwrap_or_else(|_| unreachable!("memory takes all texts"))
}

impl Frame {
    /// The latest day in the rollups.
    pub(super) fn last_day(&self) -> Day {
        self.freshness.as_ref().map_or(Day(Date::ZERO), Freshness::last_day)
    }

    pub(super) fn titled(self, title: impl Into<String>) -> Self {
        Self { title: title.into(), ..self }
    }
}

impl Chart {
    /// Draws the logins and users of the `length` days that end on `last`. A day without a count has no logins.
    pub(super) fn new(
        name: &'static str,
        last: Date,
        length: i64,
        counts: impl Iterator<Item = (Date, i64, i64)>,
    ) -> Self {
        let mut days: Vec<_> =
            (0..length).rev().map(|back| (last.saturating_sub(back.days()), 0, 0)).collect();
        for count in counts {
            if let Some(day) = days.iter_mut().find(|day| day.0 == count.0) {
                *day = count;
            }
        }
        let (bars, top) = bars(&days.iter().map(|day| day.1).collect::<Vec<_>>());
        let days = days.into_iter().zip(bars);
        let days = days.map(|((day, logins, users), bar)| ChartDay { day, logins, users, bar });
        Self { name, top, days: days.collect() }
    }

    fn is_empty(&self) -> bool {
        self.days.iter().all(|day| day.logins == 0)
    }
}

impl Group {
    fn heading(&self) -> &'static str {
        match self.field {
            Field::DeviceId => "Shared devices",
            Field::Ip => "Shared addresses",
        }
    }

    fn caption(&self) -> String {
        caption(self.field, Period::Month, 2)
    }
}

impl Duplicates {
    fn caption(&self) -> String {
        caption(self.field, self.period, self.min_users)
    }
}

impl OneToken {
    /// Writes the view. If it is too large, the nearest neighbours stay, then the first users.
    pub(super) fn fitting_html(mut self) -> String {
        loop {
            let html = html(&self);
            let (nodes, users) = (self.drawing.nodes.len(), self.users.len());
            if html.len() <= MAX_SIZE || users <= 1 {
                return html;
            }
            if nodes > 10 {
                self.drawing = self.neighbourhood.draw(nodes - nodes / 8);
            } else {
                self.users.truncate(users / 2);
            }
        }
    }

    /// Whether the token has too many users for a neighbourhood.
    fn is_hub(&self) -> bool {
        self.drawing.nodes.first().is_some_and(|root| root.node.hub)
    }

    /// Whether the token has more users than the database lists.
    fn is_cut(&self) -> bool {
        self.periods.iter().any(|period| period.users > MAX_LISTED_USERS)
    }

    fn ring(&self) -> Option<&Token> {
        self.periods.iter().find_map(|period| period.ring.as_ref())
    }

    fn next_users(&self) -> Option<String> {
        self.users.last().filter(|_| self.users.len() >= self.users_limit as usize)?.position()
    }
}

fn caption(field: Field, period: Period, min_users: i64) -> String {
    let tokens = match field {
        Field::DeviceId => "Devices",
        Field::Ip => "Addresses",
    };
    let days = match period {
        Period::Day => "on the last day",
        Period::Week => "in the last 7 days",
        Period::Month => "in the last 28 days",
        Period::All => "in all time",
    };
    format!("{tokens} with at least {} users {days}, most users first", text::separate_thousands(min_users))
}
