//! Reported S/N over the true one.

use clap::Args;
use skystreak::Segment;

use crate::AnyResult;
use crate::matching;
use crate::options::Common;
use crate::scenes::{Placement, frame_seed, make, place_generator};
use crate::statistics::{mean, quantile};
use crate::table::{Table, percent, with_error};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Length of the streaks, px.
    #[arg(long, default_value_t = 30.0)]
    length: f64,
    /// S/N of the streaks.
    #[arg(long, value_delimiter = ',', default_values_t = [6.0, 7.0, 8.0, 10.0, 15.0, 20.0, 40.0, 100.0])]
    snr: Vec<f64>,
    /// Streaks in a frame.
    #[arg(long, default_value_t = 1)]
    per_frame: usize,
    /// False alarms per frame: many, so that few faint streaks are missed.
    #[arg(long, default_value_t = 1.0)]
    false_alarms: f64,
}

pub(crate) fn run(options: &Options) -> AnyResult<()> {
    let common = &options.common;
    let conditions = common.conditions()?;
    let detector = common.detector(options.false_alarms)?;
    let placement = Placement::new(options.length, Some(options.per_frame), common.size);
    let mut table =
        Table::new(["true S/N", "streaks", "found", "mean reported / true", "mean difference", "median difference"]);
    for &snr in &options.snr {
        let differences = common.over_frames(|frame| {
            let frame_seed = frame_seed(common.seed, frame);
            let places = placement.draw(common.size, &mut place_generator(frame_seed))?;
            let wanted: Vec<(Segment, f64)> = places.into_iter().map(|p| (p, snr)).collect();
            let made = make(&conditions, &wanted, frame_seed)?;
            let truths: Vec<Segment> = made.truths.iter().map(|t| t.segment).collect();
            let found = detector.detect(&made.frame)?.detections;
            let matches = matching::assign(&truths, &found, common.sigma);
            Ok(matches.of_truth.iter().flatten().map(|&j| found[j].snr - snr).collect::<Vec<f64>>())
        })?;
        let n = common.frames * placement.n;
        let differences: Vec<f64> = differences.into_iter().flatten().collect();
        let (average, error) = with_scatter(&differences);
        table.row([
            snr.to_string(),
            n.to_string(),
            percent(differences.len() as f64 / n as f64),
            format!("{:.3} ± {:.3}", 1.0 + average / snr, error / snr),
            with_error((average, error)),
            format!("{:.2}", quantile(&differences, 0.5)),
        ]);
    }
    common.describe();
    println!(
        "Streaks of {} px, {} in a frame; what is missed has no reported S/N, which lifts the faintest rows.\n",
        options.length, options.per_frame
    );
    println!("{table}");
    Ok(())
}

/// Mean and its standard error.
fn with_scatter(values: &[f64]) -> (f64, f64) {
    let average = mean(values);
    let squares: Vec<f64> = values.iter().map(|v| (v - average).powi(2)).collect();
    (average, (mean(&squares) / (values.len() as f64 - 1.0).max(1.0)).sqrt())
}
