//! The functions, and the mappings through which Lambda reads the queues.

use aws_sdk_lambda::types::{EventSourceMappingConfiguration, LastUpdateStatus, State};
use serde_json::json;

use super::report::Part;
use crate::aws;
use crate::concurrency;
use crate::error::Error;
use crate::stack::Stack;

/// Shows whether Lambda reads the login queue, and does not read the dead-letter queue.
pub(super) async fn mappings(stack: &Stack) -> Part {
    const RUNBOOK: &str = "docs/operations.md#check-the-event-source-mapping";
    read_mappings(stack, RUNBOOK).await.unwrap_or_else(|error| Part::unknown("mappings", RUNBOOK, &error))
}

/// Shows whether the last change of each function is complete, and whether somebody throttled the ingest function.
pub(super) async fn functions(stack: &Stack) -> Part {
    const RUNBOOK: &str = "docs/operations.md#error-types";
    read_functions(stack, RUNBOOK).await.unwrap_or_else(|error| Part::unknown("functions", RUNBOOK, &error))
}

async fn read_mappings(stack: &Stack, runbook: &'static str) -> Result<Part, Error> {
    let redrive_id = stack.output("RedriveMappingId")?;
    let function = stack.output("FunctionName")?;
    let answer = stack.aws.lambda().list_event_source_mappings().function_name(function).send().await;
    let answer = answer.map_err(|error| aws::failure("ListEventSourceMappings", &error))?;
    let mappings = answer.event_source_mappings();
    let redrive = mappings.iter().find(|mapping| mapping.uuid() == Some(redrive_id));
    let redrive = redrive.and_then(EventSourceMappingConfiguration::state);
    let queue = stack.output("QueueUrl")?.rsplit('/').next();
    let reads_logins = |mapping: &&EventSourceMappingConfiguration| {
        mapping.event_source_arn().is_some_and(|arn| arn.rsplit(':').next() == queue)
    };
    let login = mappings.iter().find(reads_logins);
    let login_state = login.and_then(EventSourceMappingConfiguration::state);
    let redrive_in_words = match redrive {
        Some("Disabled") => "redrive Disabled".to_owned(),
        state => format!("the redrive mapping is on ({})", state.unwrap_or("missing")),
    };
    let result = login.and_then(EventSourceMappingConfiguration::last_processing_result);
    let problem = result.filter(|result| result.starts_with("PROBLEM"));
    let is_well = login_state == Some("Enabled") && redrive == Some("Disabled") && problem.is_none();
    let problem = problem.map(|problem| format!(", last result: {problem}")).unwrap_or_default();
    let text = format!("login queue {}, {redrive_in_words}{problem}", login_state.unwrap_or("missing"));
    let values = json!({ "login": login_state, "redrive": redrive, "last_result": result });
    Ok(Part::new("mappings", runbook, is_well, text, values))
}

async fn read_functions(stack: &Stack, runbook: &'static str) -> Result<Part, Error> {
    let mut is_well = true;
    let mut texts = Vec::new();
    let mut values = serde_json::Map::new();
    for (name, output) in [("ingest", "FunctionName"), ("migrate", "MigrateFunctionName")] {
        let function = stack.output(output)?;
        let answer = stack.aws.lambda().get_function_configuration().function_name(function).send().await;
        let answer = answer.map_err(|error| aws::failure("GetFunctionConfiguration", &error))?;
        let update = answer.last_update_status();
        is_well &=
            !matches!(answer.state(), Some(State::Failed)) && update != Some(&LastUpdateStatus::Failed);
        let update = update.map_or("unknown", LastUpdateStatus::as_str);
        texts.push(format!("{name}: last update {update}"));
        values.insert(name.to_owned(), update.into());
    }
    if concurrency::reserved(stack).await? == Some(0) {
        is_well = false;
        texts.push("ingest: reserved concurrency 0, somebody clicked Throttle".to_owned());
    }
    Ok(Part::new("functions", runbook, is_well, texts.join(", "), values.into()))
}
