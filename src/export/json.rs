//! JSON Lines: one object per frame, also when nothing is found.

use serde::{Serialize, Serializer};

use crate::{Detection, EndCovariance, FrameFlag, Rejected, Report, Times, TrackingMode};

/// What a line holds beside the fields that are always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Include {
    /// Rejected candidates.
    pub rejected: bool,
    /// The light curve of every streak.
    pub light_curves: bool,
}

/// The report of a frame as one line of JSON, without the line's end.
///
/// `frame_name` is written as given. Positions are 0-based
/// pixels, angles radians, times milliseconds in the order of the stages. A number that is not finite, such as the
/// angle's error of a point, is `null`.
///
/// # Panics
///
/// Never: every part of a report has a form in JSON.
#[must_use]
pub fn report_line(frame_name: &str, report: &Report, include: Include) -> String {
    let line = Line {
        frame: frame_name,
        width: report.width,
        height: report.height,
        device: &report.device,
        tracking: report.tracking.name(),
        star_trail: StarTrail::of(report.tracking),
        psf_sigma_px: report.psf_sigma_px,
        psf_source: report.psf_source.name(),
        exposure_s: report.exposure_secs,
        times: report.times.as_ref().map(TimesRecord::of),
        threshold_snr: report.threshold_snr,
        points_threshold_snr: report.points_threshold_snr,
        flags: report.flags.iter().copied().map(FrameFlag::name).collect(),
        elapsed_ms: Elapsed { total_ms: Some(report.total_ms), parts: &report.stages_ms },
        operations_ms: Elapsed { total_ms: None, parts: &report.operations_ms },
        kernels_ms: Some(Elapsed { total_ms: None, parts: &report.kernels_ms }).filter(|e| !e.parts.is_empty()),
        detections: report.detections.iter().map(|d| DetectionRecord::of(d, include)).collect(),
        rejected: include.rejected.then(|| report.rejected.iter().map(RejectedRecord::of).collect()),
    };
    serde_json::to_string(&line).expect("keys are text and numbers have a form in JSON")
}

#[derive(Serialize)]
struct Line<'a> {
    frame: &'a str,
    width: usize,
    height: usize,
    device: &'a str,
    tracking: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    star_trail: Option<StarTrail>,
    psf_sigma_px: f64,
    psf_source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exposure_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<TimesRecord<'a>>,
    threshold_snr: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    points_threshold_snr: Option<f64>,
    flags: Vec<&'static str>,
    elapsed_ms: Elapsed<'a>,
    operations_ms: Elapsed<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernels_ms: Option<Elapsed<'a>>,
    detections: Vec<DetectionRecord<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected: Option<Vec<RejectedRecord>>,
}

#[derive(Serialize)]
struct StarTrail {
    length_px: f64,
    angle_rad: f64,
    length_err_px: f64,
    angle_err_rad: f64,
    n_stars: usize,
}

impl StarTrail {
    fn of(tracking: TrackingMode) -> Option<Self> {
        match tracking {
            TrackingMode::Sidereal => None,
            TrackingMode::Rate { star_length_px, star_angle_rad, star_length_err_px, star_angle_err_rad, n_stars } => {
                Some(Self {
                    length_px: star_length_px,
                    angle_rad: star_angle_rad,
                    length_err_px: star_length_err_px,
                    angle_err_rad: star_angle_err_rad,
                    n_stars,
                })
            }
        }
    }
}

#[derive(Serialize)]
struct TimesRecord<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    start_utc: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    middle_utc: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_utc: Option<&'a str>,
    rule: &'a str,
}

impl<'a> TimesRecord<'a> {
    fn of(times: &'a Times) -> Self {
        Self {
            start_utc: times.start_utc.as_deref(),
            middle_utc: times.middle_utc.as_deref(),
            end_utc: times.end_utc.as_deref(),
            rule: &times.rule,
        }
    }
}

/// Times as one object, in their order, a total first where there is one.
struct Elapsed<'a> {
    total_ms: Option<f64>,
    parts: &'a [(&'static str, f64)],
}

impl Serialize for Elapsed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.total_ms.map(|t| ("total", t)).into_iter().chain(self.parts.iter().copied()))
    }
}

#[derive(Serialize)]
struct DetectionRecord<'a> {
    id: String,
    kind: &'static str,
    role: &'static str,
    x: f64,
    y: f64,
    x1: f64,
    y1: f64,
    x2: f64,
    y2: f64,
    covariance_px2: EndCovariance,
    along_68_px: AlongRecord,
    length_px: f64,
    length_err_px: f64,
    angle_rad: f64,
    angle_err_rad: f64,
    sigma_px: f64,
    sigma_err_px: f64,
    flux: f64,
    flux_err: f64,
    flux_unit: &'static str,
    snr: f64,
    chi2_reduced: f64,
    fit_iterations: u32,
    sagitta_px: f64,
    sagitta_err_px: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    light_curve: Option<LightCurveRecord<'a>>,
    flags: Vec<&'static str>,
}

#[derive(Serialize)]
struct AlongRecord {
    end1: f64,
    end2: f64,
    midpoint: f64,
    length: f64,
}

#[derive(Serialize)]
struct LightCurveRecord<'a> {
    bin_px: f64,
    flux_per_px: &'a [f64],
    flux_per_px_err: &'a [f64],
}

