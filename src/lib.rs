//! Finds streaks in raw optical sensor frames, on any GPU or none.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod detection;
mod error;
pub mod export;
mod frame;
mod geometry;
pub mod io;

pub use detection::{
    Detection, EndCovariance, Flags, FluxUnit, FrameFlag, Kind, PsfSource, RejectReason, Rejected, Report, Role,
    TrackingMode,
};
pub use error::{Error, Result};
pub use frame::{Frame, MAX_SIDE_PX, Pixels, Times};
pub use geometry::{Point, Segment, track_angle_difference};
