//! The stack itself, and its alarms.

use aws_sdk_cloudformation::types::StackStatus;
use aws_sdk_cloudwatch::types::{AlarmType, StateValue};
use serde_json::json;

use super::report::Part;
use crate::aws;
use crate::error::Error;
use crate::stack::Stack;

const ALARMS: &str = "docs/operations.md#alarms";

/// Shows whether the last deployment is complete.
pub(super) async fn deployment(stack: &Stack) -> Part {
    const RUNBOOK: &str = "docs/deployment.md#if-a-later-deployment-fails";
    const FIRST: &str = "docs/deployment.md#if-the-first-deployment-fails";
    let read = async {
        let answer = stack.aws.cloudformation().describe_stacks().stack_name(&stack.name).send().await;
        let answer = answer.map_err(|error| aws::failure("DescribeStacks", &error))?;
        let status = answer.stacks().first().and_then(|found| found.stack_status());
        let status =
            status.ok_or_else(|| Error::Failed("CloudFormation did not return a status".to_owned()))?;
        let is_well = matches!(
            status,
            StackStatus::CreateComplete
                | StackStatus::UpdateComplete
                | StackStatus::UpdateCompleteCleanupInProgress
                | StackStatus::UpdateInProgress
                | StackStatus::ImportComplete
        );
        let text = status.as_str();
        // Later deployments have `UPDATE_…`.
        let is_first = ["CREATE", "ROLLBACK", "DELETE"].iter().any(|word| text.starts_with(word));
        let runbook = if is_first { FIRST } else { RUNBOOK };
        Ok(Part::new("deployment", runbook, is_well, text.to_owned(), json!({ "status": text })))
    };
    read.await.unwrap_or_else(|error: Error| Part::unknown("deployment", RUNBOOK, &error))
}

/// Shows the alarms of the stack that are in the state ALARM.
pub(super) async fn alarms(stack: &Stack) -> Part {
    read_alarms(stack).await.unwrap_or_else(|error| Part::unknown("alarms", ALARMS, &error))
}

async fn read_alarms(stack: &Stack) -> Result<Part, Error> {
    let names = alarm_names(stack).await?;
    let mut raised = Vec::new();
    let mut states = serde_json::Map::new();
    // CloudWatch takes 100 names in one request.
    for names in names.chunks(100) {
        let mut request =
            stack.aws.cloudwatch().describe_alarms().alarm_types(AlarmType::MetricAlarm).max_records(100);
        for name in names {
            request = request.alarm_names(name);
        }
        let answer = request.send().await.map_err(|error| aws::failure("DescribeAlarms", &error))?;
        for alarm in answer.metric_alarms() {
            let (Some(name), Some(state)) = (alarm.alarm_name(), alarm.state_value()) else { continue };
            let name = name.strip_prefix(&format!("{}-", stack.name)).unwrap_or(name);
            states.insert(name.to_owned(), state.as_str().into());
            if *state == StateValue::Alarm {
                raised.push(name.to_owned());
            }
        }
    }
    if states.len() < names.len() {
        let number = names.len() - states.len();
        return Err(Error::Failed(format!("{number} of the stack's {} alarms are gone", names.len())));
    }
    raised.sort();
    let text = match (states.len(), &*raised) {
        (0, _) => "the stack has no alarm".to_owned(),
        (number, []) => format!("none of {number} is on"),
        (_, raised) => format!("on: {}", raised.join(", ")),
    };
    let is_well = raised.is_empty() && !states.is_empty();
    Ok(Part::new("alarms", ALARMS, is_well, text, states.into()))
}

/// Returns the names of the stack's alarms. Another stack's alarms may begin with the name of this stack.
async fn alarm_names(stack: &Stack) -> Result<Vec<String>, Error> {
    let mut pages =
        stack.aws.cloudformation().list_stack_resources().stack_name(&stack.name).into_paginator().send();
    let mut names = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| aws::failure("ListStackResources", &error))?;
        let alarms = page
            .stack_resource_summaries()
            .iter()
            .filter(|resource| resource.resource_type() == Some("AWS::CloudWatch::Alarm"));
        names.extend(alarms.filter_map(|resource| resource.physical_resource_id().map(ToOwned::to_owned)));
    }
    Ok(names)
}
