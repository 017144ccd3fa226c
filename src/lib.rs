//! Finds streaks in raw optical sensor frames, on any GPU or none.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod detection;
mod detector;
mod device;
mod error;
pub mod export;
mod frame;
mod geometry;
pub mod io;
mod pipeline;
pub mod simulate;

pub use detection::{
    Detection, EndCovariance, Flags, FluxUnit, FrameFlag, Kind, PsfSource, RejectReason, Rejected, Report, Role,
    TrackingMode,
};
pub use detector::{Detector, DetectorConfig, Sky};
pub use device::{Device, DeviceInfo, devices};
pub use error::{Error, Result};
pub use frame::{Frame, MAX_SIDE_PX, Pixels, Times};
pub use geometry::{Point, Segment, track_angle_difference};
pub use pipeline::background::BackgroundConfig;
pub use pipeline::judge::JudgeConfig;
pub use pipeline::search::SearchConfig;
pub use pipeline::tracking::Tracking;
pub use pipeline::weigh::WeighConfig;
