//! The schema, and the salt that the database accepts.

use serde_json::json;

use super::report::Part;
use crate::error::Error;
use crate::invoke::Invoker;
use crate::salt::{self, SaltFingerprints, SchemaStatus};
use crate::stack::Stack;

const SALT_RUNBOOK: &str = "docs/operations.md#the-salt-changed";
/// Why a function cannot be invoked, or cannot reach Postgres.
const ERROR_TYPES: &str = "docs/operations.md#error-types";

/// Shows the version of the schema, and compares the accepted salt with the salt in Secrets Manager.
pub(super) async fn schema_and_salt(invoker: &Invoker, stack: &Stack) -> (Part, Part) {
    let (schema, salts) =
        tokio::join!(salt::schema_status(invoker, stack), salt::fingerprints(invoker, stack));
    let salt = match (&schema, &salts) {
        (Ok(schema), Ok(salts)) => salt_part(schema, salts),
        (Err(error), _) | (_, Err(error)) => Part::unknown("salt", ERROR_TYPES, error),
    };
    (schema_part(&schema), salt)
}

fn schema_part(schema: &Result<SchemaStatus, Error>) -> Part {
    const RUNBOOK: &str = "docs/operations.md#run-migrate";
    let schema = match schema {
        Ok(schema) => schema,
        Err(error) => return Part::unknown("schema", ERROR_TYPES, error),
    };
    let SchemaStatus { version, newest_version, .. } = schema;
    let number = |version: &Option<i32>| version.map_or("none".to_owned(), |version| version.to_string());
    // A schema that is newer than the function is well: a deployment was rolled back.
    let text = if version == newest_version {
        format!("version {}, the newest", number(version))
    } else {
        format!("version {}; the functions have {}", number(version), number(newest_version))
    };
    let values = json!({ "version": version, "newest_version": newest_version });
    Part::new("schema", RUNBOOK, version >= newest_version, text, values)
}

fn salt_part(schema: &SchemaStatus, salts: &SaltFingerprints) -> Part {
    let current = &salts.current;
    let (is_well, text) = match &schema.accepted_salt {
        None => (true, "not decided yet: the first row decides".to_owned()),
        Some(accepted) if accepted.fingerprint == *current => {
            (true, format!("{current} is accepted since {}", accepted.accepted_at))
        }
        Some(accepted) if salts.has_later_than(&accepted.fingerprint) => (
            true,
            format!(
                "{} is accepted since {}; the later salt {current} waits for resalt",
                accepted.fingerprint, accepted.accepted_at
            ),
        ),
        Some(accepted) => (
            false,
            format!(
                "Secrets Manager has {current}, but {} is accepted since {}",
                accepted.fingerprint, accepted.accepted_at
            ),
        ),
    };
    let values = json!({
        "accepted": schema.accepted_salt.as_ref().map(|salt| &salt.fingerprint),
        "current": current,
        "in_use": salts.in_use,
        "waits_for_resalt": schema
            .accepted_salt
            .as_ref()
            .is_some_and(|salt| salts.has_later_than(&salt.fingerprint)),
    });
    Part::new("salt", SALT_RUNBOOK, is_well, text, values)
}
