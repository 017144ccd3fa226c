//! Every source of the sample frames is found where its truth says.
//!
//! The frames are fixed, so luck plays no part. In fresh noise a good measurement would keep each limit 99 times
//! in 100.
#![cfg(feature = "fits")]
#![expect(unreachable_pub, reason = "the helper module is part of this program")]

#[path = "support/tracks.rs"]
mod tracks;

use std::path::Path;

use skystreak::io::fits::read_frame;
use skystreak::simulate::{SourceTruth, Truth, cramer_rao};
use skystreak::{
    Detection, Detector, DetectorConfig, Device, Kind, Point, Report, Role, Segment, TrackingMode,
    track_angle_difference,
};
use tracks::{across_px, end_scale_px, ends_along_px, on_track};

/// Streaks of this S/N are found.
const FOUND_SNR: f64 = 10.0;
/// Streaks of this S/N are measured well.
const MEASURED_SNR: f64 = 20.0;
/// Light of two sources closer than this is mixed: five PSF widths.
const BLEND_PX: f64 = 7.5;

fn sample(name: &str) -> (Truth, Report) {
    let file = |ending: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/{name}.{ending}"));
    let truth = std::fs::read_to_string(file("truth.json")).unwrap();
    let detector = Detector::new(DetectorConfig { device: Device::Cpu, ..DetectorConfig::default() }).unwrap();
    let report = detector.detect(&read_frame(&file("fits")).unwrap()).unwrap();
    (serde_json::from_str(&truth).unwrap(), report)
}

/// What is wrong with the detection of a streak; nothing where all is well.
fn faults(source: &SourceTruth, truth: &Truth, report: &Report) -> Vec<String> {
    let track = source.segment();
    let found = on_track(report, &track);
    let [found] = found.as_slice() else {
        return vec![format!("found {} times", found.len())];
    };
    let mut faults = Vec::new();
    if (found.kind, found.role) != (Kind::Streak, source.role) {
        faults.push(format!("is a {:?} of role {:?}", found.kind, found.role));
    }
    if source.snr < MEASURED_SNR {
        return faults;
    }
    let across = across_px(found, &track);
    if across > 0.5 {
        faults.push(format!("passes the midpoint at {across:.2} px"));
    }
    let bounds = cramer_rao(&track, source.flux_e, truth.psf_sigma_px, source.noise_e, true).unwrap();
    let limit = 4.0 * end_scale_px(&bounds, source.length_px, source.snr);
    let off_frame = [source.end1_off_frame, source.end2_off_frame];
    for (end, (error, off_frame)) in ends_along_px(found, &track).into_iter().zip(off_frame).enumerate() {
        if !off_frame && error > limit {
            faults.push(format!("end {} is off by {error:.2} px, {limit:.2} are allowed", end + 1));
        }
    }
    faults
}

/// A detection of a target of this S/N and more must belong to the truth. Below it chains of faint stars, which are
/// not weighed out, still pass for streaks (docs/algorithm.md, "Limits").
const FALSE_SNR: f64 = 8.0;

/// Checks the streaks, and that every bright detection of a target belongs to one of the truth.
fn check(name: &str, streaks: &[&SourceTruth], truth: &Truth, report: &Report) {
    let mut complaints = Vec::new();
    for source in streaks.iter().filter(|s| s.snr >= FOUND_SNR) {
        let SourceTruth { id, role, x1, y1, x2, y2, snr, .. } = source;
        let row = format!("{role:?} {id}, ({x1:.1}, {y1:.1}) to ({x2:.1}, {y2:.1}), S/N {snr:.0}");
        complaints.extend(faults(source, truth, report).into_iter().map(|fault| format!("{row}: {fault}")));
    }
    let is_true = |d: &&Detection| {
        truth.streaks.iter().any(|s| {
            let is_point = s.length_px == 0.0;
            if is_point { d.midpoint().distance(Point::new(s.x, s.y)) < 3.0 } else { lies_on(d, &s.segment()) }
        })
    };
    let targets = report.detections.iter().filter(|d| d.role == Role::Target && d.snr >= FALSE_SNR);
    for d in targets.filter(|d| !is_true(d)) {
        let (a, b) = (d.segment.start, d.segment.end);
        let place = format!("({:.1}, {:.1}) to ({:.1}, {:.1})", a.x, a.y, b.x, b.y);
        complaints.push(format!("no target is at {place}, S/N {:.1}, {:?}", d.snr, d.kind));
    }
    assert!(complaints.is_empty(), "{name}:\n  {}", complaints.join("\n  "));
}

