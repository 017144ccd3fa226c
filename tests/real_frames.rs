//! Frames of real telescopes, where they are at hand: `SKYSTREAK_FRAMES` names a folder with `labels.json`.
#![cfg(feature = "fits")]

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use skystreak::io::fits::read_frame;
use skystreak::{Detector, DetectorConfig, Device, Report, Role, Segment, track_angle_difference};

/// Frames whose labelled streaks are plain to the eye: all of them have to be found.
const PLAIN: [&str; 4] = ["astride_long", "lco_three_trails", "neossat_2021317004251", "neossat_2021316235210"];

/// A frame takes no longer, in a test build on a busy machine.
const LONGEST: Duration = Duration::from_secs(60);

/// A target lies along the labelled streak and covers at least half of it.
fn is_found(report: &Report, label: &Segment, tolerance_across_px: f64) -> bool {
    report.detections.iter().filter(|d| d.role == Role::Target).any(|d| {
        let ends = [d.segment.start, d.segment.end].map(|end| label.along_across(end));
        let [first, last] = if ends[0].0 <= ends[1].0 { ends } else { [ends[1], ends[0]] };
        let (from, to) = (first.0.max(0.0), last.0.min(label.length_px()));
        // Across, in the middle of the part they share.
        let fraction = (0.5 * (from + to) - first.0) / (last.0 - first.0);
        let across = first.1 + fraction * (last.1 - first.1);
        to - from >= 0.5 * label.length_px()
            && across.abs() <= tolerance_across_px + 2.0
            && track_angle_difference(d.angle_rad(), label.angle_rad()) <= 4_f64.to_radians()
    })
}

#[test]
fn real_frames() {
    let Some(folder) = std::env::var_os("SKYSTREAK_FRAMES") else {
        eprintln!("skipped: SKYSTREAK_FRAMES is not set");
        return;
    };
    let folder = Path::new(&folder);
    let labels = std::fs::read_to_string(folder.join("labels.json")).unwrap();
    let labels: Value = serde_json::from_str(&labels).unwrap();
    let detector = Detector::new(DetectorConfig { device: Device::Cpu, ..DetectorConfig::default() }).unwrap();

    let (mut complaints, mut n_plain) = (Vec::new(), 0);
    for (name, label) in labels["files"].as_object().unwrap() {
        let begin = Instant::now();
        let report = match read_frame(&folder.join(name)).and_then(|frame| detector.detect(&frame)) {
            Ok(report) => report,
            Err(error) => {
                complaints.push(format!("{name}: {error}"));
                continue;
            }
        };
        let elapsed = begin.elapsed();
        if elapsed > LONGEST {
            complaints.push(format!("{name}: took {elapsed:.1?}"));
        }
        let is_plain = name.strip_suffix(".fits").is_some_and(|stem| PLAIN.contains(&stem));
        let streaks: Vec<[f64; 4]> = serde_json::from_value(label["streaks"].clone()).unwrap();
        let tolerance_px = label["tol_across_px"].as_f64().unwrap();
        let mut n_found = 0;
        for [x1, y1, x2, y2] in &streaks {
            if is_found(&report, &Segment::from_coordinates(*x1, *y1, *x2, *y2), tolerance_px) {
                n_found += 1;
            } else if is_plain {
                complaints.push(format!("{name}: ({x1}, {y1}) to ({x2}, {y2}) is not found"));
            }
        }
        n_plain += usize::from(is_plain);
        let n_targets = report.detections.iter().filter(|d| d.role == Role::Target).count();
        let (tracking, n_labelled) = (report.tracking.name(), streaks.len());
        let ms = elapsed.as_millis();
        eprintln!("{name:28} {n_found} of {n_labelled} found, {n_targets} targets, {tracking}, {ms} ms");
    }
    assert_eq!(n_plain, PLAIN.len(), "labels.json lacks some of {PLAIN:?}");
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
