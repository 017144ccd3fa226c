//! Two streaks close together: are both found, and nothing else?

use clap::Args;
use rand::RngExt;
use skystreak::{Detector, Point, Segment};

use crate::AnyResult;
use crate::matching;
use crate::options::Common;
use crate::scenes::{Conditions, frame_seed, make, place_generator};
use crate::statistics::share_interval;
use crate::table::{Table, percent};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Length of both streaks, px.
    #[arg(long, default_value_t = 100.0)]
    length: f64,
    /// S/N of the first and the second; several pairs as 200,200,20,20,200,10.
    #[arg(long, value_delimiter = ',', default_values_t = [200.0, 200.0, 20.0, 20.0, 8.0, 8.0, 200.0, 10.0])]
    snr: Vec<f64>,
    /// Angles at which they cross in the middle, degrees.
    #[arg(long, value_delimiter = ',', default_values_t = [30.0, 90.0])]
    crossing_deg: Vec<f64>,
    /// Distances at which they run side by side, px.
    #[arg(long, value_delimiter = ',', default_values_t = [7.0])]
    parallel_px: Vec<f64>,
    /// False alarms per frame.
    #[arg(long, default_value_t = 0.01)]
    false_alarms: f64,
}

/// How two streaks lie.
#[derive(Debug, Clone, Copy)]
enum Layout {
    Crossing { degrees: f64 },
    Parallel { distance_px: f64 },
}

impl Layout {
    fn name(self) -> String {
        match self {
            Self::Crossing { degrees } => format!("crossing at {degrees}°"),
            Self::Parallel { distance_px } => format!("parallel, {distance_px} px apart"),
        }
    }

    fn pair(self, middle: Point, length_px: f64, angle_rad: f64) -> [Segment; 2] {
        let first = Segment::around(middle, length_px, angle_rad);
        let (s, c) = angle_rad.sin_cos();
        let second = match self {
            Self::Crossing { degrees } => Segment::around(middle, length_px, angle_rad + degrees.to_radians()),
            Self::Parallel { distance_px: d } => {
                Segment::around(Point::new(middle.x - d * s, middle.y + d * c), length_px, angle_rad)
            }
        };
        [first, second]
    }
}

/// What became of one pair.
struct Outcome {
    n_detections: usize,
    /// Streaks with a detection whose ends are right.
    n_right: usize,
    /// Streaks with a detection within 3 of its own standard errors.
    n_within: usize,
}

fn search_pair(
    detector: &Detector,
    conditions: &Conditions,
    layout: Layout,
    length_px: f64,
    snrs: [f64; 2],
    frame_seed: u64,
) -> AnyResult<Outcome> {
    let mut rng = place_generator(frame_seed);
    let side = conditions.size as f64;
    let room = 0.5 * length_px + 20.0;
    if side < 2.0 * room + 2.0 {
        return Err(format!("frames of {side} px have no room for pairs of {length_px} px").into());
    }
    let middle = Point::new(rng.random_range(room..side - room), rng.random_range(room..side - room));
    let pair = layout.pair(middle, length_px, rng.random_range(0.0..std::f64::consts::PI));
    let made = make(conditions, &[(pair[0], snrs[0]), (pair[1], snrs[1])], frame_seed)?;
    let found = detector.detect(&made.frame)?.detections;
    let segments: Vec<Segment> = made.truths.iter().map(|t| t.segment).collect();
    let matches = matching::assign(&segments, &found, conditions.psf_sigma_px);
    let tolerance_px = (0.2 * length_px).max(3.0);
    let is_right = |(truth, j): (&Segment, &Option<usize>)| {
        j.is_some_and(|j| matching::worst_end_px(&found[j].segment, truth) <= tolerance_px)
    };
    let n_right = segments.iter().zip(&matches.of_truth).filter(|pair| is_right(*pair)).count();
    let is_within = |(truth, j): (&Segment, &Option<usize>)| {
        j.is_some_and(|j| matching::is_within_errors(&found[j], truth, matching::THREE_SIGMA))
    };
    let n_within = segments.iter().zip(&matches.of_truth).filter(|pair| is_within(*pair)).count();
    Ok(Outcome { n_detections: found.len(), n_right, n_within })
}

pub(crate) fn run(options: &Options) -> AnyResult<()> {
    let common = &options.common;
    if options.snr.len() % 2 == 1 {
        return Err("--snr takes pairs of numbers".into());
    }
    let conditions = common.conditions()?;
    let detector = common.detector(options.false_alarms)?;
    let crossing = options.crossing_deg.iter().map(|&degrees| Layout::Crossing { degrees });
    let parallel = options.parallel_px.iter().map(|&distance_px| Layout::Parallel { distance_px });
    let layouts: Vec<Layout> = crossing.chain(parallel).collect();
    let mut table = Table::new([
        "layout",
        "length",
        "S/N",
        "pairs",
        "exactly two",
        "both right",
        "± 1 sigma",
        "both within 3 sigma",
        "one",
        "three or more",
    ]);
    for layout in layouts {
        for snrs in options.snr.chunks_exact(2) {
            let outcomes = common.over_frames(|frame| {
                let seed = frame_seed(common.seed, frame);
                search_pair(&detector, &conditions, layout, options.length, [snrs[0], snrs[1]], seed)
            })?;
            let share = |n: usize| n as f64 / outcomes.len() as f64;
            let count = |what: fn(&Outcome) -> bool| outcomes.iter().filter(|o| what(o)).count();
            let exact = count(|o| o.n_detections == 2 && o.n_right == 2);
            let (low, high) = share_interval(exact, outcomes.len());
            table.row([
                layout.name(),
                options.length.to_string(),
                format!("{} + {}", snrs[0], snrs[1]),
                outcomes.len().to_string(),
                percent(share(count(|o| o.n_detections == 2))),
                percent(share(exact)),
                format!("{:.1} – {:.1} %", 100.0 * low, 100.0 * high),
                percent(share(count(|o| o.n_detections == 2 && o.n_within == 2))),
                percent(share(count(|o| o.n_detections == 1))),
                percent(share(count(|o| o.n_detections > 2))),
            ]);
        }
    }
    common.describe();
    println!("Right: both ends within 0.2 lengths, or 3 px, of the true ones. Within 3 sigma: the four coordinates of");
    println!(
        "the ends, by the covariance stated for them, with the chance of 3 sigma. One pair in a frame.\n\n{table}"
    );
    Ok(())
}
