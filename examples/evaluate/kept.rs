//! Share of the S/N of bright streaks that the search keeps.

use clap::Args;
use skystreak::{Detector, DetectorConfig, Segment};

use crate::AnyResult;
use crate::matching;
use crate::options::{Common, NO_SOURCE_SNR};
use crate::scenes::{Conditions, Placement, frame_seed, make, place_generator};
use crate::statistics::{mean, quantile};
use crate::table::Table;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Lengths of the streaks, px.
    #[arg(long, value_delimiter = ',', default_values_t = [12.0, 30.0, 100.0, 300.0])]
    length: Vec<f64>,
    /// S/N of the streaks: so high that noise and the bias of a maximum do not count.
    #[arg(long, default_value_t = 300.0)]
    snr: f64,
}

pub(crate) fn run(options: &Options) -> AnyResult<()> {
    let common = &options.common;
    let conditions = Conditions { gradient: 0.0, ..common.conditions()? };
    let mut config: DetectorConfig = common.config(0.01);
    // One tile for a flat sky: so bright a streak would lift what is measured beside it, a faint one does not.
    config.background.mesh_px = common.size.min(512);
    // As if the streaks were faint: no pixel is clipped, and none taken for a star.
    config.search.clip_sigmas = 1e6;
    config.weigh.source_snr = NO_SOURCE_SNR;
    let detector = Detector::new(config)?;
    let mut table = Table::new(["sigma", "length", "step", "streaks", "mean", "5th percentile", "worst", "missed"]);
    for &length_px in &options.length {
        let placement = Placement::new(length_px, Some(1), common.size);
        let shares = common.over_frames(|frame| {
            let frame_seed = frame_seed(common.seed, frame);
            let place = placement.draw(common.size, &mut place_generator(frame_seed))?[0];
            let made = make(&conditions, &[(place, options.snr)], frame_seed)?;
            let share = |of: Option<f64>| of.map(|snr| snr / options.snr);
            let beside = |s: &Segment| matching::belongs(s, &place, common.sigma);
            let coarse = detector.candidates(&made.frame)?.into_iter().find(|c| beside(&c.segment));
            let fine = detector.detect(&made.frame)?.detections.into_iter().find(|d| beside(&d.segment));
            Ok((share(coarse.map(|c| c.snr)), share(fine.map(|d| d.snr))))
        })?;
        let coarse: Vec<f64> = shares.iter().filter_map(|s| s.0).collect();
        let fine: Vec<f64> = shares.iter().filter_map(|s| s.1).collect();
        let ratio: Vec<f64> = shares.iter().filter_map(|s| Some(s.0? / s.1?)).collect();
        for (name, sample) in [("coarse", coarse), ("whole search", fine), ("coarse / whole", ratio)] {
            let format = |v: f64| format!("{v:.3}");
            table.row([
                common.sigma.to_string(),
                length_px.to_string(),
                name.to_owned(),
                sample.len().to_string(),
                format(mean(&sample)),
                format(quantile(&sample, 0.05)),
                format(quantile(&sample, 0.0)),
                (shares.len() - sample.len()).to_string(),
            ]);
        }
    }
    common.describe();
    println!("One streak of S/N {} in a frame, the sky flat; nothing clipped, nothing weighed out.\n", options.snr);
    println!("{table}");
    Ok(())
}