impl<'a> DetectionRecord<'a> {
    fn of(d: &'a Detection, include: Include) -> Self {
        let (middle, s) = (d.midpoint(), d.segment);
        Self {
            id: d.id(),
            kind: d.kind.name(),
            role: d.role.name(),
            x: middle.x,
            y: middle.y,
            x1: s.start.x,
            y1: s.start.y,
            x2: s.end.x,
            y2: s.end.y,
            covariance_px2: d.covariance_px2,
            along_68_px: AlongRecord {
                end1: d.along_68_px.start_px,
                end2: d.along_68_px.end_px,
                midpoint: d.along_68_px.midpoint_px,
                length: d.along_68_px.length_px,
            },
            length_px: d.length_px(),
            length_err_px: d.length_err_px(),
            angle_rad: d.angle_rad(),
            angle_err_rad: d.angle_err_rad(),
            sigma_px: d.sigma_px,
            sigma_err_px: d.sigma_err_px,
            flux: d.flux,
            flux_err: d.flux_err,
            flux_unit: d.flux_unit.name(),
            snr: d.snr,
            chi2_reduced: d.chi2_reduced,
            fit_iterations: d.fit_iterations,
            sagitta_px: d.sagitta_px,
            sagitta_err_px: d.sagitta_err_px,
            light_curve: (include.light_curves && !d.light_curve.flux_per_px.is_empty()).then(|| LightCurveRecord {
                bin_px: d.light_curve.bin_px,
                flux_per_px: &d.light_curve.flux_per_px,
                flux_per_px_err: &d.light_curve.flux_per_px_err,
            }),
            flags: d.flags.names().collect(),
        }
    }
}

#[derive(Serialize)]
struct RejectedRecord {
    x1: f64,
    y1: f64,
    x2: f64,
    y2: f64,
    snr: f64,
    reason: &'static str,
}

impl RejectedRecord {
    fn of(rejected: &Rejected) -> Self {
        let s = rejected.segment;
        Self {
            x1: s.start.x,
            y1: s.start.y,
            x2: s.end.x,
            y2: s.end.y,
            snr: rejected.snr,
            reason: rejected.reason.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::export::sample;

    #[test]
    fn writes_the_documented_names() {
        let line = report_line("night \"1\"/a.fits", &sample::report(), Include { rejected: true, light_curves: true });
        assert!(!line.contains('\n'));
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["frame"], "night \"1\"/a.fits");
        assert_eq!((&value["width"], &value["height"]), (&json!(60), &json!(40)));
        assert_eq!(value["tracking"], "rate");
        assert_eq!(
            value["star_trail"],
            json!({"length_px": 20.0, "angle_rad": 0.0, "length_err_px": 0.5, "angle_err_rad": 0.25, "n_stars": 1})
        );
        assert_eq!(value["flags"], json!(["psf_assumed"]));
        assert_eq!((&value["psf_source"], &value["exposure_s"]), (&json!("assumed"), &json!(5.0)));
        assert_eq!(value["times"], json!({"start_utc": "2026-01-01T00:00:00", "rule": "DATE-OBS"}));
        assert!(line.contains(r#""elapsed_ms":{"total":3.5,"upload":2.0,"condition":1.0}"#), "{line}");
        assert!(line.contains(r#""operations_ms":{"ingest":1.5},"kernels_ms":{"fit":0.25}"#), "{line}");
        let streak = &value["detections"][0];
        assert_eq!((&streak["kind"], &streak["role"]), (&json!("streak"), &json!("target")));
        assert_eq!((&streak["x"], &streak["y"]), (&json!(25.0), &json!(20.0)));
        assert_eq!((&streak["x2"], &streak["flux_unit"]), (&json!(40.0), &json!("electron")));
        assert_eq!(streak["flags"], json!(["end1_off_frame", "wide"]));
        assert_eq!(streak["covariance_px2"], serde_json::to_value([[0.01; 4]; 4]).unwrap());
        let along = json!({"end1": 0.2, "end2": 0.3, "midpoint": 0.25, "length": 0.4});
        assert_eq!(streak["along_68_px"], along);
        assert_eq!(streak["sagitta_px"], json!(-0.25));
        let curve = json!({"bin_px": 18.0, "flux_per_px": [150.0, 120.0], "flux_per_px_err": [5.0, null]});
        assert_eq!(streak["light_curve"], curve);
        let rejected = json!({"x1": 0.0, "y1": 1.0, "x2": 2.0, "y2": 3.0, "snr": 8.0, "reason": "diffraction_spike"});
        assert_eq!(value["rejected"], json!([rejected]));
    }

    #[test]
    fn numbers_that_are_not_finite_become_null() {
        let mut report = sample::report();
        report.detections[0].chi2_reduced = f64::NAN;
        report.detections[1].covariance_px2[0][0] = f64::INFINITY;
        let value: Value = serde_json::from_str(&report_line("a", &report, Include::default())).unwrap();
        assert_eq!(value["detections"][0]["chi2_reduced"], Value::Null);
        assert_eq!(value["detections"][1]["angle_err_rad"], Value::Null);
        assert_eq!(value["detections"][1]["covariance_px2"][0][0], Value::Null);
    }

    #[test]
    fn an_empty_report_is_a_line_too() {
        let mut report = sample::report();
        report.detections.clear();
        report.tracking = TrackingMode::Sidereal;
        let value: Value = serde_json::from_str(&report_line("a", &report, Include::default())).unwrap();
        assert_eq!(value["detections"], json!([]));
        assert!(value.get("rejected").is_none() && value.get("star_trail").is_none());
        let value: Value = serde_json::from_str(&report_line("a", &sample::report(), Include::default())).unwrap();
        assert!(value["detections"][0].get("light_curve").is_none(), "only where it is asked for");
    }
}
