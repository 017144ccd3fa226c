//! The one error type, sorted by who has to act.

use std::ops::RangeBounds;
use std::path::{Path, PathBuf};

/// What went wrong, sorted by who has to act on it.
///
/// Doubt about a measurement is never an error: it is a [flag](crate::Flags) on the detection.
/// A frame without streaks gives an empty list.
///
/// ```
/// use skystreak::{Error, Frame};
///
/// let error = Frame::new(vec![0_u16; 10], 4, 4).unwrap_err();
/// assert!(matches!(error, Error::Input(_)));
/// assert_eq!(error.to_string(), "input: 10 pixels given, a frame of 4 x 4 (width x height) needs 16");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The frame, or the file it came from, cannot be used.
    #[error("input: {0}")]
    Input(String),
    /// A setting is out of its range.
    #[error("config: {0}")]
    Config(String),
    /// The request is larger than the device, or the memory limit, allows.
    #[error("limit: {what} needs {requested}, at most {allowed} is allowed")]
    Limit {
        /// What is too large.
        what: String,
        /// How much was asked for.
        requested: u64,
        /// How much can be had.
        allowed: u64,
    },
    /// No such device, or the device failed.
    #[error("device: {0}")]
    Device(String),
    /// A file could not be read or written.
    #[error("io: {message}: {}", path.display())]
    Io {
        /// What failed.
        message: String,
        /// The file.
        path: PathBuf,
    },
}

impl Error {
    pub(crate) fn io(message: impl Into<String>, path: &Path) -> Self {
        Self::Io { message: message.into(), path: path.to_owned() }
    }

    /// True when another frame, or a repaired file, may succeed with the same detector.
    #[must_use]
    pub fn is_input(&self) -> bool {
        matches!(self, Self::Input(_) | Self::Io { .. })
    }

    /// True when the device is missing or failed: another device may succeed.
    #[must_use]
    pub fn is_device(&self) -> bool {
        matches!(self, Self::Device(_))
    }
}

/// A setting's value must lie in a range; a NaN lies in none.
pub(crate) fn require(name: &str, value: f64, range: impl RangeBounds<f64>, rule: &str) -> Result<()> {
    if range.contains(&value) { Ok(()) } else { Err(Error::Config(format!("{name} is {value}, it must be {rule}"))) }
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
