//! A row, for the comparison of the program with the model.

/// A row as plain texts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) user_id: String,
    pub(crate) device_type: Option<String>,
    pub(crate) masked_ip: Option<String>,
    pub(crate) masked_device_id: Option<String>,
    pub(crate) locale: Option<String>,
    pub(crate) app_version: Option<i32>,
}
