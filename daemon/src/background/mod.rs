//! Reconcilers: each takes no input, is idempotent, and runs when woken and on a period.

mod environments;
mod housekeeping;
mod recorder;
mod schedulers;
pub mod steps;

pub use environments::EnvironmentReconciler;
pub use housekeeping::Housekeeper;
pub use schedulers::SchedulerObserver;
