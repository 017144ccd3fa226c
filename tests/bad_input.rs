//! Frames that hold nothing and settings that make no sense: a clear answer, never a panic.
//!
//! Bad files are in `tests/fits.rs`.

use skystreak::simulate::gaussian_frame;
use skystreak::{
    BackgroundConfig, Detector, DetectorConfig, Device, Error, Frame, FrameFlag, JudgeConfig, MAX_SIDE_PX, Pixels,
    SearchConfig, Segment, Tracking, WeighConfig,
};

fn cpu() -> DetectorConfig {
    // The lowest there is: no frame of noise shows a streak by luck.
    DetectorConfig { device: Device::Cpu, false_alarms_per_frame: 1e-6, ..DetectorConfig::default() }
}

/// Nothing is found, and the reason is one of the given.
fn check(what: &str, frame: skystreak::Result<Frame<'_>>, reasons: &[FrameFlag]) {
    let frame = frame.unwrap_or_else(|e| panic!("{what}: {e}"));
    // With and without a PSF to be measured.
    for psf_sigma_px in [None, Some(1.5)] {
        let detector = Detector::new(DetectorConfig { psf_sigma_px, ..cpu() }).unwrap();
        let at_places = detector.detect_at(&frame, &places()).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(at_places.detections.is_empty(), "{what}: {:?}", at_places.detections);
        let candidates = detector.candidates(&frame).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(candidates.is_empty() || at_places.flags.iter().all(|flag| *flag == FrameFlag::PsfAssumed), "{what}");
        let report = detector.detect(&frame);
        let report = report.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!((report.width, report.height), (frame.width(), frame.height()), "{what}");
        assert!(report.detections.is_empty(), "{what}: {:?}", report.detections);
        let told = reasons.is_empty() || reasons.iter().any(|reason| report.flags.contains(reason));
        assert!(told, "{what}: {:?} instead of {reasons:?}", report.flags);
    }
}

/// Places across, beside and beyond any frame, and one of no length.
fn places() -> [Segment; 5] {
    [
        Segment::from_coordinates(0.0, 0.0, 60.0, 40.0),
        Segment::from_coordinates(-500.0, 3.0, 900.0, 3.0),
        Segment::from_coordinates(-90.0, -90.0, -50.0, -50.0),
        Segment::from_coordinates(1e300, 0.0, -1e300, 1.0),
        Segment::from_coordinates(2.0, 2.0, 2.0, 2.0),
    ]
}

fn noise(width: usize, height: usize) -> skystreak::Result<Frame<'static>> {
    // Seed 1.
    Frame::new(gaussian_frame(width, height, 1, 1.0), width, height)
}

#[test]
fn frames_without_a_usable_pixel() {
    let reasons = &[FrameFlag::NoUsablePixels];
    let (w, h) = (70, 50);
    check("all NaN", Frame::new(vec![f32::NAN; w * h], w, h), reasons);
    check("all infinite", Frame::new(vec![f32::NEG_INFINITY; w * h], w, h), reasons);
    check("all saturated", Frame::new(vec![u16::MAX; w * h], w, h).map(|f| f.with_saturation(60_000.0)), reasons);
    check("saturated noise", noise(w, h).map(|f| f.with_saturation(-50.0)), reasons);
    check("all BLANK", Frame::new(vec![-32_768_i16; w * h], w, h).map(|f| f.with_blank(-32_768)), reasons);
    check("all masked", noise(w, h).and_then(|f| f.with_mask(vec![true; w * h])), reasons);
    check("one NaN", Frame::new(vec![f32::NAN], 1, 1), reasons);
}

#[test]
fn frames_without_noise() {
    let reasons = &[FrameFlag::NoNoise];
    let (w, h) = (130, 70);
    let n = w * h;
    let constants: [Pixels<'_>; 6] = [
        vec![0_u8; n].into(),
        vec![1000_u16; n].into(),
        vec![-7_i16; n].into(),
        vec![i32::MAX; n].into(),
        vec![0.1_f32; n].into(),
        vec![f32::MAX; n].into(),
    ];
    for pixels in constants {
        let what = format!("all {}", pixels.value(0));
        check(&what, Frame::new(pixels, w, h), reasons);
    }
    let half_missing: Vec<f32> = (0..n).map(|i| if i % 2 == 0 { f32::NAN } else { 3.0 }).collect();
    check("constant or NaN", Frame::new(half_missing, w, h), reasons);
    check("the longest row", Frame::new(vec![5_u8; MAX_SIDE_PX], MAX_SIDE_PX, 1), reasons);
}

#[test]
fn frames_too_small_for_a_streak() {
    for (width, height) in [(1, 1), (1, 2), (2, 2), (3, 3), (5, 6)] {
        let what = format!("{width} x {height} pixels");
        check(&what, noise(width, height), &[FrameFlag::TooSmall, FrameFlag::NoNoise]);
    }
}

#[test]
fn frames_of_odd_shapes() {
    for (width, height) in [(1, 63), (65, 1), (2, 64), (3, 5000), (5000, 3), (63, 65)] {
        check(&format!("{width} x {height} pixels"), noise(width, height), &[]);
    }
    let (width, height) = (150, 120);
    let pixels = gaussian_frame(width, height, 2, 1.0);
    let only = |usable: fn(usize, usize) -> bool| {
        let missing: Vec<bool> = (0..width * height).map(|i| !usable(i % width, i / width)).collect();
        Frame::new(&pixels, width, height)?.with_mask(missing)
    };
    check("one pixel", only(|x, y| (x, y) == (75, 60)), &[FrameFlag::NoNoise]);
    check("a row", only(|_, y| y == 60), &[]);
    check("the left half", only(|x, _| x < 75), &[]);
    check("a chessboard", only(|x, y| (x + y) % 2 == 0), &[]);
    check("a frame around nothing", only(|x, y| x < 3 || y < 3 || x > 146 || y > 116), &[]);
}

