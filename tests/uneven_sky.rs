//! Frames whose sky is no smooth map: areas without data, steps around amplifiers, edges of light. The streak in them is
//! found, and nothing else.
#![expect(unreachable_pub, reason = "the helper module is part of this program")]

#[path = "support/tracks.rs"]
mod tracks;

use skystreak::simulate::{add_streak, cramer_rao, gaussian_frame, unit_stamp};
use skystreak::{Detector, DetectorConfig, Device, Frame, FrameFlag, Reference, RejectReason, Report, Segment};
use tracks::{across_px, end_scale_px, ends_along_px, on_track};

const WIDTH: usize = 800;
const HEIGHT: usize = 700;
const NOISE: f32 = 10.0;
const SIGMA: f64 = 1.5;
const SNR: f64 = 30.0;

/// None is seen by luck.
const FALSE_ALARMS: f64 = 1e-4;

fn detector() -> Detector {
    let psf_sigma_px = Some(SIGMA);
    let config = DetectorConfig {
        device: Device::Cpu,
        psf_sigma_px,
        false_alarms_per_frame: FALSE_ALARMS,
        ..Default::default()
    };
    Detector::new(config).unwrap()
}

/// Noise around 500 ADU, a streak across the middle, and whatever is done to a pixel at (x, y).
fn frame(seed: u64, change: impl Fn(usize, usize, f32) -> f32) -> (Frame<'static>, Segment) {
    let mut pixels = gaussian_frame(WIDTH, HEIGHT, seed, NOISE);
    let streak = Segment::from_coordinates(330.3, 410.8, 482.9, 290.4);
    let flux = SNR * f64::from(NOISE) / unit_stamp(&streak, SIGMA, WIDTH, HEIGHT).norm();
    add_streak(&mut pixels, WIDTH, &streak, SIGMA, flux);
    let raw: Vec<u16> = pixels
        .iter()
        .enumerate()
        .map(|(i, v)| change(i % WIDTH, i / WIDTH, v + 500.0).round().clamp(0.0, 60_000.0) as u16)
        .collect();
    (Frame::new(raw, WIDTH, HEIGHT).unwrap(), streak)
}

fn finds_the_streak_alone(what: &str, report: &Report, streak: &Segment) {
    let found = on_track(report, streak);
    assert_eq!((found.len(), report.detections.len()), (1, 1), "{what}: {:?}", report.detections);
    let flux = SNR * f64::from(NOISE) / unit_stamp(streak, SIGMA, WIDTH, HEIGHT).norm();
    let bounds = cramer_rao(streak, flux, SIGMA, f64::from(NOISE), false).unwrap();
    // Five standard errors, one way, are 1 in 3 million.
    let most = 5.0 * end_scale_px(&bounds, streak.length_px(), SNR);
    assert!(ends_along_px(found[0], streak).iter().all(|off| *off < most), "{what}: {:?}", found[0].segment);
    assert!(across_px(found[0], streak) < 5.0 * bounds.mid_across_px, "{what}: {:?}", found[0].segment);
}

#[test]
fn areas_without_data_are_left_out() {
    let detector = detector();
    let round = |x: usize, y: usize| (x as f64 - 400.0).hypot(y as f64 - 350.0) > 330.0;
    let turned = |x: usize, y: usize| x + y < 350 || x > y + 500;
    let gap = |x: usize, _: usize| (200..216).contains(&x);
    let areas: [&dyn Fn(usize, usize) -> bool; 3] = [&round, &turned, &gap];
    for (what, is_empty) in ["round", "turned", "gap"].into_iter().zip(areas) {
        for (seed, filling) in [(1, 0.0), (2, 500.0)] {
            let (frame, streak) = frame(seed, |x, y, v| if is_empty(x, y) { filling } else { v });
            let report = detector.detect(&frame).unwrap();
            finds_the_streak_alone(&format!("{what}, {filling}"), &report, &streak);
            assert_eq!(report.flags, [FrameFlag::EmptyAreas], "{what}");
        }
    }
    let (frame, streak) = frame(3, |_, _, v| v);
    let report = detector.detect(&frame).unwrap();
    finds_the_streak_alone("none", &report, &streak);
    assert!(report.flags.is_empty());
}

