//! Masks a [`Login`]. This module is the list of the masked fields.

use std::borrow::Cow;

use crate::decode::Login;
use crate::pii::{DeviceId, Ip, Masked, Masker};

/// A row of `user_logins`, without `create_date`. Its fields are named for their columns.
#[expect(missing_debug_implementations, reason = "a user id is personal data")]
#[expect(missing_docs, reason = "each is named for its column")]
pub struct LoginRow<'m> {
    pub user_id: Cow<'m, str>,
    pub device_type: Option<Cow<'m, str>>,
    pub masked_ip: Option<Masked<Ip>>,
    pub masked_device_id: Option<Masked<DeviceId>>,
    pub locale: Option<Cow<'m, str>>,
    pub app_version: Option<i32>,
}

/// Masks a login. An absent value stays absent.
#[must_use]
pub fn mask<'m>(login: Login<'m>, masker: &mut Masker) -> LoginRow<'m> {
    LoginRow {
        user_id: login.user_id,
        device_type: login.device_type,
        masked_ip: login.ip.map(|ip| masker.mask(&ip)),
        masked_device_id: login.device_id.map(|device_id| masker.mask(&device_id)),
        locale: login.locale,
        app_version: login.app_version,
    }
}
