//! Skies that are no smooth map: areas without data, steps around amplifiers, edges of light. What is found in them that is
//! not there, and which streaks are lost.

use clap::Args;
use skystreak::simulate::{Brightness, SceneConfig, StreakSpec, gaussian_frame, simulate};
use skystreak::{Detector, DetectorConfig, Frame, Role};

use crate::AnyResult;
use crate::matching::{self, RULE};
use crate::options::Common;
use crate::scenes::{Placement, frame_seed, place_generator};
use crate::table::{Table, percent};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Stars of S/N 3 and more on a million pixels, one number for each frame in turn.
    #[arg(long, value_delimiter = ',', default_values_t = [0.0, 500.0])]
    stars: Vec<f64>,
    /// Lengths of the streaks, px, one for each frame in turn.
    #[arg(long, value_delimiter = ',', default_values_t = [40.0, 150.0])]
    length: Vec<f64>,
    /// S/N of the streaks.
    #[arg(long, default_value_t = 20.0)]
    snr: f64,
    /// Streaks in a frame.
    #[arg(long, default_value_t = 2)]
    per_frame: usize,
}

/// What is done to a frame. Heights are in units of the noise.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Smooth,
    /// Zeros in a rectangle; in the left third; in two corners cut off at 45 degrees; all around a circle.
    EmptyRectangle,
    EmptySide,
    EmptyCorners,
    EmptyAround,
    /// Between two columns; around a quarter of the frame.
    Step(f32),
    Quarter(f32),
    /// Straight at an angle to rows and columns, over so many pixels; round.
    Edge(f32, f32),
    Arc(f32),
    /// A round field in the dark, which has a third of the noise.
    Dark(f32),
}

const KINDS: [(&str, Kind); 17] = [
    ("smooth", Kind::Smooth),
    ("zeros in a rectangle", Kind::EmptyRectangle),
    ("zeros on one side", Kind::EmptySide),
    ("zeros in two corners", Kind::EmptyCorners),
    ("zeros around a circle", Kind::EmptyAround),
    ("a step of 3 between two columns", Kind::Step(3.0)),
    ("a step of 10", Kind::Step(10.0)),
    ("a quarter off by 3", Kind::Quarter(3.0)),
    ("a quarter off by 10", Kind::Quarter(10.0)),
    ("an edge of 1", Kind::Edge(1.0, 1.0)),
    ("an edge of 3", Kind::Edge(3.0, 1.0)),
    ("an edge of 10", Kind::Edge(10.0, 1.0)),
    ("an edge of 10 over 16 px", Kind::Edge(10.0, 16.0)),
    ("an edge of 30 over 40 px", Kind::Edge(30.0, 40.0)),
    ("an arc of 5", Kind::Arc(5.0)),
    ("a round field, 10 above the dark", Kind::Dark(10.0)),
    ("a round field, 40 above the dark", Kind::Dark(40.0)),
];

impl Kind {
    /// What becomes of a pixel of the sky; `dark` is what one without any has. Places are in units of the side.
    fn change(self, (x, y): (f32, f32), side: f32, value: f32, noise: f32, dark: f32) -> f32 {
        let edge = |height: f32, past: f32, over: f32| {
            value + 0.5 * height * noise * (1.0 + (2.0 * past * side / over).tanh())
        };
        let from_middle = (x - 0.5).hypot(y - 0.5);
        let zero_where = |is_empty: bool| if is_empty { 0.0 } else { value };
        let step_where = |is_high: bool, height: f32| if is_high { value + height * noise } else { value };
        match self {
            Self::Smooth => value,
            Self::EmptyRectangle => zero_where((0.35..0.6).contains(&x) && (0.3..0.55).contains(&y)),
            Self::EmptySide => zero_where(x < 0.33),
            Self::EmptyCorners => zero_where(x + y < 0.4 || x - y > 0.7),
            Self::EmptyAround => zero_where(from_middle > 0.45),
            Self::Step(height) => step_where(x >= 0.5, height),
            Self::Quarter(height) => step_where(x >= 0.5 && y >= 0.5, height),
            Self::Edge(height, over) => edge(height, (x + 0.3 * y - 0.65) / 1.044, over),
            Self::Arc(height) => edge(height, (x - 0.1).hypot(y - 0.1) - 0.6, 1.0),
            Self::Dark(height) if from_middle > 0.45 => dark - height * noise,
            Self::Dark(_) => value,
        }
    }
}

