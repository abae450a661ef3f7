//! AWS: the secrets, the login to RDS by IAM, the queue, and CloudFormation's requests.

pub mod bucket;
pub mod custom_resource;
pub mod login_queue;
pub mod rds_auth_token;
pub mod secrets;
