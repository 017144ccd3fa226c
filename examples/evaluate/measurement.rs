//! Errors of what is measured, against the best that can be had.

use std::path::{Path, PathBuf};

use clap::Args;
use skystreak::simulate::Bounds;
use skystreak::{Detection, Detector, Flags, Segment};

use crate::AnyResult;
use crate::matching;
use crate::options::Common;
use crate::plot::{self, Series};
use crate::scenes::{Conditions, Placement, Truth, frame_seed, make, place_generator};
use crate::statistics::{mean, one_sigma, rms};
use crate::table::{Table, percent};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Length of the streaks, px.
    #[arg(long, default_value_t = 30.0)]
    length: f64,
    /// S/N of the streaks.
    #[arg(long, value_delimiter = ',', default_values_t = [8.0, 10.0, 15.0, 20.0, 40.0, 100.0])]
    snr: Vec<f64>,
    /// False alarms per frame.
    #[arg(long, default_value_t = 0.01)]
    false_alarms: f64,
    /// Streaks in a frame. Default: as many as fit well apart.
    #[arg(long)]
    per_frame: Option<usize>,
    /// Write a plot of the errors over their bounds, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// What is compared; the names of [`Measured::values`].
const QUANTITIES: [&str; 6] = ["midpoint across", "midpoint along", "angle", "length", "end along", "flux"];

/// One value of one streak.
#[derive(Debug, Clone, Copy)]
struct Value {
    /// Measured minus true: px, rad, or relative for the flux.
    error: f64,
    /// The error the detector states, same unit.
    stated: f64,
    /// Cramér-Rao bound.
    bound: f64,
    /// Least error of a change point, where it applies.
    floor: f64,
}

/// What was measured of one streak; each quantity with one value, the ends with two.
struct Measured {
    values: [Vec<Value>; QUANTITIES.len()],
    converged: bool,
    chi2_reduced: f64,
}

/// All streaks of one S/N.
struct Sample {
    snr: f64,
    n_streaks: usize,
    n_detections: usize,
    measured: Vec<Measured>,
}

impl Sample {
    fn values(&self, quantity: usize) -> Vec<Value> {
        self.measured.iter().flat_map(|m| m.values[quantity].iter().copied()).collect()
    }
}

fn compare(found: &Detection, truth: &Truth, bounds: &Bounds) -> Measured {
    let line = truth.segment;
    let length = line.length_px();
    let (mut first, mut last) = (line.along_across(found.segment.start), line.along_across(found.segment.end));
    let (mut first_err, mut last_err) = found.ends_along_err_px();
    if first.0 > last.0 {
        (first, last, first_err, last_err) = (last, first, last_err, first_err);
    }
    let (along_err, across_err) = found.midpoint_along_across_err_px();
    let end_floor = 26_f64.sqrt() * length / (truth.snr * truth.snr);
    let angle = ((last.1 - first.1) / (last.0 - first.0)).atan();
    let value = |error, stated, bound, floor| Value { error, stated, bound, floor };
    let end = |error, stated| value(error, stated, bounds.end_along_px, end_floor);
    Measured {
        values: [
            vec![value(0.5 * (first.1 + last.1), across_err, bounds.mid_across_px, 0.0)],
            vec![value(
                0.5 * (first.0 + last.0 - length),
                along_err,
                bounds.mid_along_px,
                end_floor / std::f64::consts::SQRT_2,
            )],
            vec![value(angle, found.angle_err_rad(), bounds.angle_rad, 0.0)],
            vec![value(
                last.0 - first.0 - length,
                found.length_err_px(),
                bounds.length_px,
                end_floor * std::f64::consts::SQRT_2,
            )],
            // Outwards counts as positive for both ends.
            vec![end(-first.0, first_err), end(last.0 - length, last_err)],
            vec![value(found.flux / truth.flux - 1.0, found.flux_err / truth.flux, bounds.flux_rel, 0.0)],
        ],
        converged: !found.flags.contains(Flags::NOT_CONVERGED),
        chi2_reduced: found.chi2_reduced,
    }
}

