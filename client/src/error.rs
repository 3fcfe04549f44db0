//! Why a command failed, and whose fault it is. docs/src/reference/exit-codes.md lists the exit codes.

use std::process::ExitCode;

use airflow_serverless_api::{Problem, problem::Fault};

/// The result of a command that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// 0
    Success,
    /// 1: the command was carried out, but what it waited for failed (a run, a creation).
    Failure,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Success => Self::SUCCESS,
            ExitStatus::Failure => Self::FAILURE,
        }
    }
}

#[derive(Debug)]
pub enum CliError {
    /// The input is at fault (exit code 1): refused here or by the daemon.
    Refused(Box<Problem>),
    /// The daemon, or something that it depends on, is at fault (exit code 3).
    Failed(Box<Problem>),
    /// The daemon cannot be reached, or this program is at fault (exit code 3).
    Unexpected { message: String, hint: Option<String> },
}

impl CliError {
    /// Creates an error about input that is refused without a request.
    pub fn input(detail: impl Into<String>, errors: Vec<Fault>, hint: Option<&str>) -> Self {
        Self::Refused(Box::new(Problem {
            kind: format!("{}invalid-input", Problem::NAMESPACE),
            title: "Invalid input".to_owned(),
            status: 400,
            detail: detail.into(),
            hint: hint.map(ToOwned::to_owned),
            errors,
        }))
    }

    pub fn unexpected(doing: &str, error: impl std::error::Error) -> Self {
        let mut message = format!("{doing} failed: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self::Unexpected { message, hint: None }
    }

    /// Returns the failure as a problem of the API, for `--json`.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused(problem) | Self::Failed(problem) => (**problem).clone(),
            Self::Unexpected { message, hint } => Problem {
                kind: format!("{}internal", Problem::NAMESPACE),
                title: "The daemon cannot be reached or failed".to_owned(),
                status: 500,
                detail: message.clone(),
                hint: hint.clone(),
                errors: Vec::new(),
            },
        }
    }

    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Refused(_) => ExitCode::from(1),
            Self::Failed(_) | Self::Unexpected { .. } => ExitCode::from(3),
        }
    }
}

impl From<Problem> for CliError {
    fn from(problem: Problem) -> Self {
        if problem.status >= 500 { Self::Failed(problem.into()) } else { Self::Refused(problem.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_of_the_daemon_is_kept_and_sets_the_exit_code() {
        let problem = |status| Problem {
            kind: format!("{}modal-unreachable", Problem::NAMESPACE),
            title: "Modal cannot be reached".to_owned(),
            status,
            detail: "no route".to_owned(),
            hint: None,
            errors: vec![Fault::new("a", "b")],
        };
        for (status, code) in [(502, 3), (409, 1)] {
            let failure = CliError::from(problem(status));
            assert_eq!(failure.problem(), problem(status));
            assert_eq!(failure.exit_code(), ExitCode::from(code));
        }
    }
}