#[test]
fn an_area_without_data_in_a_difference_is_left_out() {
    let empty = |x: usize, y: usize| x + y < 400;
    let other = |seed| {
        let pixels: Vec<f32> = gaussian_frame(WIDTH, HEIGHT, seed, NOISE)
            .iter()
            .enumerate()
            .map(|(i, v)| if empty(i % WIDTH, i / WIDTH) { 0.0 } else { v + 500.0 })
            .collect();
        Frame::new(pixels, WIDTH, HEIGHT).unwrap()
    };
    let reference = Reference::median(&[other(11), other(12), other(13)]).unwrap();
    let (frame, streak) = frame(4, |x, y, v| if empty(x, y) { 0.0 } else { v });
    let report = detector().detect_with(&frame, &reference).unwrap();
    finds_the_streak_alone("difference", &report, &streak);
    assert_eq!(report.flags, [FrameFlag::EmptyAreas]);
}

#[test]
fn steps_of_amplifiers_are_taken_off() {
    let detector = detector();
    for (seed, step) in [(5, 30.0), (6, 100.0)] {
        let add = |part: bool, v: f32| if part { v + step } else { v };
        let half = frame(seed, |x, _, v| add(x >= 400, v));
        let quarter = frame(seed + 10, |x, y, v| add(x >= 400 && y >= 350, v));
        let quarters = frame(seed + 20, |x, y, v| add(x >= 400, v) + 0.5 * add(y >= 350 && x < 400, 0.0));
        for (what, (frame, streak)) in [("half", half), ("quarter", quarter), ("quarters", quarters)] {
            let report = detector.detect(&frame).unwrap();
            finds_the_streak_alone(&format!("{what}, {step}"), &report, &streak);
            let sky = detector.sky(&frame).unwrap().unwrap();
            let at = |x: usize, y: usize| f64::from(sky.level[y * WIDTH + x]);
            let truth = match what {
                "half" => [500.0, 500.0 + step, 500.0, 500.0 + step],
                "quarter" => [500.0, 500.0, 500.0, 500.0 + step],
                _ => [500.0, 500.0 + step, 500.0 + 0.5 * step, 500.0 + step],
            };
            for ((x, y), level) in [(395, 340), (405, 340), (395, 360), (405, 360)].into_iter().zip(truth) {
                assert!((at(x, y) - f64::from(level)).abs() < 2.0, "{what}, {step} ({x}, {y}): {}", at(x, y));
            }
            assert!(sky.noise.iter().all(|n| (8.5..11.5).contains(n)), "{what}, {step}");
        }
    }
}

#[test]
fn an_edge_of_light_is_no_streak() {
    let detector = detector();
    for (seed, height, width) in [(7, 100.0, 0.5), (8, 100.0, 8.0), (9, 300.0, 20.0)] {
        // Past the streak, which lies 100 px and more from it.
        let edge = |x: usize, y: usize| height * 0.5 * (1.0 + ((x as f32 + 0.3 * y as f32 - 720.0) / width).tanh());
        let (frame, streak) = frame(seed, |x, y, v| v + edge(x, y));
        let report = detector.detect(&frame).unwrap();
        finds_the_streak_alone(&format!("edge of {height} over {width}"), &report, &streak);
    }
}

#[test]
fn a_bright_streak_across_an_edge_is_found_and_a_line_of_the_edge_is_named() {
    let (mut pixels, across) =
        (gaussian_frame(WIDTH, HEIGHT, 10, NOISE), Segment::from_coordinates(150.2, 300.7, 640.8, 391.1));
    for (i, pixel) in pixels.iter_mut().enumerate() {
        let (x, y) = ((i % WIDTH) as f32, (i / WIDTH) as f32);
        *pixel += 500.0 + if x + 0.3 * y > 500.0 { 100.0 } else { 0.0 };
    }
    add_streak(&mut pixels, WIDTH, &across, SIGMA, 150_000.0);
    let frame = Frame::new(&pixels, WIDTH, HEIGHT).unwrap();
    let detector = detector();
    let report = detector.detect(&frame).unwrap();
    assert_eq!(on_track(&report, &across).len(), 1, "{:?}", report.detections);
    let edge = Segment::from_coordinates(497.0, 20.0, 406.0, 320.0);
    let report = detector.detect_at(&frame, &[edge]).unwrap();
    assert!(report.detections.is_empty(), "{:?}", report.detections);
    assert!(report.rejected.iter().any(|r| r.reason == RejectReason::UnevenSky), "{:?}", report.rejected);
}