fn lies_on(d: &Detection, track: &Segment) -> bool {
    track.distance_to(d.midpoint()) <= 3.0
}

/// Smallest distance of two tracks, px, to half a pixel.
fn distance(a: &Segment, b: &Segment) -> f64 {
    let n = 2.0 * a.length_px().ceil() + 1.0;
    (0..=n as usize).map(|i| b.distance_to(a.at(i as f64 / n))).fold(f64::INFINITY, f64::min)
}

#[test]
fn sidereal_frames() {
    for name in ["sidereal_blank", "sidereal_stars", "crossing"] {
        let (truth, report) = sample(name);
        assert_eq!(report.tracking, TrackingMode::Sidereal, "{name}");
        check(name, &truth.streaks.iter().collect::<Vec<_>>(), &truth, &report);
    }
}

#[test]
fn rate_tracked_frame() {
    let (truth, report) = sample("rate_trails");
    let trail = truth.star_trail.unwrap();
    let TrackingMode::Rate { star_length_px, star_angle_rad, n_stars, .. } = report.tracking else {
        panic!("{:?}", report.tracking)
    };
    assert!((star_length_px - trail.length_px).abs() < 1.5, "{star_length_px}");
    assert!(track_angle_difference(star_angle_rad, trail.angle_rad) < 1_f64.to_radians(), "{star_angle_rad}");
    assert!(n_stars >= 10, "{n_stars}");

    // Whole star trails that nothing else touches, and all targets with two ends.
    let specks = truth.hot_pixels.iter().map(|&[x, y]| [x as f64, y as f64, x as f64, y as f64]);
    let specks = specks.chain(truth.cosmic_rays.iter().copied());
    let specks: Vec<_> = specks.map(|[x1, y1, x2, y2]| Segment::from_coordinates(x1, y1, x2, y2)).collect();
    let sources: Vec<_> = truth.stars.iter().chain(&truth.streaks).collect();
    let is_alone = |star: &SourceTruth| {
        let track = star.segment();
        let is_other = |s: &SourceTruth| (s.role, s.id) != (star.role, star.id);
        let others = sources.iter().filter(|s| is_other(s)).map(|s| s.segment()).chain(specks.iter().copied());
        others.into_iter().all(|other| distance(&track, &other) > BLEND_PX)
    };
    let stars = truth.stars.iter().filter(|s| !s.end1_off_frame && !s.end2_off_frame && is_alone(s));
    let targets = truth.streaks.iter().filter(|s| s.length_px > 0.0);
    let streaks: Vec<_> = stars.chain(targets).collect();
    assert!(streaks.len() > 20, "{}", streaks.len());
    check("rate_trails", &streaks, &truth, &report);
}

#[test]
fn points_among_trails() {
    let (truth, report) = sample("rate_trails");
    let points = report.detections.iter().filter(|d| d.kind == Kind::Point);
    let points: Vec<_> = points.filter(|d| d.role == Role::Target && d.snr >= FALSE_SNR).collect();
    for target in truth.streaks.iter().filter(|s| s.length_px == 0.0) {
        let place = Point::new(target.x, target.y);
        let n = points.iter().filter(|d| d.midpoint().distance(place) < 1.0).count();
        assert_eq!(n, 1, "S/N {} at {place:?}: {points:?}", target.snr);
    }
}
