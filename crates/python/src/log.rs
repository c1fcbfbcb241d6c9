//! What the command would print, for Python's `logging`.

use pyo3::prelude::*;

/// A line of what the command would print.
pub enum Said {
    /// How work gets on.
    Info(String),
    /// What somebody should know.
    Warning(String),
}

impl Said {
    /// Gives the line to the logger `openelm`.
    pub fn to_python(self, py: Python<'_>) -> PyResult<()> {
        let logger = py.import("logging")?.call_method1("getLogger", ("openelm",))?;
        // The line is an argument: it may hold what a format would take for its own.
        match self {
            Self::Info(line) => logger.call_method1("info", ("%s", line)),
            Self::Warning(line) => logger.call_method1("warning", ("%s", line)),
        }?;
        Ok(())
    }
}