fn sample(
    common: &Common,
    detector: &Detector,
    conditions: &Conditions,
    placement: &Placement,
    snr: f64,
) -> AnyResult<Sample> {
    let frames = common.over_frames(|frame| {
        let frame_seed = frame_seed(common.seed, frame);
        let places = placement.draw(common.size, &mut place_generator(frame_seed))?;
        let wanted: Vec<(Segment, f64)> = places.into_iter().map(|p| (p, snr)).collect();
        let made = make(conditions, &wanted, frame_seed)?;
        let truths: Vec<Segment> = made.truths.iter().map(|t| t.segment).collect();
        let found = detector.detect(&made.frame)?.detections;
        let matches = matching::assign(&truths, &found, common.sigma);
        let mut measured = Vec::new();
        for (truth, j) in made.truths.iter().zip(&matches.of_truth) {
            if let Some(j) = j {
                measured.push(compare(&found[*j], truth, &truth.bounds(common.sigma)?));
            }
        }
        Ok((measured, matches.n_of_truth.iter().sum::<usize>()))
    })?;
    let n_detections = frames.iter().map(|f| f.1).sum();
    let measured = frames.into_iter().flat_map(|f| f.0).collect();
    Ok(Sample { snr, n_streaks: common.frames * placement.n, n_detections, measured })
}

pub(crate) fn run(options: &Options) -> AnyResult<()> {
    let common = &options.common;
    let conditions = common.conditions()?;
    let detector = common.detector(options.false_alarms)?;
    let placement = Placement::new(options.length, options.per_frame, common.size);
    let samples = options
        .snr
        .iter()
        .map(|&snr| sample(common, &detector, &conditions, &placement, snr))
        .collect::<AnyResult<Vec<Sample>>>()?;

    common.describe();
    println!(
        "Streaks of {} px, {} in a frame. The floor is √26 · length / SNR² for one end.",
        options.length, placement.n
    );
    println!("The bounds are those of a known PSF width and background; the fit finds both, which costs flux most.\n");
    let mut overview =
        Table::new(["S/N", "streaks", "found", "detections per found streak", "not converged", "mean reduced χ²"]);
    let mut table = Table::new([
        "S/N",
        "quantity",
        "bound",
        "bias / bound",
        "rms / bound",
        "rms / √(bound² + floor²)",
        "rms pull",
        "within stated error",
    ]);
    for sample in &samples {
        let n = sample.measured.len();
        let chi2: Vec<f64> = sample.measured.iter().map(|m| m.chi2_reduced).collect();
        let not_converged = sample.measured.iter().filter(|m| !m.converged).count();
        overview.row([
            sample.snr.to_string(),
            sample.n_streaks.to_string(),
            percent(n as f64 / sample.n_streaks as f64),
            format!("{:.3}", sample.n_detections as f64 / n as f64),
            percent(not_converged as f64 / n as f64),
            format!("{:.3}", mean(&chi2)),
        ]);
        for (k, name) in QUANTITIES.iter().enumerate() {
            let values = sample.values(k);
            let each = |of: fn(&Value) -> f64| values.iter().map(of).collect::<Vec<f64>>();
            let sampling = (0.5 / values.len() as f64).sqrt();
            let ratio = rms(&each(|v| v.error / v.bound));
            let to_floor = rms(&each(|v| v.error / v.bound.hypot(v.floor)));
            let within = mean(&each(|v| f64::from(u8::from(v.error.abs() <= v.stated))));
            table.row([
                sample.snr.to_string(),
                (*name).to_owned(),
                format!("{:.4}", rms(&each(|v| v.bound))),
                format!("{:+.2} ± {:.2}", mean(&each(|v| v.error / v.bound)), ratio / (values.len() as f64).sqrt()),
                format!("{ratio:.2} ± {:.2}", ratio * sampling),
                format!("{to_floor:.2}"),
                format!("{:.2}", rms(&each(|v| v.error / v.stated))),
                percent(within),
            ]);
        }
    }
    println!("{overview}\n{table}");
    println!(
        "Bounds are px, rad for the angle, relative for the flux. Of a normal error {} lie within.",
        percent(one_sigma())
    );
    options.plot.as_ref().map_or(Ok(()), |path| save_plot(path, options, &samples))
}

fn save_plot(path: &Path, options: &Options, samples: &[Sample]) -> AnyResult<()> {
    let of_quantity = |(k, name): (usize, &&str)| {
        let points = samples.iter().map(|s| {
            let ratios: Vec<f64> = s.values(k).iter().map(|v| v.error / v.bound.hypot(v.floor)).collect();
            let ratio = rms(&ratios);
            (s.snr.log10(), ratio, ratio * (0.5 / ratios.len() as f64).sqrt())
        });
        Series::points(name, points.collect())
    };
    let series: Vec<Series> = QUANTITIES.iter().enumerate().map(of_quantity).collect();
    let title = format!("Errors over √(bound² + floor²), {} px", options.length);
    plot::save_svg(path, &title, "log10 of the true S/N", "rms error / best possible", &series)
}
