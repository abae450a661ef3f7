//! AWS: the secrets, the login to RDS by IAM, and CloudFormation's requests.

pub mod custom_resource;
pub mod rds_auth_token;
pub mod secrets;
