//! Streaks put into noise are found where they are.
#![expect(unreachable_pub, reason = "the helper module is part of this program")]

#[path = "support/tracks.rs"]
mod tracks;

use std::thread;

use skystreak::simulate::{
    Bounds, Brightness, SceneConfig, StreakSpec, add_streak, cramer_rao, gaussian_frame, simulate, unit_stamp,
};
use skystreak::{
    Detection, Detector, DetectorConfig, Device, Flags, FluxUnit, Frame, Kind, Point, Report, Segment, TrackingMode,
};
use tracks::{across_px, end_scale_px, ends_along_px, on_track};

const SNR: f64 = 20.0;

/// Expected false alarms in a frame of these tests: so few that none is seen by luck.
const FALSE_ALARMS: f64 = 1e-5;

fn detector(psf_sigma_px: f64, false_alarms_per_frame: f64) -> Detector {
    let psf_sigma_px = Some(psf_sigma_px);
    let config = DetectorConfig { device: Device::Cpu, psf_sigma_px, false_alarms_per_frame, ..Default::default() };
    Detector::new(config).unwrap()
}

/// Streaks, each of the given S/N inside the frame, in noise of rms 1.
fn noisy(width: usize, height: usize, seed: u64, streaks: &[Segment], snr: f64, psf_sigma_px: f64) -> Frame<'static> {
    let mut pixels = gaussian_frame(width, height, seed, 1.0);
    for streak in streaks {
        let flux = snr / unit_stamp(streak, psf_sigma_px, width, height).norm();
        add_streak(&mut pixels, width, streak, psf_sigma_px, flux);
    }
    Frame::new(pixels, width, height).unwrap()
}

/// The one detection on a track.
fn found_once<'r>(report: &'r Report, truth: &Segment) -> &'r Detection {
    let found = on_track(report, truth);
    assert_eq!(found.len(), 1, "{truth:?} in {:?}", report.detections);
    assert_eq!(found[0].kind, Kind::Streak);
    found[0]
}

/// Which ends are flagged as outside of the frame, in the order of the true ends.
fn off_frame_ends(d: &Detection, truth: &Segment) -> [bool; 2] {
    let [first, last] = [Flags::END1_OFF_FRAME, Flags::END2_OFF_FRAME].map(|flag| d.flags.contains(flag));
    let along = [d.segment.start, d.segment.end].map(|end| truth.along_across(end).0);
    if along[0] <= along[1] { [first, last] } else { [last, first] }
}

fn bounds(streak: &Segment, snr: f64, psf_sigma_px: f64) -> Bounds {
    let side = 600;
    let centred = Segment::around(Point::new(300.3, 299.8), streak.length_px(), streak.angle_rad());
    let flux = snr / unit_stamp(&centred, psf_sigma_px, side, side).norm();
    cramer_rao(&centred, flux, psf_sigma_px, 1.0, false).unwrap()
}

