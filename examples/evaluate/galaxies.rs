//! Galaxies in star fields: lines on them that pass for streaks, and streaks found beside them.

use clap::Args;
use rand::RngExt;
use skystreak::simulate::{Brightness, SceneConfig, StreakSpec, gaussian_frame, simulate};
use skystreak::{Detector, DetectorConfig, Frame, Point, Role};

use crate::AnyResult;
use crate::disk::Disk;
use crate::matching::{self, RULE};
use crate::options::Common;
use crate::scenes::{Placement, frame_seed, place_generator};
use crate::table::Table;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Stars of S/N 3 and more on a million pixels.
    #[arg(long, value_delimiter = ',', default_values_t = [300.0, 1000.0])]
    stars: Vec<f64>,
    /// Galaxies in a frame.
    #[arg(long, default_value_t = 20)]
    galaxies: usize,
    /// Lengths of the streaks, px, one for each frame in turn.
    #[arg(long, value_delimiter = ',', default_values_t = [30.0, 100.0, 300.0])]
    length: Vec<f64>,
    /// S/N of the streaks, one for each frame in turn.
    #[arg(long, value_delimiter = ',', default_values_t = [8.0, 10.0, 15.0])]
    snr: Vec<f64>,
    /// Streaks in a frame.
    #[arg(long, default_value_t = 2)]
    per_frame: usize,
}

/// Scale lengths, px, and S/N, both spread evenly in the logarithm, and axis ratios.
const SCALES_PX: (f64, f64) = (1.5, 12.0);
const SNRS: (f64, f64) = (8.0, 300.0);
const AXIS_RATIOS: (f64, f64) = (0.12, 1.0);

/// S/N of galaxies that are counted together.
const BINS: [(f64, f64); 3] = [(8.0, 30.0), (30.0, 100.0), (100.0, 300.0)];

/// One frame: S/N of its galaxies, with how many lines on each, lines elsewhere, and how many of its streaks were found.
struct Outcome {
    galaxies: Vec<(f64, usize)>,
    n_elsewhere: usize,
    n_found: usize,
    is_sidereal: bool,
}

fn draw(size: usize, n: usize, rng: &mut impl RngExt) -> Vec<Disk> {
    let side = size as f64 - 0.5;
    let even = |rng: &mut _, (from, to): (f64, f64)| RngExt::random_range(rng, from..to);
    let even_in_log = |rng: &mut _, (from, to): (f64, f64)| even(rng, (f64::ln(from), f64::ln(to))).exp();
    let disk = |_| Disk {
        x: even(rng, (-0.5, side)),
        y: even(rng, (-0.5, side)),
        scale_px: even_in_log(rng, SCALES_PX),
        axis_ratio: even(rng, AXIS_RATIOS),
        angle_rad: even(rng, (0.0, std::f64::consts::PI)),
        snr: even_in_log(rng, SNRS),
    };
    (0..n).map(disk).collect()
}

