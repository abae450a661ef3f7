//! `login-etl vault verify`: lets the vault open values at random, and says whether they open.

use std::fmt;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Outcome};
use crate::output::{self, Printer};
use crate::stack::StackOptions;
use crate::vault::{Vault, VaultOptions};

/// The state of a key with which KMS opened a value.
const WORKS: &str = "works";

/// Arguments of `vault verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// Number of values to open, 1 to 100
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=100))]
    sample: u16,
    #[command(flatten)]
    vault: VaultOptions,
}

#[derive(Serialize)]
struct Request {
    sample: u16,
}

/// The result, as the vault answers it. It has no value and no token.
#[derive(Debug, Deserialize, Serialize)]
struct Report {
    sampled: u32,
    opened: u32,
    unopenable: u32,
    audit_entries: Vec<i64>,
    keys: Vec<KeyState>,
    settings_have_current_key: Option<bool>,
}

#[derive(Debug, Deserialize, Serialize)]
struct KeyState {
    sha256: String,
    kms_key: String,
    accepted_at: String,
    is_current: bool,
    sealed: i64,
    /// `works`, or the name of an error; `None` if the key has no value that could be tried.
    kms: Option<String>,
}

/// Asks the vault to try itself.
pub(crate) async fn verify(
    options: &StackOptions,
    arguments: VerifyArguments,
    printer: Printer,
) -> Result<Outcome, Error> {
    let VerifyArguments { sample, vault } = arguments;
    let vault = Vault::find(options, vault).await?;
    let report: Report = vault.post("/verify", &Request { sample }).await?;
    printer.print(&report)?;
    Ok(report.outcome())
}

impl Report {
    fn outcome(&self) -> Outcome {
        let is_refused = |key: &KeyState| key.kms.as_deref().is_some_and(|state| state != WORKS);
        if self.unopenable > 0
            || self.keys.iter().any(is_refused)
            || self.settings_have_current_key == Some(false)
        {
            Outcome::Wrong
        } else if self.opened == 0 || self.settings_have_current_key.is_none() {
            Outcome::Bad
        } else {
            Outcome::Good
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.keys.iter().map(|key| {
            [
                key.sha256.clone(),
                key.accepted_at.clone(),
                if key.is_current { "yes" } else { "no" }.to_owned(),
                key.sealed.to_string(),
                key.kms.clone().unwrap_or_else(|| "not tried".to_owned()),
                key.kms_key.clone(),
            ]
        });
        let header = ["public key", "accepted at", "current", "sealed values", "KMS", "KMS key"];
        write!(f, "{}\n\n", output::table(header, rows))?;
        let Self { sampled, opened, unopenable, .. } = self;
        write!(f, "Of {sampled} values, {opened} opened and {unopenable} did not open. ")?;
        f.write_str(match self.settings_have_current_key {
            Some(true) => "The settings have the current key.",
            Some(false) => "The settings have another key than the current key.",
            None => "KMS does not tell the key of the settings.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(opened: u32, unopenable: u32, kms: Option<&str>, settings: Option<bool>) -> Report {
        Report {
            sampled: opened + unopenable,
            opened,
            unopenable,
            audit_entries: vec![1],
            keys: vec![KeyState {
                sha256: "0123456789abcdef".into(),
                kms_key: "arn:aws:kms:eu-central-1:111122223333:key/1".into(),
                accepted_at: "2026-11-27T00:00:00Z".into(),
                is_current: true,
                sealed: 3_000_000,
                kms: kms.map(Into::into),
            }],
            settings_have_current_key: settings,
        }
    }

    #[test]
    fn status_says_what_was_found() {
        for (report, expected) in [
            (report(10, 0, Some(WORKS), Some(true)), Outcome::Good),
            (report(9, 1, Some(WORKS), Some(true)), Outcome::Wrong),
            (report(0, 0, Some("KmsKeyDisabled"), None), Outcome::Wrong),
            (report(10, 0, Some(WORKS), Some(false)), Outcome::Wrong),
            (report(0, 0, None, Some(true)), Outcome::Bad),
            (report(10, 0, Some(WORKS), None), Outcome::Bad),
        ] {
            assert_eq!(report.outcome(), expected, "{report:?}");
        }
    }

    #[test]
    fn table_shows_each_key() {
        let text = report(9, 1, Some(WORKS), Some(true)).to_string();

        let row = "| 0123456789abcdef | 2026-11-27T00:00:00Z | yes     | 3000000       | works |";
        assert!(text.contains(row), "{text}");
        assert!(
            text.ends_with("Of 10 values, 9 opened and 1 did not open. The settings have the current key."),
            "{text}"
        );
    }
}
