//! What the programs ask of AWS, and what AWS asks of them.

pub mod custom_resource;
pub mod rds_auth_token;
pub mod secrets;
