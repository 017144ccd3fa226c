//! Where stars trail: those so bright that their charge spills along the columns, and points that are.

use skystreak::simulate::{Brightness, SceneConfig, StarSpec, StarTrail, StreakSpec, simulate};
use skystreak::{Detection, Detector, DetectorConfig, Device, Flags, Kind, Point, Rejected, Report, Role, Segment};

const WIDTH: usize = 480;
const HEIGHT: usize = 560;
const FULL_WELL_E: f64 = 80_000.0;

/// Some spill over some ten pixels, some over a hundred; two are near each other.
const BRIGHT: [StarSpec; 5] = [
    StarSpec { x: 90.3, y: 130.8, flux_e: 2e7 },
    StarSpec { x: 240.6, y: 150.1, flux_e: 1e8 },
    StarSpec { x: 400.2, y: 140.5, flux_e: 6e7 },
    StarSpec { x: 130.9, y: 400.4, flux_e: 9e7 },
    StarSpec { x: 153.3, y: 432.2, flux_e: 3e7 },
];

fn report(seed: u64, angle_rad: f64, streaks: Vec<StreakSpec>) -> Report {
    let scene = SceneConfig {
        width: WIDTH,
        height: HEIGHT,
        seed,
        full_well_e: FULL_WELL_E,
        star_max_flux_e: 3e6,
        star_trail: Some(StarTrail { length_px: 25.0, angle_rad }),
        stars: BRIGHT.to_vec(),
        streaks,
        ..SceneConfig::default()
    };
    let made = simulate(&scene).unwrap();
    assert!(!made.truth.bleeding_columns.is_empty());
    let config = DetectorConfig { device: Device::Cpu, ..DetectorConfig::default() };
    Detector::new(config).unwrap().detect(&made.frame).unwrap()
}

#[test]
fn each_is_reported_once_where_it_is() {
    for (seed, degrees) in [(1, 17.0), (2, 64.0), (3, 140.0)] {
        let report = report(seed, f64::to_radians(degrees), Vec::new());
        let summed: Vec<_> = report.detections.iter().filter(|d| d.flags.contains(Flags::SUMMED)).collect();
        assert_eq!(summed.len(), BRIGHT.len(), "at {degrees}°");
        for star in &BRIGHT {
            let place = Point::new(star.x, star.y);
            let Some(found) = summed.iter().find(|d| d.midpoint().distance(place) < 3.0) else {
                panic!("none at {place:?}, {degrees}°")
            };
            let (x_err, y_err) = found.midpoint_err_px();
            let off = [(found.midpoint().x - star.x) / x_err, (found.midpoint().y - star.y) / y_err];
            assert!(off.iter().all(|o| o.abs() < 3.0) && x_err < 0.3, "{off:?} of ({x_err}, {y_err}) at {degrees}°");
            assert!((found.flux - star.flux_e).abs() < 2.0 * found.flux_err, "{} for {}", found.flux, star.flux_e);
            assert!(found.role == Role::Star && (found.length_px() - 25.0).abs() < 0.5);
            let is_on_it = |d: &&Detection| found.segment.distance_to(d.midpoint()) < 5.0;
            assert_eq!(report.detections.iter().filter(is_on_it).count(), 1, "in pieces at {place:?}, {degrees}°");
            let is_in_column = |d: &&Detection| {
                let (dx, dy) = (d.midpoint().x - star.x, d.midpoint().y - star.y);
                d.snr > 1000.0 && dx.abs() < 12.0 && dy.abs() < 100.0 && !d.flags.contains(Flags::SUMMED)
            };
            assert_eq!(report.detections.iter().find(is_in_column), None, "a piece at {place:?}, {degrees}°");
        }
        let targets: Vec<_> = report.detections.iter().filter(|d| d.role == Role::Target).collect();
        assert!(targets.is_empty(), "at {degrees}°: {targets:?}");
    }
}

#[test]
fn a_target_beside_one_is_found() {
    let segment = Segment::around(Point::new(310.0, 250.0), 70.0, 2.6);
    let faint = StreakSpec { segment, brightness: Brightness::Snr(18.0) };
    let report = report(4, 17_f64.to_radians(), vec![faint]);
    let is_target = |d: &&Detection| d.role == Role::Target && d.snr > 8.0;
    let targets: Vec<_> = report.detections.iter().filter(is_target).collect();
    let [target] = &targets[..] else { panic!("{targets:?}") };
    assert!(target.midpoint().distance(segment.midpoint()) < 3.0, "{target:?}");
}

#[test]
fn points_that_spill_are_targets() {
    let places = [(Point::new(330.0, 420.0), 2e7), (Point::new(40.4, 300.2), 3e6), (Point::new(440.7, 330.6), 1.6e6)];
    let point = |&(place, flux_e): &(Point, f64)| StreakSpec {
        segment: Segment::around(place, 0.1, 0.0),
        brightness: Brightness::FluxE(flux_e),
    };
    let (mut n_others, mut n_well_known) = (0, 0);
    for seed in 5..9 {
        let report = report(seed, 17_f64.to_radians(), places.iter().map(point).collect());
        let summed = |role: Role| {
            report.detections.iter().filter(|d| d.role == role && d.flags.contains(Flags::SUMMED)).collect::<Vec<_>>()
        };
        assert_eq!(summed(Role::Star).len(), BRIGHT.len(), "seed {seed}");
        let targets = summed(Role::Target);
        assert_eq!(targets.len(), places.len(), "seed {seed}: {targets:?}");
        n_others += report.detections.iter().filter(|d| d.role == Role::Target).count() - targets.len();
        for (place, flux_e) in places {
            let Some(found) = targets.iter().find(|d| d.midpoint().distance(place) < 3.0) else {
                panic!("none at {place:?}")
            };
            let (x_err, y_err) = found.midpoint_err_px();
            let off = [(found.midpoint().x - place.x) / x_err, (found.midpoint().y - place.y) / y_err];
            assert!(off.iter().all(|o| o.abs() < 3.0), "{off:?} of ({x_err}, {y_err}) at {place:?}, seed {seed}");
            assert!((found.flux - flux_e).abs() < 2.0 * found.flux_err, "{found:?}");
            n_well_known += usize::from(x_err < 0.15 && found.flux_err < 0.05 * flux_e);
            assert!(found.kind == Kind::Point && found.length_px() == 0.0);
            // Their charge is not listed beside them.
            let is_on_it = |r: &&Rejected| r.segment.distance_to(place) < 8.0;
            assert_eq!(report.rejected.iter().find(is_on_it), None);
            let is_near = |d: &&Detection| d.role == Role::Target && d.segment.distance_to(place) < 40.0;
            assert_eq!(report.detections.iter().filter(is_near).count(), 1, "seed {seed}: a piece at {place:?}");
        }
    }
    // With seed 6 a star lies in the light of one. One frame has one faint target more.
    assert!(n_well_known >= 4 * places.len() - 1, "{n_well_known}");
    assert!(n_others < 2, "{n_others}");
}
