//! Comma-separated values: one row per detection.

use std::io::{Result, Write};

use crate::frame::Times;
use crate::{Detection, Report};

/// Names of the columns, with their units where they have one.
const COLUMNS: &[&str] = &[
    "frame",
    "id",
    "kind",
    "role",
    "x",
    "y",
    "x1",
    "y1",
    "x2",
    "y2",
    "x1_err_px",
    "y1_err_px",
    "x2_err_px",
    "y2_err_px",
    "end1_along_68_px",
    "end2_along_68_px",
    "midpoint_along_68_px",
    "length_68_px",
    "length_px",
    "length_err_px",
    "angle_rad",
    "angle_err_rad",
    "sigma_px",
    "sigma_err_px",
    "flux",
    "flux_err",
    "flux_unit",
    "snr",
    "chi2_reduced",
    "sagitta_px",
    "sagitta_err_px",
    "flags",
    "start_utc",
    "middle_utc",
    "end_utc",
    "exposure_s",
];

/// Writes the header and the rows of one frame.
///
/// Positions are 0-based pixels, angles radians. Flags are joined by `;`. A number that is not finite is an empty field,
/// and so is a time that is not known. The times are the frame's: UTC, ISO 8601; the exposure in seconds.
///
/// # Errors
///
/// What `out` reports.
pub fn write(out: &mut impl Write, frame_name: &str, report: &Report) -> Result<()> {
    write_header(out)?;
    write_rows(out, frame_name, report)
}

/// Writes the header alone: for one table of many frames.
///
/// # Errors
///
/// What `out` reports.
pub fn write_header(out: &mut impl Write) -> Result<()> {
    writeln!(out, "{}", COLUMNS.join(","))
}

/// Writes the rows of one frame, without the header.
///
/// # Errors
///
/// What `out` reports.
pub fn write_rows(out: &mut impl Write, frame_name: &str, report: &Report) -> Result<()> {
    let (frame, times) = (quoted(frame_name), times(report).join(","));
    report.detections.iter().try_for_each(|d| writeln!(out, "{frame},{},{times}", fields(d).join(",")))
}

/// A detection's fields, behind the frame's name.
fn fields(d: &Detection) -> Vec<String> {
    let (middle, s) = (d.midpoint(), d.segment);
    let end_errors = [0, 1, 2, 3].map(|i| d.covariance_px2[i][i].sqrt());
    let mut fields = vec![d.id(), d.kind.name().into(), d.role.name().into()];
    fields.extend([middle.x, middle.y, s.start.x, s.start.y, s.end.x, s.end.y].map(number));
    fields.extend(end_errors.map(number));
    let along = d.along_68_px;
    fields.extend([along.start_px, along.end_px, along.midpoint_px, along.length_px].map(number));
    fields.extend([d.length_px(), d.length_err_px(), d.angle_rad(), d.angle_err_rad()].map(number));
    fields.extend([d.sigma_px, d.sigma_err_px, d.flux, d.flux_err].map(number));
    fields.push(d.flux_unit.name().into());
    fields.extend([d.snr, d.chi2_reduced, d.sagitta_px, d.sagitta_err_px].map(number));
    fields.push(d.flags.names().collect::<Vec<_>>().join(";"));
    fields
}

/// The fields behind a detection's.
fn times(report: &Report) -> [String; 4] {
    let of = |time: fn(&Times) -> &Option<String>| {
        quoted(report.times.as_ref().and_then(|times| time(times).as_deref()).unwrap_or_default())
    };
    let exposure = report.exposure_secs.map_or_else(String::new, number);
    [of(|t| &t.start_utc), of(|t| &t.middle_utc), of(|t| &t.end_utc), exposure]
}

fn number(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { String::new() }
}

/// RFC 4180: a field with a separator in it stands in quotes, quotes are doubled.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::sample;

    #[test]
    fn one_row_per_detection() {
        let mut out = Vec::new();
        write(&mut out, "a.fits", &sample::report()).unwrap();
        let text = String::from_utf8(out).unwrap();
        let rows: Vec<Vec<_>> = text.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(rows.len(), 4);
        assert!(rows.iter().all(|row| row.len() == COLUMNS.len()));
        let column = |name: &str| COLUMNS.iter().position(|c| *c == name).unwrap();
        assert_eq!((rows[1][0], rows[1][column("x")], rows[1][column("y2")]), ("a.fits", "25", "30"));
        assert_eq!(rows[1][column("flags")], "end1_off_frame;wide");
        assert_eq!((rows[1][column("x1_err_px")], rows[1][column("flux_unit")]), ("0.1", "electron"));
        assert_eq!((rows[1][column("end2_along_68_px")], rows[1][column("length_68_px")]), ("0.3", "0.4"));
        assert_eq!((rows[2][column("kind")], rows[2][column("angle_err_rad")]), ("point", ""));
        let [start, middle, end] = ["08:00:00", "08:00:02", "08:00:04"].map(|t| Some(format!("2026-01-01T{t}")));
        let times = Times { start_utc: start, middle_utc: middle, end_utc: end, rule: String::new() };
        let timed = Report { times: Some(times), exposure_secs: Some(4.5), ..sample::report() };
        let mut out = Vec::new();
        write_rows(&mut out, "a.fits", &timed).unwrap();
        let row: Vec<_> = std::str::from_utf8(&out).unwrap().lines().next().unwrap().split(',').collect();
        let expected = ["2026-01-01T08:00:00", "2026-01-01T08:00:02", "2026-01-01T08:00:04", "4.5"];
        assert_eq!(["start_utc", "middle_utc", "end_utc", "exposure_s"].map(|name| row[column(name)]), expected);
        let unknown = Report { times: None, exposure_secs: None, ..sample::report() };
        assert_eq!(super::times(&unknown).concat(), "");
    }

    #[test]
    fn names_with_separators_are_quoted() {
        assert_eq!(quoted("a, \"b\".fits"), "\"a, \"\"b\"\".fits\"");
    }
}
