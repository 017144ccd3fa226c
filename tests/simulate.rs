//! The simulated frames are what their truth says, and the sample data are what their scenes say.

use skystreak::simulate::{Brightness, RandomStreaks, SceneConfig, StarSpec, StreakSpec, simulate, unit_stamp};
use skystreak::{Error, Pixels, Role, Segment};

fn small() -> SceneConfig {
    SceneConfig { width: 200, height: 150, ..SceneConfig::default() }
}

fn values(config: &SceneConfig) -> Vec<f64> {
    let frame = simulate(config).unwrap().frame;
    (0..frame.pixels().len()).map(|i| f64::from(frame.pixels().value(i))).collect()
}

#[test]
fn one_seed_gives_one_frame() {
    let config = SceneConfig { random_streaks: vec![RandomStreaks::default()], width: 400, ..SceneConfig::default() };
    let scene = simulate(&config).unwrap();
    assert_eq!(scene, simulate(&config).unwrap());
    assert_ne!(scene.frame, simulate(&SceneConfig { seed: 2, ..config.clone() }).unwrap().frame);
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(scene, one_thread.install(|| simulate(&config)).unwrap());
}

#[test]
fn ingredients_do_not_disturb_each_other() {
    let config = SceneConfig { random_streaks: vec![RandomStreaks { n: 2, ..Default::default() }], ..small() };
    let fewer_stars = SceneConfig { stars_per_mpix: 100.0, ..config.clone() };
    let (a, b) = (simulate(&config).unwrap().truth, simulate(&fewer_stars).unwrap().truth);
    assert!(a.stars.len() > b.stars.len());
    assert_eq!((a.streaks, a.hot_pixels, a.cosmic_rays), (b.streaks, b.hot_pixels, b.cosmic_rays));
}

#[test]
fn blank_frames_have_the_noise_they_claim() {
    let config = SceneConfig { width: 1000, height: 500, ..SceneConfig::blank() };
    let pixels = values(&config);
    let n = pixels.len() as f64;
    let mean = pixels.iter().sum::<f64>() / n;
    let rms = (pixels.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / n).sqrt();
    // Mean and rms scatter by 0.020 and 0.014 ADU; seven times that is 1 in 10^11.
    assert!((mean - (1000.0 + 400.0 / 1.5)).abs() < 0.14, "{mean}");
    let expected = (simulate(&config).unwrap().truth.noise_adu.powi(2) + 1.0 / 12.0).sqrt();
    assert!((rms - expected).abs() < 0.1, "{rms} {expected}");
}

#[test]
fn streaks_have_the_snr_they_claim() {
    let segment = Segment::from_coordinates(20.3, 30.6, 150.2, 97.1);
    let streaks = vec![StreakSpec { segment, brightness: Brightness::Snr(40.0) }];
    let config = SceneConfig { streaks, width: 200, height: 150, ..SceneConfig::blank() };
    let scene = simulate(&config).unwrap();
    let streak = &scene.truth.streaks[0];
    assert_eq!((streak.segment(), streak.role), (segment, Role::Target));
    let stamp = unit_stamp(&segment, config.psf_sigma_px, 200, 150);
    let sky_adu = config.bias_adu + config.sky_e / config.gain_e_per_adu;
    let above = |x, y| f64::from(scene.frame.pixels().value(y * 200 + x)) - sky_adu;
    let signal: f64 = stamp.pixels().map(|(x, y, t)| above(x, y) * t).sum();
    let measured = signal / (stamp.norm() * scene.truth.noise_adu);
    // The measured S/N scatters by 1 and a few percent for the streak's own photons; 6 is 1 in 10^8.
    assert!((measured - 40.0).abs() < 6.0, "{measured}");
    assert!((streak.noise_e / config.noise_e() - 1.0).abs() < 1e-9);
}

#[test]
fn streaks_are_cut_by_the_frame() {
    let segment = Segment::from_coordinates(250.0, 75.0, 150.0, 75.0);
    let streaks = vec![StreakSpec { segment, brightness: Brightness::FluxE(10_000.0) }];
    let truth = simulate(&SceneConfig { streaks, ..small() }).unwrap().truth;
    let streak = &truth.streaks[0];
    assert_eq!((streak.x1, streak.x2, streak.length_px), (150.0, 199.5, 49.5));
    assert!(!streak.end1_off_frame && streak.end2_off_frame);
    assert!((streak.flux_e - 4950.0).abs() < 1.0, "{}", streak.flux_e);
}

#[test]
fn stars_trail_when_the_telescope_follows_something_else() {
    let config = SceneConfig { height: 800, stars_per_mpix: 400.0, ..SceneConfig::rate_tracked(30.0, 0.3) };
    let stars = simulate(&config).unwrap().truth.stars;
    let whole: Vec<_> = stars.iter().filter(|s| !s.end1_off_frame && !s.end2_off_frame).collect();
    assert!(whole.len() > 200 && whole.len() < stars.len());
    assert!(whole.iter().all(|s| (s.length_px - 30.0).abs() < 1e-9 && (s.angle_rad - 0.3).abs() < 1e-9));
    assert!(stars.iter().all(|s| s.role == Role::Star && s.snr >= 3.0));
    // Counts grow by 0.3 dex per magnitude: 0.75 dex, a factor of 5.6, from S/N 30 to S/N 3.
    let brighter = stars.iter().filter(|s| s.snr > 30.0).count() as f64;
    assert!((0.08..0.32).contains(&(brighter / stars.len() as f64)), "{brighter} of {}", stars.len());
}

