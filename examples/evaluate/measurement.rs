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
    /// Stars of S/N 3 and more on a million pixels, with --gain.
    #[arg(long, default_value_t = 0.0)]
    stars: f64,
    /// Write plots of errors, bias, pulls and coverage, as SVG: the name given gets an ending for each.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// What is compared; the names of [`Measured::values`].
const QUANTITIES: [&str; 8] = [
    "midpoint across",
    "midpoint along",
    "angle",
    "length",
    "end along",
    "flux",
    "flux, width and background known",
    "width",
];

/// One value of one streak.
#[derive(Debug, Clone, Copy)]
struct Value {
    /// Measured minus true: px, rad, or relative for the flux.
    error: f64,
    /// The error the detector states, same unit.
    stated: f64,
    /// Half of the 68 % interval that it states; the same where errors are taken for normal ones.
    half_68: f64,
    /// Cramér-Rao bound; not a number where none is given.
    bound: f64,
    /// Least error of a change point, where it applies.
    floor: f64,
}

impl Value {
    fn is_within_68(&self) -> bool {
        self.error.abs() <= self.half_68
    }
}

/// What was measured of one streak; each quantity with one value, the ends with two.
struct Measured {
    values: [Vec<Value>; QUANTITIES.len()],
    converged: bool,
    iterations: u32,
    chi2_reduced: f64,
    /// Both ends together lie within three sigma, by the covariance that the detector states.
    within_3_sigma: bool,
    /// The detector says that it did not see one of the ends: it has no place along the track, and no length.
    hidden_end: bool,
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

fn compare(found: &Detection, truth: &Truth) -> AnyResult<Measured> {
    let [known, bounds]: [Bounds; 2] = truth.bounds()?;
    let line = truth.segment;
    let length = line.length_px();
    let (mut first, mut last) = (line.along_across(found.segment.start), line.along_across(found.segment.end));
    let along = &found.along_68_px;
    let (first_err, last_err) = found.ends_along_err_px();
    let (mut first_stated, mut last_stated) = ((first_err, along.start_px), (last_err, along.end_px));
    if first.0 > last.0 {
        (first, last, first_stated, last_stated) = (last, first, last_stated, first_stated);
    }
    let (along_err, across_err) = found.midpoint_along_across_err_px();
    let end_floor = 26_f64.sqrt() * length / (truth.snr * truth.snr);
    let angle = ((last.1 - first.1) / (last.0 - first.0)).atan();
    let unseen = Flags::END1_MASKED | Flags::END2_MASKED | Flags::END1_OFF_FRAME | Flags::END2_OFF_FRAME;
    let hidden_end = found.flags.intersects(unseen);
    let value = |error, stated, bound| Value { error, stated, half_68: stated, bound, floor: 0.0 };
    let along_value = |error, (stated, half_68), bound, floor| Value { error, stated, half_68, bound, floor };
    let if_seen = |values: Vec<Value>| if hidden_end { Vec::new() } else { values };
    let end = |error, stated| along_value(error, stated, bounds.end_along_px, end_floor);
    let flux = |bound| value(found.flux / truth.flux - 1.0, found.flux_err / truth.flux, bound);
    let width = value(found.sigma_px - truth.sigma_px, found.sigma_err_px, truth.own_width_bound_px()?);
    Ok(Measured {
        values: [
            vec![value(0.5 * (first.1 + last.1), across_err, bounds.mid_across_px)],
            if_seen(vec![along_value(
                0.5 * (first.0 + last.0 - length),
                (along_err, along.midpoint_px),
                bounds.mid_along_px,
                end_floor / std::f64::consts::SQRT_2,
            )]),
            vec![value(angle, found.angle_err_rad(), bounds.angle_rad)],
            if_seen(vec![along_value(
                last.0 - first.0 - length,
                (found.length_err_px(), along.length_px),
                bounds.length_px,
                end_floor * std::f64::consts::SQRT_2,
            )]),
            // Outwards counts as positive for both ends.
            if_seen(vec![end(-first.0, first_stated), end(last.0 - length, last_stated)]),
            vec![flux(bounds.flux_rel)],
            vec![flux(known.flux_rel)],
            vec![width],
        ],
        converged: !found.flags.contains(Flags::NOT_CONVERGED),
        iterations: found.fit_iterations,
        chi2_reduced: found.chi2_reduced,
        hidden_end,
        within_3_sigma: matching::is_within_errors(found, &line, matching::THREE_SIGMA),
    })
}

fn sample(
    common: &Common,
    detector: &Detector,
    conditions: &Conditions,
    placement: &Placement,
    snr: f64,
) -> AnyResult<Sample> {
    // Noise and places of their own for each S/N: what chance does to one says nothing of the next.
    let seed = common.seed ^ snr.to_bits();
    let frames = common.over_frames(|frame| {
        let frame_seed = frame_seed(seed, frame);
        let places = placement.draw(common.size, &mut place_generator(frame_seed))?;
        let wanted: Vec<(Segment, f64)> = places.into_iter().map(|p| (p, snr)).collect();
        let made = make(conditions, &wanted, frame_seed)?;
        let truths: Vec<Segment> = made.truths.iter().map(|t| t.segment).collect();
        let found = detector.detect(&made.frame)?.detections;
        let matches = matching::assign(&truths, &found, common.sigma);
        let mut measured = Vec::new();
        for (truth, j) in made.truths.iter().zip(&matches.of_truth) {
            if let Some(j) = j {
                measured.push(compare(&found[*j], truth)?);
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
    let conditions = Conditions { stars_per_mpix: options.stars, ..common.conditions()? };
    if options.stars > 0.0 && conditions.photons.is_none() {
        return Err("--stars goes with --gain".into());
    }
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
    println!(
        "The bounds are those of a fit that finds the PSF width (known to 15 %, but for its own row) and the background"
    );
    println!("as well; for the flux also those where both are known.\n");
    if options.stars > 0.0 {
        println!("{} stars of S/N 3 and more on a million pixels.\n", options.stars);
    }
    let mut overview = Table::new([
        "S/N",
        "streaks",
        "found",
        "detections per found streak",
        "not converged",
        "mean iterations",
        "mean reduced χ²",
        "an end not seen",
        "both ends within 3 sigma",
    ]);
    let mut table = Table::new([
        "S/N",
        "quantity",
        "bound",
        "bias / bound",
        "rms / bound",
        "rms / √(bound² + floor²)",
        "rms pull",
        "in the 68 % interval",
        "within 3 stated errors",
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
            format!("{:.1}", mean(&sample.measured.iter().map(|m| f64::from(m.iterations)).collect::<Vec<f64>>())),
            format!("{:.3}", mean(&chi2)),
            sample.measured.iter().filter(|m| m.hidden_end).count().to_string(),
            percent(sample.measured.iter().filter(|m| m.within_3_sigma).count() as f64 / n as f64),
        ]);
        for (k, name) in QUANTITIES.iter().enumerate() {
            let values = sample.values(k);
            let each = |of: fn(&Value) -> f64| values.iter().map(of).collect::<Vec<f64>>();
            let sampling = (0.5 / values.len() as f64).sqrt();
            let ratio = rms(&each(|v| v.error / v.bound));
            let to_floor = rms(&each(|v| v.error / v.bound.hypot(v.floor)));
            let share = |is_within: fn(&Value) -> bool| {
                mean(&values.iter().map(|v| f64::from(u8::from(is_within(v)))).collect::<Vec<f64>>())
            };
            table.row([
                sample.snr.to_string(),
                (*name).to_owned(),
                format!("{:.4}", rms(&each(|v| v.bound))),
                format!("{:+.2} ± {:.2}", mean(&each(|v| v.error / v.bound)), ratio / (values.len() as f64).sqrt()),
                format!("{ratio:.2} ± {:.2}", ratio * sampling),
                format!("{to_floor:.2}"),
                format!("{:.2}", rms(&each(|v| v.error / v.stated))),
                percent(share(Value::is_within_68)),
                percent(share(|v| v.error.abs() <= 3.0 * v.stated)),
            ]);
        }
    }
    println!("{overview}\n{table}");
    println!(
        "Bounds are px, rad for the angle, relative for the flux. Of normal errors {} lie within one, and 99.7 % within 3 \
         (both ends together within the χ² of 4 that chance exceeds as seldom).",
        percent(one_sigma())
    );
    options.plot.as_ref().map_or(Ok(()), |path| save_plots(path, options, &samples))
}

/// One plot of each kind, each in a file of its own.
fn save_plots(path: &Path, options: &Options, samples: &[Sample]) -> AnyResult<()> {
    let of = |name: &str, k: usize, statistic: fn(&[Value]) -> (f64, f64)| {
        let points = samples.iter().map(|s| {
            let (value, err) = statistic(&s.values(k));
            (s.snr.log10(), value, err)
        });
        Series::points(name, points.collect())
    };
    let save = |kind: &str, y_label: &str, statistic: fn(&[Value]) -> (f64, f64)| {
        let series: Vec<Series> = QUANTITIES.iter().enumerate().map(|(k, name)| of(name, k, statistic)).collect();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let title = format!("{y_label}, {} px", options.length);
        plot::save_svg(
            &path.with_file_name(format!("{stem}-{kind}.svg")),
            &title,
            "log10 of the true S/N",
            y_label,
            &series,
        )
    };
    save("errors", "rms error over the best possible", |values| {
        let ratio = rms(&values.iter().map(|v| v.error / v.bound.hypot(v.floor)).collect::<Vec<f64>>());
        (ratio, ratio * (0.5 / values.len() as f64).sqrt())
    })?;
    save("bias", "mean error over the bound", |values| {
        let errors: Vec<f64> = values.iter().map(|v| v.error / v.bound).collect();
        (mean(&errors), rms(&errors) / (errors.len() as f64).sqrt())
    })?;
    save("pulls", "rms error over the stated one", |values| {
        let pull = rms(&values.iter().map(|v| v.error / v.stated).collect::<Vec<f64>>());
        (pull, pull * (0.5 / values.len() as f64).sqrt())
    })?;
    save("coverage", "share in the 68 % interval", |values| {
        let share = mean(&values.iter().map(|v| f64::from(u8::from(v.is_within_68()))).collect::<Vec<f64>>());
        (share, (share * (1.0 - share) / values.len() as f64).sqrt())
    })
}
