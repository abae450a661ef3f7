//! Masks a [`Login`]: this is the list of what is masked.

use std::borrow::Cow;

use crate::decode::{Arrival, Login};
use crate::pii::{DeviceId, Ip, Masked, Masker};

/// A row of `user_logins`, with nothing in it that has to be masked.
///
/// It has no `Debug`, since a user's id is personal too.
#[expect(missing_debug_implementations, reason = "a user's id is personal data")]
pub struct LoginRow<'m> {
    /// Which message it came in.
    pub arrival: Arrival,
    /// The column `user_id`.
    pub user_id: Cow<'m, str>,
    /// The column `device_type`.
    pub device_type: Option<Cow<'m, str>>,
    /// The column `masked_ip`.
    pub masked_ip: Option<Masked<Ip>>,
    /// The column `masked_device_id`.
    pub masked_device_id: Option<Masked<DeviceId>>,
    /// The column `locale`.
    pub locale: Option<Cow<'m, str>>,
    /// The column `app_version`.
    pub app_version: Option<i32>,
}

/// Masks a login; what is absent stays absent.
#[must_use]
pub fn mask<'m>(login: Login<'m, '_>, masker: &mut Masker) -> LoginRow<'m> {
    LoginRow {
        arrival: login.arrival,
        user_id: login.user_id,
        device_type: login.device_type,
        masked_ip: login.ip.map(|ip| masker.mask(&ip)),
        masked_device_id: login.device_id.map(|device_id| masker.mask(&device_id)),
        locale: login.locale,
        app_version: login.app_version,
    }
}
