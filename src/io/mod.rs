//! Frames from and to files: the only place that knows FITS.

#[cfg(feature = "fits")]
pub mod write;