fn search(detector: &Detector, options: &Options, stars_per_mpix: f64, frame: usize) -> AnyResult<Outcome> {
    let Common { size, sigma, seed, .. } = options.common;
    let seed = frame_seed(seed, frame);
    let of_frame = |values: &[f64]| values[frame % values.len()];
    let mut rng = place_generator(seed);
    let places = Placement::new(of_frame(&options.length), Some(options.per_frame), size).draw(size, &mut rng)?;
    let disks = draw(size, options.galaxies, &mut rng);
    let brightness = Brightness::Snr(of_frame(&options.snr));
    let config = SceneConfig {
        width: size,
        height: size,
        seed,
        psf_sigma_px: sigma,
        stars_per_mpix,
        streaks: places.iter().map(|segment| StreakSpec { segment: *segment, brightness }).collect(),
        ..SceneConfig::default()
    };
    let scene = simulate(&config)?.frame;
    let noise = config.noise_e() / config.gain_e_per_adu;
    let mut light = vec![0.0; size * size];
    disks.iter().for_each(|disk| disk.add(&mut light, size, sigma));
    // Their photons' noise as well.
    let photons = gaussian_frame(size, size, seed + 1, 1.0);
    let with_light = |i: usize| {
        let adu = light[i] * noise;
        f64::from(scene.pixels().value(i)) + adu + (adu / config.gain_e_per_adu).sqrt() * f64::from(photons[i])
    };
    let pixels: Vec<u16> =
        (0..size * size).map(|i| with_light(i).round().clamp(0.0, config.saturation_adu()) as u16).collect();
    let frame =
        Frame::new(pixels, size, size)?.with_gain(config.gain_e_per_adu)?.with_saturation(config.saturation_adu());
    let report = detector.detect(&frame)?;
    let targets: Vec<_> = report.detections.iter().filter(|d| d.role == Role::Target).collect();
    let belongs = |found, truth| matching::belongs(found, truth, sigma);
    let mut galaxies: Vec<(f64, usize)> = disks.iter().map(|disk| (disk.snr, 0)).collect();
    let mut n_elsewhere = 0;
    for d in targets.iter().filter(|d| !places.iter().any(|truth| belongs(&d.segment, truth))) {
        let off_px = |disk: &Disk| Point::new(disk.x, disk.y).distance(d.segment.midpoint());
        let is_on = |disk: &Disk| off_px(disk) < 4.0 * disk.scale_px + 4.0 * sigma;
        match disks.iter().position(is_on) {
            Some(k) => galaxies[k].1 += 1,
            None => n_elsewhere += 1,
        }
    }
    let n_found = places.iter().filter(|truth| targets.iter().any(|d| belongs(&d.segment, truth))).count();
    Ok(Outcome { galaxies, n_elsewhere, n_found, is_sidereal: report.tracking == skystreak::TrackingMode::Sidereal })
}

pub(crate) fn run(options: &Options) -> AnyResult<()> {
    let common = &options.common;
    // The stars tell the PSF's width.
    let detector = Detector::new(DetectorConfig { psf_sigma_px: None, ..common.config(0.01) })?;
    let mut on = Table::new(["stars a million pixels", "S/N", "galaxies", "with lines on them", "lines"]);
    let mut beside = Table::new(["stars a million pixels", "frames", "streaks found", "false elsewhere", "sidereal"]);
    for &stars in &options.stars {
        let outcomes = common.over_frames(|frame| search(&detector, options, stars, frame))?;
        for bin in BINS {
            let (from, to) = bin;
            let some: Vec<usize> = outcomes
                .iter()
                .flat_map(|o| o.galaxies.iter())
                .filter(|(snr, _)| (from..to).contains(snr))
                .map(|(_, lines)| *lines)
                .collect();
            on.row([
                stars.to_string(),
                format!("{from} – {to}"),
                some.len().to_string(),
                some.iter().filter(|lines| **lines > 0).count().to_string(),
                some.iter().sum::<usize>().to_string(),
            ]);
        }
        let sum = |of: fn(&Outcome) -> usize| outcomes.iter().map(of).sum::<usize>();
        beside.row([
            stars.to_string(),
            outcomes.len().to_string(),
            format!("{} of {}", sum(|o| o.n_found), outcomes.len() * options.per_frame),
            sum(|o| o.n_elsewhere).to_string(),
            sum(|o| usize::from(o.is_sidereal)).to_string(),
        ]);
    }
    common.describe();
    println!(
        "{} galaxies in a frame: disks of scale {} to {} px, axis ratio {} to {}. A line is on one where its middle is within \
         4 scale lengths and 4 PSF widths. Found: {RULE}.\n\n{on}\n{beside}",
        options.galaxies, SCALES_PX.0, SCALES_PX.1, AXIS_RATIOS.0, AXIS_RATIOS.1
    );
    Ok(())
}
