//! Star fields: completeness against S/N, and false detections, for each density of stars.

use clap::Args;
use skystreak::{Detector, DetectorConfig};

use crate::AnyResult;
use crate::field::{Field, FieldOutcome, search_field};
use crate::matching::RULE;
use crate::options::Common;
use crate::scenes::Placement;
use crate::statistics::{Response, poisson_interval};
use crate::table::{Table, percent, with_error};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Stars of S/N 3 and more on a million pixels.
    #[arg(long, value_delimiter = ',', default_values_t = [0.0, 300.0, 1000.0, 3000.0])]
    stars: Vec<f64>,
    /// Lengths of the streaks, px, one for each frame in turn.
    #[arg(long, value_delimiter = ',', default_values_t = [30.0, 100.0, 300.0])]
    length: Vec<f64>,
    /// S/N of the streaks.
    #[arg(long, value_delimiter = ',', default_values_t = [5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 15.0])]
    snr: Vec<f64>,
    /// Streaks in a frame.
    #[arg(long, default_value_t = 2)]
    per_frame: usize,
    /// False alarms per frame.
    #[arg(long, default_value_t = 0.01)]
    false_alarms: f64,
}

pub(crate) fn run(options: &Options) -> AnyResult<()> {
    let common = &options.common;
    // The stars tell the PSF's width.
    let config = DetectorConfig { psf_sigma_px: None, ..common.config(options.false_alarms) };
    let detector = Detector::new(config)?;
    let heads = ["stars a million pixels", "streaks", "S/N at 50 %", "S/N at 90 %", "found at S/N 10 and more"];
    let mut found = Table::new(heads);
    let mut wrong = Table::new(["stars a million pixels", "frames", "false detections", "a frame, 95 %"]);
    for &stars_per_mpix in &options.stars {
        let field = Field { size: common.size, psf_sigma_px: common.sigma, stars_per_mpix };
        let outcomes: Vec<FieldOutcome> = common.over_frames(|frame| {
            let length_px = options.length[frame % options.length.len()];
            let placement = Placement::new(length_px, Some(options.per_frame), common.size);
            search_field(&detector, &field, &placement, &options.snr, common.seed, frame)
        })?;
        let streaks: Vec<(f64, bool)> = outcomes.iter().flat_map(|o| o.streaks.iter().copied()).collect();
        let fit = Response::fit(&streaks);
        let at = |share: f64| fit.map_or("–".to_owned(), |f| with_error(f.at_share(share)));
        let bright: Vec<bool> = streaks.iter().filter(|s| s.0 >= 10.0).map(|s| s.1).collect();
        found.row([
            stars_per_mpix.to_string(),
            streaks.len().to_string(),
            at(0.5),
            at(0.9),
            if bright.is_empty() {
                "–".to_owned()
            } else {
                percent(bright.iter().filter(|hit| **hit).count() as f64 / bright.len() as f64)
            },
        ]);
        let n: usize = outcomes.iter().map(|o| o.false_detections.len()).sum();
        let (low, high) = poisson_interval(n as u64, 0.95);
        let a_frame = |count: f64| count / outcomes.len() as f64;
        wrong.row([
            stars_per_mpix.to_string(),
            outcomes.len().to_string(),
            n.to_string(),
            format!("{:.3} – {:.3}", a_frame(low), a_frame(high)),
        ]);
    }
    common.describe();
    println!("Streaks of {:?} px, {} in a frame. Found: {RULE}.\n", options.length, options.per_frame);
    println!("{found}\n{wrong}");
    Ok(())
}
