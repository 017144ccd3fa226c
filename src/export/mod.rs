//! A [`Report`](crate::Report) as text and as pixels, for programs and for people. Nothing is computed here.
//!
//! | module | gives | coordinates |
//! |---|---|---|
//! | [`json`] | one line per frame | 0-based |
//! | [`csv`] | one row per detection | 0-based |
//! | [`regions`] | a DS9 region file | 1-based, as DS9 has them |
//! | [`overlay`] | a picture with the detections outlined | |
//! | [`mask`] | the pixels under the detections | |

pub mod csv;
pub mod json;
pub mod mask;
pub mod overlay;
pub mod regions;

#[cfg(test)]
mod sample {
    use crate::{
        AlongIntervals, Detection, Flags, FluxUnit, FrameFlag, Kind, LightCurve, Point, PsfSource, RejectReason,
        Rejected, Report, Role, Segment, Times, TrackingMode,
    };

    /// A streak, a point and a star's trail in a frame of 60 x 40, and one rejected candidate.
    pub(super) fn report() -> Report {
        let streak = Detection {
            kind: Kind::Streak,
            role: Role::Target,
            segment: Segment::from_coordinates(10.0, 10.0, 40.0, 30.0),
            covariance_px2: [[0.01; 4]; 4],
            along_68_px: AlongIntervals { start_px: 0.2, end_px: 0.3, midpoint_px: 0.25, length_px: 0.4 },
            sigma_px: 1.5,
            sigma_err_px: 0.1,
            flux: 5000.0,
            flux_err: 50.0,
            flux_unit: FluxUnit::Electron,
            snr: 42.25,
            chi2_reduced: 1.1,
            fit_iterations: 3,
            sagitta_px: -0.25,
            sagitta_err_px: 0.2,
            light_curve: LightCurve {
                bin_px: 18.0,
                flux_per_px: vec![150.0, 120.0],
                flux_per_px_err: vec![5.0, f64::INFINITY],
            },
            flags: Flags::END1_OFF_FRAME | Flags::WIDE,
        };
        let place = Point::new(50.0, 5.0);
        let point = Detection { kind: Kind::Point, segment: Segment::new(place, place), snr: 20.0, ..streak.clone() };
        let star = Detection {
            role: Role::Star,
            segment: Segment::from_coordinates(5.0, 35.0, 25.0, 35.0),
            snr: 10.0,
            flags: Flags::default(),
            ..streak.clone()
        };
        Report {
            width: 60,
            height: 40,
            device: "cpu".into(),
            tracking: TrackingMode::Rate {
                star_length_px: 20.0,
                star_angle_rad: 0.0,
                star_length_err_px: 0.5,
                star_angle_err_rad: 0.25,
                n_stars: 1,
            },
            psf_sigma_px: 1.4,
            psf_source: PsfSource::Assumed,
            times: Some(Times {
                start_utc: Some("2026-01-01T00:00:00".into()),
                middle_utc: None,
                end_utc: None,
                rule: "DATE-OBS".into(),
            }),
            exposure_secs: Some(5.0),
            threshold_snr: 6.7,
            points_threshold_snr: Some(5.75),
            detections: vec![streak, point, star],
            rejected: vec![Rejected {
                segment: Segment::from_coordinates(0.0, 1.0, 2.0, 3.0),
                snr: 8.0,
                reason: RejectReason::DiffractionSpike,
            }],
            flags: vec![FrameFlag::PsfAssumed],
            stages_ms: vec![("upload", 2.0), ("condition", 1.0)],
            operations_ms: vec![("ingest", 1.5)],
            kernels_ms: vec![("fit", 0.25)],
            total_ms: 3.5,
        }
    }
}
