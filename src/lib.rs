//! Finds streaks in raw optical sensor frames, on any GPU or none.
//!
//! A [`Frame`] of raw pixels goes in, a [`Report`] with [`Detection`]s comes out: end points with their covariance, flux,
//! width, S/N and doubts. The search is blind; [`DetectorConfig::false_alarms_per_frame`] is its only threshold.
//!
//! ```
//! use skystreak::{Detector, DetectorConfig, Device, Frame, Segment, simulate};
//!
//! let (width, height) = (200, 160);
//! let mut pixels = simulate::gaussian_frame(width, height, 7, 1.0);
//! let truth = Segment::from_coordinates(40.0, 30.0, 140.0, 90.0);
//! simulate::add_streak(&mut pixels, width, &truth, 1.5, 700.0);
//!
//! let config = DetectorConfig { device: Device::Cpu, psf_sigma_px: Some(1.5), ..DetectorConfig::default() };
//! let report = Detector::new(config)?.detect(&Frame::new(&pixels, width, height)?)?;
//! let streak = &report.detections[0];
//! assert!(streak.midpoint_along_across_err_px().1 < 0.5);
//! # Ok::<(), skystreak::Error>(())
//! ```
//!
//! # Conventions
//!
//! Pixel (0, 0) has its centre at (0.0, 0.0); `x` runs along a row. Angles are radians from +x towards +y. End points
//! are the geometric ends of the track, the one of smaller x (then y) first. Missing pixels have weight zero; no pixel
//! value is special. All of them: `docs/conventions.md`.
//!
//! # Features
//!
//! - `gpu` (default): the GPU backend, through wgpu. Without it every capability remains, on the CPU.
//! - `fits` (default): [`io::fits`], with a bundled CFITSIO.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod detection;
mod detector;
mod device;
mod error;
pub mod export;
mod fixed_pattern;
mod frame;
mod gauss;
mod geometry;
pub mod io;
mod pipeline;
mod reference;
mod report;
pub mod simulate;
mod stream;

pub use detection::{AlongIntervals, Detection, EndCovariance, Flags, FluxUnit, Kind, LightCurve, Role};
pub use detector::{Candidate, Detector, DetectorConfig, Sky};
pub use device::{Device, DeviceInfo, devices};
pub use error::{Error, Result};
pub use fixed_pattern::FixedPattern;
pub use frame::{Frame, MAX_SIDE_PX, Pixels, Times};
pub use geometry::{Point, Segment, track_angle_difference};
pub use pipeline::background::BackgroundConfig;
pub use pipeline::judge::JudgeConfig;
pub use pipeline::search::SearchConfig;
pub use pipeline::tracking::Tracking;
pub use pipeline::weigh::WeighConfig;
pub use reference::Reference;
pub use report::{FrameFlag, PsfSource, RejectReason, Rejected, Report, TrackingMode};
pub use stream::{StreamConfig, StreamSummary};

/// The README's example is compiled and run as well.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