/// Errors of both ends along the track, in standard errors, of whole streaks of all angles and lengths.
fn end_errors(width: usize, height: usize, first_seed: u64, psf_sigma_px: f64, lengths: &[f64]) -> Vec<f64> {
    let detector = detector(psf_sigma_px, FALSE_ALARMS);
    let (mut errors, mut complaints, mut n_others) = (Vec::new(), Vec::new(), 0);
    let rows = lengths.iter().flat_map(|&l| [0.0, 17.0, 45.0, 90.0, 133.0].map(|degrees: f64| (l, degrees)));
    for ((length, degrees), seed) in rows.zip(first_seed..) {
        let middle = Point::new(0.5 * width as f64 + 0.3, 0.5 * height as f64 - 0.2);
        let truth = Segment::around(middle, length, degrees.to_radians()).ordered();
        let report = detector.detect(&noisy(width, height, seed, &[truth], SNR, psf_sigma_px)).unwrap();
        let row = format!("{length} px at {degrees} degrees, PSF {psf_sigma_px}, seed {seed}");
        let found = on_track(&report, &truth);
        n_others += report.detections.len() - found.len();
        let [found] = found.as_slice() else {
            complaints.push(format!("{row}: found {} times", found.len()));
            continue;
        };
        let bounds = bounds(&truth, SNR, psf_sigma_px);
        let across = across_px(found, &truth);
        // 6 standard errors: 1 in 10^7 for all rows of a test together. An S/N 6 off is as rare.
        for (is_well, what) in [
            (found.kind == Kind::Streak, "not a streak".to_owned()),
            (across < 6.0 * bounds.mid_across_px, format!("passes the midpoint at {across:.2} px")),
            ((found.snr - SNR).abs() < 6.0, format!("S/N {:.1}", found.snr)),
            (off_frame_ends(found, &truth) == [false; 2], "said to leave the frame".to_owned()),
        ] {
            if !is_well {
                complaints.push(format!("{row}: {what}"));
            }
        }
        let scale = end_scale_px(&bounds, length, SNR);
        errors.extend(ends_along_px(found, &truth).map(|e| e / scale));
    }
    assert!(complaints.is_empty(), "\n  {}", complaints.join("\n  "));
    // With 15 frames 1 in 10^8.
    assert!(n_others < 2, "{n_others} detections where nothing is");
    errors
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
fn whole_streaks_are_found_once_and_in_place() {
    let mut errors = end_errors(200, 170, 100, 1.5, &[20.0, 60.0, 150.0]);
    errors.extend(end_errors(256, 200, 200, 1.5, &[20.0, 60.0, 150.0]));
    // The far tail is that of a random walk: beyond 4 standard errors lie 0.1 % of the ends of short streaks, 1.2 % of
    // those of long ones, 0.4 of the 60 here. Seven or more: 1 in 10^7.
    let n_far = errors.iter().filter(|&&e| e > 4.0).count();
    assert!(n_far <= 6, "{n_far} ends beyond 4 standard errors: {errors:.1?}");
    // A fifth of the ends lies beyond 1.2 standard errors. Half of the 60: 1 in 10^7.
    assert!(median(errors.clone()) < 1.2, "{errors:.1?}");
}

#[test]
fn stated_errors_hold_what_they_say() {
    let detector = detector(1.5, FALSE_ALARMS);
    let (mut n_ends, mut n_in_68, mut n_far, mut n_wide) = (0, 0, 0, 0);
    for seed in 0..80_u32 {
        let angle = (f64::from(seed) * 2.4).rem_euclid(std::f64::consts::PI);
        let truth = Segment::around(Point::new(80.3, 70.1), 50.0, angle).ordered();
        // Every third one far fainter, with ends that are put where they are to be expected; some wide of the PSF.
        let (snr, sigma_px) = [(12.0, 1.5), (20.0, 1.5), (25.0, 2.4)][seed as usize % 3];
        let mut pixels = gaussian_frame(160, 140, 900 + u64::from(seed), 1.0);
        let flux = snr / unit_stamp(&truth, sigma_px, 160, 140).norm();
        add_streak(&mut pixels, 160, &truth, sigma_px, flux);
        let report = detector.detect(&Frame::new(pixels, 160, 140).unwrap()).unwrap();
        let found = found_once(&report, &truth);
        if sigma_px > 2.0 {
            // The frame's PSF is no part of what is said of this one's width.
            n_wide += usize::from((found.sigma_px - sigma_px).abs() > 4.0 * found.sigma_err_px);
            continue;
        }
        let errors = ends_along_px(found, &truth);
        let (along, (first_err, last_err)) = (found.along_68_px, found.ends_along_err_px());
        for (error, half_68, err) in [(errors[0], along.start_px, first_err), (errors[1], along.end_px, last_err)] {
            n_ends += 1;
            n_in_68 += usize::from(error <= half_68);
            n_far += usize::from(error > 3.0 * err);
        }
    }
    // 73 of 108 are expected within, with a scatter of 5: 4.5 of it either way is 1 in 10^5.
    assert!(n_ends == 108 && (51..=95).contains(&n_in_68), "{n_in_68} of {n_ends} ends in the 68 % interval");
    // One of a hundred faint ends lies beyond three errors: six of 108 are 1 in 10^3.
    assert!(n_far < 6, "{n_far} of {n_ends} ends beyond three standard errors");
    assert!(n_wide <= 1, "{n_wide} of 26 widths beyond four standard errors");
}

#[test]
fn sharp_and_wide_psfs_work_when_given() {
    for (psf_sigma_px, first_seed) in [(0.7, 300), (2.5, 400)] {
        let errors = end_errors(200, 170, first_seed, psf_sigma_px, &[40.0, 120.0]);
        // As above: 0.2 of the 20 ends are expected beyond 4 standard errors, six are 1 in 10^7.
        let n_far = errors.iter().filter(|&&e| e > 4.0).count();
        assert!(n_far <= 5, "PSF {psf_sigma_px}: {errors:.1?}");
    }
}

/// What a PSF that is too narrow leaves of it is no measure of the PSF.
#[test]
fn a_bright_wide_streak_in_a_frame_without_stars_tells_the_psf() {
    let config =
        DetectorConfig { device: Device::Cpu, false_alarms_per_frame: FALSE_ALARMS, ..DetectorConfig::default() };
    let detector = Detector::new(config).unwrap();
    let diagonal = Segment::from_coordinates(200.3, 180.2, 659.9, 639.8);
    let steep = Segment::from_coordinates(300.2, 120.0, 322.4, 769.6);
    for (streak, psf_sigma_px, snr) in [(diagonal, 2.5, 320.0), (diagonal, 2.5, 1000.0), (steep, 4.0, 320.0)] {
        let report = detector.detect(&noisy(900, 850, 3, &[streak], snr, psf_sigma_px)).unwrap();
        let found = found_once(&report, &streak);
        assert_eq!(report.detections.len(), 1, "{report:?}");
        assert!((report.psf_sigma_px / psf_sigma_px - 1.0).abs() < 0.06, "{} for {psf_sigma_px}", report.psf_sigma_px);
        // Five errors, at the worst of these widths and S/N: no piece of it.
        assert!(ends_along_px(found, &streak).iter().all(|off| *off < 1.5), "{found:?}");
    }
}

#[test]
fn ends_outside_of_the_frame_are_flagged() {
    let (width, height) = (200, 150);
    let detector = detector(1.5, FALSE_ALARMS);
    for (ends, off_frame) in [
        // Over the left, right, upper and lower border.
        ([-60.0, 40.0, 80.0, 70.0], [true, false]),
        ([120.0, 60.3, 290.0, 60.3], [false, true]),
        ([70.4, -50.0, 70.4, 70.0], [true, false]),
        ([60.0, 80.0, 130.0, 230.0], [false, true]),
        // Across a corner, from side to side, and along the diagonal.
        ([-20.0, 80.0, 80.0, -20.0], [true, true]),
        ([-40.0, 60.0, 240.0, 110.0], [true, true]),
        ([-40.0, -30.0, 240.0, 180.0], [true, true]),
    ] {
        let [x1, y1, x2, y2] = ends;
        let truth = Segment::from_coordinates(x1, y1, x2, y2);
        let inside = truth.clipped_to(width, height).unwrap();
        // Seed 500, the same noise for each.
        let report = detector.detect(&noisy(width, height, 500, &[truth], 25.0, 1.5)).unwrap();
        let found = found_once(&report, &inside);
        assert_eq!(off_frame_ends(found, &truth), off_frame, "{truth:?}: {found:?}");
        // 5.9 standard errors: 1 in 10^8 each.
        assert!(across_px(found, &inside) < 0.5, "{truth:?}: {found:?}");
    }
}

#[test]
fn crossing_streaks_are_two() {
    let detector = detector(1.5, FALSE_ALARMS);
    let middle = Point::new(128.3, 100.6);
    for (degrees, seed) in [([17.0, 133.0], 600), ([0.0, 90.0], 601), ([45.0, 75.0], 602)] {
        let pair = degrees.map(|d: f64| Segment::around(middle, 140.0, d.to_radians()).ordered());
        let report = detector.detect(&noisy(256, 200, seed, &pair, 25.0, 1.5)).unwrap();
        for truth in &pair {
            // 5.9 standard errors.
            assert!(across_px(found_once(&report, truth), truth) < 0.5, "{degrees:?}: {:?}", report.detections);
        }
        assert_eq!(report.detections.len(), 2, "{degrees:?}: {:?}", report.detections);
    }
}

#[test]
fn bright_trails_through_the_whole_frame_are_no_stars_and_hide_nothing() {
    // Six satellites side by side: of one length and angle, as far as the frame shows them.
    let across =
        |k: i32| Segment::from_coordinates(-40.0, 30.0 + 70.0 * f64::from(k), 560.0, 36.0 + 70.0 * f64::from(k));
    let bright = (0..6).map(|k| StreakSpec { segment: across(k), brightness: Brightness::Snr(300.0) });
    let faint = Segment::around(Point::new(250.0, 240.0), 60.0, 1.2);
    let streaks = bright.chain([StreakSpec { segment: faint, brightness: Brightness::Snr(14.0) }]).collect();
    let scene = SceneConfig { width: 512, height: 480, seed: 4, streaks, ..SceneConfig::default() };
    let config = DetectorConfig { device: Device::Cpu, ..DetectorConfig::default() };
    let report = Detector::new(config).unwrap().detect(&simulate(&scene).unwrap().frame).unwrap();
    assert_eq!(report.tracking, TrackingMode::Sidereal);
    assert_eq!(report.detections.len(), 7, "{:?}", report.detections);
    found_once(&report, &faint);
}

#[test]
fn many_bright_streaks_of_all_directions_are_all_found() {
    // Their cores outnumber the points, as those of stars that trail do.
    let place = |k: i32| Point::new(32.0 + 64.0 * f64::from(k % 8), 32.0 + 64.0 * f64::from(k / 8));
    let streaks: Vec<Segment> = (0..64).map(|k| Segment::around(place(k), 40.0, 2.4 * f64::from(k))).collect();
    let report = detector(1.5, FALSE_ALARMS).detect(&noisy(512, 512, 23, &streaks, 250.0, 1.5)).unwrap();
    assert_eq!(report.tracking, TrackingMode::Sidereal);
    assert_eq!(report.detections.len(), streaks.len(), "{:?}", report.detections);
    for streak in &streaks {
        found_once(&report, streak);
    }
}

#[test]
fn noise_alone_gives_nothing() {
    let detector = detector(1.5, 1e-4);
    let found: usize =
        (700..710).map(|seed| detector.detect(&noisy(256, 200, seed, &[], 0.0, 1.5)).unwrap().detections.len()).sum();
    // 0.001 are expected in ten frames; two are 1 in 2 million.
    assert!(found < 2, "{found} detections");
}

#[test]
fn fluxes_are_electrons_where_the_gain_is_known() {
    for (ends, snr, seed) in [
        ([30.3, 40.6, 170.2, 97.1], 30.0, 800),
        ([40.0, 120.5, 120.0, 120.5], 60.0, 801),
        ([150.7, 20.2, 120.1, 60.9], 20.0, 802),
    ] {
        let [x1, y1, x2, y2] = ends;
        let segment = Segment::from_coordinates(x1, y1, x2, y2).ordered();
        let streaks = vec![StreakSpec { segment, brightness: Brightness::Snr(snr) }];
        let config = SceneConfig { width: 200, height: 150, seed, streaks, ..SceneConfig::blank() };
        let scene = simulate(&config).unwrap();
        let truth = &scene.truth.streaks[0];
        let detector = detector(config.psf_sigma_px, FALSE_ALARMS);
        let report = detector.detect(&scene.frame).unwrap();
        let found = found_once(&report, &segment);
        assert_eq!(found.flux_unit, FluxUnit::Electron);
        // 5.5 standard errors, three times: 1 in 10^7.
        assert!((found.flux - truth.flux_e).abs() < 5.5 * found.flux_err, "{} e-: {found:?}", truth.flux_e);
        let best = cramer_rao(&segment, truth.flux_e, config.psf_sigma_px, truth.noise_e, true).unwrap();
        // The width is measured too, which costs a fifth.
        let ratio = found.flux_err / (best.flux_rel * truth.flux_e);
        assert!((0.8..1.6).contains(&ratio), "flux error {ratio} times the bound: {found:?}");

        let pixels = scene.frame.pixels().clone();
        let report = detector.detect(&Frame::new(pixels, 200, 150).unwrap()).unwrap();
        let raw = found_once(&report, &segment);
        assert_eq!(raw.flux_unit, FluxUnit::Adu);
        // The same light, weighted a little differently: far less than its error.
        let difference = raw.flux * config.gain_e_per_adu - found.flux;
        assert!(difference.abs() < found.flux_err, "{raw:?} {found:?}");
    }
}

/// A report without its times.
fn timeless(mut report: Report) -> Report {
    report.total_ms = 0.0;
    let times = report.stages_ms.iter_mut().chain(&mut report.operations_ms).chain(&mut report.kernels_ms);
    times.for_each(|time| time.1 = 0.0);
    report
}

#[test]
fn equal_runs_give_equal_reports() {
    let streaks = [
        Segment::from_coordinates(30.3, 40.6, 130.2, 67.1),
        Segment::from_coordinates(50.0, 130.0, 150.0, 80.0),
        Segment::from_coordinates(170.5, 20.0, 170.5, 100.0),
    ];
    let frames = [noisy(200, 150, 900, &streaks, 15.0, 1.5), noisy(190, 160, 901, &streaks, 15.0, 1.5)];
    let run = |detector: &Detector, frame: &Frame<'_>| timeless(detector.detect(frame).unwrap());
    // Each frame by a detector of its own.
    let alone = frames.each_ref().map(|frame| run(&detector(1.5, FALSE_ALARMS), frame));
    assert!(alone.iter().all(|report| report.detections.len() == 3), "{alone:?}");

    // One detector, used again after other frames, and by two threads at once.
    let shared = detector(1.5, FALSE_ALARMS);
    thread::scope(|scope| {
        for turn in 0..2 {
            let (shared, frames, alone) = (&shared, &frames, &alone);
            scope.spawn(move || {
                for i in [turn, 1 - turn, turn, turn] {
                    assert_eq!(run(shared, &frames[i]), alone[i]);
                }
            });
        }
    });
    assert_eq!(run(&shared, &frames[0]), alone[0]);
}

#[test]
fn given_places_are_searched_and_no_others() {
    let streaks = [
        Segment::from_coordinates(30.3, 40.6, 130.2, 67.1),
        Segment::from_coordinates(50.0, 130.0, 150.0, 80.0),
        Segment::from_coordinates(170.5, 20.0, 170.5, 100.0),
    ];
    // Bright ones: with their light gone a frame is searched once more, and so would a place be.
    let frame = noisy(200, 150, 910, &streaks, 25.0, 1.5);
    let detector = detector(1.5, FALSE_ALARMS);
    let blind = detector.detect(&frame).unwrap();
    assert_eq!(blind.detections.len(), 3);
    assert!(detector.detect_at(&frame, &[]).unwrap().detections.is_empty());
    let places = streaks.map(|truth| truth.extended(-6.0, 3.0));
    let all = detector.detect_at(&frame, &places).unwrap();
    assert_eq!(all.detections.len(), 3, "{:#?}", all.detections);
    for (truth, place) in streaks.iter().zip(places) {
        // One optimum, reached from two starts: to the tenth of the error at which fits stop.
        let (found, same) = (found_once(&all, truth), found_once(&blind, truth));
        let apart = found.segment.start.distance(same.segment.start).max(found.segment.end.distance(same.segment.end));
        let err = found.ends_along_err_px().0.max(found.ends_along_err_px().1);
        assert!(apart < 0.1 * err, "{found:?} {same:?}");
        // One place alone: the streaks elsewhere stay in the frame, and in its noise.
        let report = detector.detect_at(&frame, &[place]).unwrap();
        assert_eq!(report.detections.len(), 1, "{:#?}", report.detections);
        assert!(found_once(&report, truth).midpoint().distance(same.midpoint()) < 0.5 * err);
    }
    // Best first, each of the three ahead of all noise: S/N 25 less what the coarse step loses.
    let candidates = detector.candidates(&frame).unwrap();
    assert!(candidates.is_sorted_by(|a, b| a.snr >= b.snr));
    for truth in &streaks {
        let beside = |c: &&skystreak::Candidate| truth.distance_to(c.segment.midpoint()) < 3.0;
        let best = candidates.iter().find(beside).unwrap();
        assert!((15.0..30.0).contains(&best.snr), "{best:?}");
    }
}

#[test]
fn a_bright_streak_is_found_at_its_place() {
    // So bright that each pixel of it passes for a source, longer than wide.
    let truth = Segment::from_coordinates(60.3, 40.6, 100.2, 67.1);
    let frame = noisy(200, 150, 911, &[truth], 200.0, 1.5);
    let detector = detector(1.5, FALSE_ALARMS);
    for report in [detector.detect(&frame).unwrap(), detector.detect_at(&frame, &[truth]).unwrap()] {
        assert_eq!(report.detections.len(), 1, "{:#?}", report.detections);
        let found = found_once(&report, &truth);
        // Its ends are known to 0.1 px.
        assert!((found.snr / 200.0 - 1.0).abs() < 0.05 && found.segment.start.distance(truth.start) < 0.5, "{found:?}");
    }
}
