//! Frames from and to files. Nothing else in the crate opens a file that holds pixels.

#[cfg(feature = "fits")]
#[cfg_attr(docsrs, doc(cfg(feature = "fits")))]
pub mod fits;
