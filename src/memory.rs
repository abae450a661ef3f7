//! The memory of the process, which holds secrets.

/// Keeps the memory of this process out of core files and debuggers.
///
/// # Errors
///
/// The system refuses.
#[cfg(target_os = "linux")]
pub fn keep_private() -> std::io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Does nothing: functions are deployed on Linux only.
///
/// # Errors
///
/// Never.
#[cfg(not(target_os = "linux"))]
pub fn keep_private() -> std::io::Result<()> {
    Ok(())
}