/// One frame: how many of its streaks were found, and how many detections are none of them.
struct Outcome {
    n_found: usize,
    n_false: usize,
}

fn search(detector: &Detector, options: &Options, kind: Kind, frame: usize) -> AnyResult<Outcome> {
    let Common { size, sigma, seed, .. } = options.common;
    let seed = frame_seed(seed, frame);
    let of_frame = |values: &[f64]| values[frame % values.len()];
    let placement = Placement::new(of_frame(&options.length), Some(options.per_frame), size);
    let places = placement.draw(size, &mut place_generator(seed))?;
    let brightness = Brightness::Snr(options.snr);
    let config = SceneConfig {
        width: size,
        height: size,
        seed,
        psf_sigma_px: sigma,
        stars_per_mpix: of_frame(&options.stars),
        streaks: places.iter().map(|segment| StreakSpec { segment: *segment, brightness }).collect(),
        ..SceneConfig::default()
    };
    let scene = simulate(&config)?.frame;
    let noise = (config.noise_e() / config.gain_e_per_adu) as f32;
    let sky = (config.bias_adu + config.sky_e / config.gain_e_per_adu) as f32;
    let (side, saturation) = (size as f32, config.saturation_adu() as f32);
    let dark = gaussian_frame(size, size, seed + 1, noise / 3.0);
    let changed = |i: usize| {
        let place = ((i % size) as f32 / side, (i / size) as f32 / side);
        kind.change(place, side, scene.pixels().value(i), noise, sky + dark[i])
    };
    // Saturated pixels stay so.
    let pixels: Vec<u16> = (0..size * size).map(|i| changed(i).round().clamp(0.0, saturation) as u16).collect();
    let frame =
        Frame::new(pixels, size, size)?.with_gain(config.gain_e_per_adu)?.with_saturation(config.saturation_adu());
    let report = detector.detect(&frame)?;
    let targets: Vec<_> = report.detections.iter().filter(|d| d.role == Role::Target).collect();
    let belongs = |found, truth| matching::belongs(found, truth, sigma);
    Ok(Outcome {
        n_found: places.iter().filter(|truth| targets.iter().any(|d| belongs(&d.segment, truth))).count(),
        n_false: targets.iter().filter(|d| !places.iter().any(|truth| belongs(&d.segment, truth))).count(),
    })
}

pub(crate) fn run(options: &Options) -> AnyResult<()> {
    let common = &options.common;
    // What an edge does to the PSF that is measured counts as well.
    let detector = Detector::new(DetectorConfig { psf_sigma_px: None, ..common.config(0.01) })?;
    let mut table = Table::new(["sky", "frames", "found", "false", "frames with false ones"]);
    for (name, kind) in KINDS {
        let outcomes = common.over_frames(|frame| search(&detector, options, kind, frame))?;
        let n_found: usize = outcomes.iter().map(|o| o.n_found).sum();
        table.row([
            name.to_owned(),
            outcomes.len().to_string(),
            percent(n_found as f64 / (outcomes.len() * options.per_frame) as f64),
            outcomes.iter().map(|o| o.n_false).sum::<usize>().to_string(),
            outcomes.iter().filter(|o| o.n_false > 0).count().to_string(),
        ]);
    }
    common.describe();
    println!(
        "Heights in units of the noise. Streaks behind zeros or in the dark count as not found. Found: {RULE}.\n\n{table}"
    );
    Ok(())
}