#[test]
fn frames_of_extreme_values() {
    let (width, height) = (150, 120);
    let scaled = |scale: f32, offset: f32| {
        let pixels = gaussian_frame(width, height, 3, 1.0).into_iter().map(|p| p * scale + offset);
        Frame::new(pixels.collect::<Vec<_>>(), width, height)
    };
    for (scale, offset) in [(1e-30, 0.0), (1e-6, 0.0), (1e15, 0.0), (1e30, 0.0), (1.0, 1e6), (1.0, -1e6)] {
        check(&format!("noise of {scale} around {offset}"), scaled(scale, offset), &[]);
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let refused = |result: skystreak::Result<Frame<'_>>, words: &str| {
        let message = result.map(|_| ()).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    };
    refused(Frame::new(vec![0_u8; 0], 0, 0), "0 x 0");
    refused(Frame::new(vec![0_u8; 0], 7, 0), "7 x 0");
    refused(Frame::new(vec![0_u8; 11], 3, 4), "needs 12");
    refused(Frame::new(vec![0_u8; 4], usize::MAX, 4), "limit");
    refused(Frame::new(vec![0_u8; 12], 3, 4).and_then(|f| f.with_mask(vec![false; 13])), "13 values");
    for gain in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        refused(Frame::new(vec![0_u8; 12], 3, 4).and_then(|f| f.with_gain(gain)), &format!("{gain} e-/ADU"));
    }
    let too_long = Frame::new(vec![0_u8; MAX_SIDE_PX + 1], 1, MAX_SIDE_PX + 1).unwrap_err();
    let Error::Limit { requested, allowed, .. } = too_long else { panic!("{too_long}") };
    assert_eq!((requested, allowed), (MAX_SIDE_PX as u64 + 1, MAX_SIDE_PX as u64));
}

#[test]
fn places_that_are_no_numbers_are_refused() {
    let detector = Detector::new(cpu()).unwrap();
    for x in [f64::NAN, f64::INFINITY] {
        let place = Segment::from_coordinates(10.0, 10.0, x, 20.0);
        let error = detector.detect_at(&noise(64, 64).unwrap(), &[place]).unwrap_err();
        assert!(matches!(&error, Error::Input(text) if text.contains("finite")), "{error}");
    }
}

#[test]
fn settings_out_of_range_are_named() {
    let psf = |sigma| DetectorConfig { psf_sigma_px: Some(sigma), ..cpu() };
    let alarms = |n| DetectorConfig { false_alarms_per_frame: n, ..cpu() };
    let mesh = |mesh_px| DetectorConfig { background: BackgroundConfig { mesh_px }, ..cpu() };
    let weigh = |weigh| DetectorConfig { weigh, ..cpu() };
    let source = |source_snr| weigh(WeighConfig { source_snr, ..WeighConfig::default() });
    let wing = |wing_sigmas| weigh(WeighConfig { wing_sigmas, ..WeighConfig::default() });
    let search = |search| DetectorConfig { search, ..cpu() };
    let clip = |clip_sigmas| search(SearchConfig { clip_sigmas, ..SearchConfig::default() });
    let shortest = |min_length_px| search(SearchConfig { min_length_px, ..SearchConfig::default() });
    let judge = |judge| DetectorConfig { judge, ..cpu() };
    let narrow = |min_width| judge(JudgeConfig { min_width, ..JudgeConfig::default() });
    let wide = |max_width| judge(JudgeConfig { max_width, ..JudgeConfig::default() });
    let rate = |star_length_px, star_angle_rad| DetectorConfig {
        tracking: Tracking::Rate { star_length_px, star_angle_rad },
        ..cpu()
    };
    for (config, name, value) in [
        (psf(0.1), "psf_sigma_px", "0.1"),
        (psf(9.5), "psf_sigma_px", "9.5"),
        (psf(f64::NAN), "psf_sigma_px", "NaN"),
        (alarms(0.0), "false_alarms_per_frame", "0"),
        (alarms(-2.5), "false_alarms_per_frame", "-2.5"),
        (alarms(f64::INFINITY), "false_alarms_per_frame", "inf"),
        (mesh(0), "mesh_px", "0"),
        (mesh(100_000), "mesh_px", "100000"),
        (source(-3.5), "source_snr", "-3.5"),
        (wing(f64::NAN), "wing_sigmas", "NaN"),
        (clip(1.5), "clip_sigmas", "1.5"),
        (shortest(0.5), "min_length_px", "0.5"),
        (narrow(1.25), "min_width", "1.25"),
        (wide(0.75), "max_width", "0.75"),
        (rate(0.0, 0.3), "tracking", "0"),
        (rate(20.0, f64::NAN), "tracking", "NaN"),
    ] {
        let error = Detector::new(config).map(|_| ()).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, Error::Config(_)), "{message}");
        assert!([name, value, "must be"].iter().all(|words| message.contains(words)), "{name} {value}: {message}");
    }
}

#[test]
fn unknown_devices_are_device_errors() {
    let device = Device::Named("no adapter has this name".into());
    let error = Detector::new(DetectorConfig { device, ..cpu() }).map(|_| ()).unwrap_err();
    assert!(error.is_device() && !error.is_input(), "{error}");
}