#[test]
fn saturated_stars_bleed_along_their_column() {
    let star = StarSpec { x: 80.0, y: 70.0, flux_e: 5e6 };
    let config = SceneConfig { stars: vec![star], ..SceneConfig { width: 160, height: 140, ..SceneConfig::blank() } };
    let scene = simulate(&config).unwrap();
    assert!(scene.truth.bleeding_columns.contains(&80));
    let saturated = |x: usize, y: usize| scene.frame.usable_value(y * 160 + x).is_none();
    assert!(saturated(80, 70 + 6) && saturated(80, 70 - 6) && !saturated(80 + 8, 70));
    let pixels = values(&config);
    let charge: f64 = pixels.iter().map(|p| (p - config.bias_adu) * config.gain_e_per_adu - config.sky_e).sum();
    // Photon and read noise of the sum: 3800 e-; seven times that is 1 in 10^11.
    assert!((charge - 5e6).abs() < 27_000.0, "{charge}");
}

#[test]
fn random_streaks_keep_their_distance() {
    let random = RandomStreaks { n: 12, length_px: [20.0, 60.0], ..RandomStreaks::default() };
    let config = SceneConfig { random_streaks: vec![random], height: 500, width: 600, ..SceneConfig::blank() };
    let streaks = simulate(&config).unwrap().truth.streaks;
    for (i, a) in streaks.iter().enumerate() {
        assert!((20.0..60.0).contains(&a.length_px) && (8.0..40.0).contains(&a.snr));
        assert!(a.x1.min(a.y1).min(a.y2) >= 12.0 && a.x2 <= 587.0 && a.y1.max(a.y2) <= 487.0);
        for b in &streaks[..i] {
            let along = (0..=60).map(|k| b.segment().distance_to(a.segment().at(f64::from(k) / 60.0)));
            assert!(along.fold(f64::INFINITY, f64::min) >= 25.0 - 1e-9);
        }
    }
}

#[test]
fn impossible_scenes_are_refused() {
    let outside =
        StreakSpec { segment: Segment::from_coordinates(-90.0, 10.0, -50.0, 10.0), brightness: Brightness::Snr(10.0) };
    let crowd = RandomStreaks { n: 50, length_px: [140.0, 140.0], ..RandomStreaks::default() };
    let random = |snr| vec![RandomStreaks { snr, ..RandomStreaks::default() }];
    for config in [
        SceneConfig { random_streaks: random([30.0, 8.0]), ..small() },
        SceneConfig { random_streaks: random([f64::NAN, 8.0]), ..small() },
        SceneConfig { width: 0, ..small() },
        SceneConfig { psf_sigma_px: f64::NAN, ..small() },
        SceneConfig { gain_e_per_adu: 0.0, ..small() },
        SceneConfig { streaks: vec![outside], ..small() },
        SceneConfig { random_streaks: vec![crowd], ..small() },
    ] {
        assert!(matches!(simulate(&config), Err(Error::Config(_))), "{config:?}");
    }
    assert!(serde_json::from_str::<SceneConfig>(r#"{"widht": 100}"#).is_err());
}

#[test]
fn pixels_are_16_bits_and_clip() {
    let config = SceneConfig { sky_e: 1e6, full_well_e: 2e6, ..SceneConfig { height: 20, ..SceneConfig::blank() } };
    let frame = simulate(&config).unwrap().frame;
    let Pixels::U16(pixels) = frame.pixels() else { panic!("{:?}", frame.pixels()) };
    assert!(pixels.iter().all(|&p| p == u16::MAX));
    assert_eq!(frame.saturation(), Some(65_535.0));
}

#[cfg(feature = "fits")]
mod sample_data {
    use std::path::PathBuf;

    use fitsio::FitsFile;
    use skystreak::simulate::{SceneConfig, Truth, simulate};

    fn testdata(file: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(file)
    }

    fn check(name: &str) {
        let text = |file: String| std::fs::read_to_string(testdata(&file)).unwrap();
        let config: SceneConfig = serde_json::from_str(&text(format!("{name}.scene.json"))).unwrap();
        let scene = simulate(&config).unwrap();

        let mut file = FitsFile::open(testdata(&format!("{name}.fits"))).unwrap();
        let hdu = file.primary_hdu().unwrap();
        let committed: Vec<u16> = hdu.read_image(&mut file).unwrap();
        assert_eq!(committed.len(), scene.frame.pixels().len());
        let differ = (0..committed.len()).filter(|&i| f32::from(committed[i]) != scene.frame.pixels().value(i)).count();
        // None differ where they were made; logarithms of another platform may round another way.
        assert!(differ * 1000 <= committed.len(), "{name}: {differ} pixels differ");
        let number = |key: &str, file: &mut FitsFile| hdu.read_key::<f64>(file, key).unwrap();
        assert_eq!(number("GAIN", &mut file), config.gain_e_per_adu);
        assert_eq!(number("RDNOISE", &mut file), config.read_noise_e);
        assert_eq!(number("SATURATE", &mut file), config.saturation_adu());
        assert_eq!(number("EXPTIME", &mut file), config.exposure_secs);
        assert!(hdu.read_key::<String>(&mut file, "DATE-OBS").unwrap().starts_with(&config.start_utc));

        let truth: Truth = serde_json::from_str(&text(format!("{name}.truth.json"))).unwrap();
        assert_eq!((truth.width, truth.height), (config.width, config.height));
        assert_eq!((truth.streaks.len(), truth.stars.len()), (scene.truth.streaks.len(), scene.truth.stars.len()));
        for (a, b) in truth.streaks.iter().chain(&truth.stars).zip(scene.truth.streaks.iter().chain(&scene.truth.stars))
        {
            assert!((a.x1 - b.x1).abs().max((a.y2 - b.y2).abs()) < 1e-9 && (a.snr / b.snr - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn is_what_its_scenes_say() {
        for name in ["sidereal_blank", "sidereal_stars", "rate_trails", "crossing"] {
            check(name);
        }
    }
}
