//! Completeness: the share of streaks found as a function of S/N.

use std::path::PathBuf;

use clap::Args;
use skystreak::{Detection, Detector, Segment};

use crate::AnyResult;
use crate::matching::{self, RULE};
use crate::options::Common;
use crate::plot::{self, Series};
use crate::scenes::{Conditions, Placement, frame_seed, make, place_generator};
use crate::statistics::{Response, share_interval};
use crate::table::{Table, percent, with_error};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Length of the streaks, px.
    #[arg(long, default_value_t = 30.0)]
    length: f64,
    /// S/N of the streaks.
    #[arg(long, value_delimiter = ',', default_values_t = [3.0, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 7.5, 8.0, 9.0, 10.0])]
    snr: Vec<f64>,
    /// False alarms per frame.
    #[arg(long, default_value_t = 0.01)]
    false_alarms: f64,
    /// Streaks in a frame. Default: as many as fit well apart.
    #[arg(long)]
    per_frame: Option<usize>,
    /// Let the border of the frame cut streaks; their S/N is that of the part inside.
    #[arg(long)]
    cut: bool,
    /// Write a plot, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// What became of one streak.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trial {
    pub(crate) snr: f64,
    /// Found by the blind search.
    pub(crate) blind: bool,
    /// Found when the fits start at the truth.
    pub(crate) from_truth: bool,
    /// The blind search found it in several pieces.
    pub(crate) broken: bool,
}

/// What one frame gave.
pub(crate) struct Outcome {
    pub(crate) trials: Vec<Trial>,
    /// Detections of the blind search that belong to no streak.
    pub(crate) false_alarms: usize,
}

/// Makes one frame with streaks of S/N from a list, in turn, and looks for them blindly and at the true places.
pub(crate) fn search_frame(
    detector: &Detector,
    conditions: &Conditions,
    placement: &Placement,
    snrs: &[f64],
    seed: u64,
    frame: usize,
) -> AnyResult<Outcome> {
    let frame_seed = frame_seed(seed, frame);
    let places = placement.draw(conditions.size, &mut place_generator(frame_seed))?;
    let wanted: Vec<(Segment, f64)> =
        places.iter().enumerate().map(|(i, place)| (*place, snrs[(frame * placement.n + i) % snrs.len()])).collect();
    let made = make(conditions, &wanted, frame_seed)?;
    let truths: Vec<Segment> = made.truths.iter().map(|t| t.segment).collect();
    let matched = |found: &[Detection]| matching::assign(&truths, found, conditions.psf_sigma_px);
    let blind = matched(&detector.detect(&made.frame)?.detections);
    let from_truth = matched(&detector.detect_at(&made.frame, &truths)?.detections);
    let trials = made.truths.iter().enumerate().map(|(i, truth)| Trial {
        snr: truth.snr,
        blind: blind.of_truth[i].is_some(),
        from_truth: from_truth.of_truth[i].is_some(),
        broken: blind.n_of_truth[i] > 1,
    });
    Ok(Outcome { trials: trials.collect(), false_alarms: blind.false_alarms.len() })
}

pub(crate) fn run(options: &Options) -> AnyResult<()> {
    let common = &options.common;
    let conditions = common.conditions()?;
    let placement = Placement { cut: options.cut, ..Placement::new(options.length, options.per_frame, common.size) };
    let detector = common.detector(options.false_alarms)?;
    let outcomes = common
        .over_frames(|frame| search_frame(&detector, &conditions, &placement, &options.snr, common.seed, frame))?;
    let trials: Vec<Trial> = outcomes.iter().flat_map(|o| o.trials.iter().copied()).collect();

    common.describe();
    let cut = if options.cut { ", some cut by the border" } else { "" };
    println!("{} streaks of {} px{cut}, {} in a frame. Found: {RULE}.\n", trials.len(), options.length, placement.n);
    let mut by_snr = Table::new(["S/N", "streaks", "found", "± 1 sigma", "from the truth", "in pieces"]);
    for &snr in &options.snr {
        let here: Vec<&Trial> = trials.iter().filter(|t| t.snr == snr).collect();
        if here.is_empty() {
            continue;
        }
        let count = |what: fn(&Trial) -> bool| here.iter().filter(|t| what(t)).count();
        let share = |hits: usize| hits as f64 / here.len() as f64;
        let (low, high) = share_interval(count(|t| t.blind), here.len());
        by_snr.row([
            format!("{snr}"),
            here.len().to_string(),
            percent(share(count(|t| t.blind))),
            format!("{:.1} – {:.1} %", 100.0 * low, 100.0 * high),
            percent(share(count(|t| t.from_truth))),
            percent(share(count(|t| t.broken))),
        ]);
    }
    println!("{by_snr}");

    let blind: Vec<(f64, bool)> = trials.iter().map(|t| (t.snr, t.blind)).collect();
    let from_truth: Vec<(f64, bool)> = trials.iter().map(|t| (t.snr, t.from_truth)).collect();
    let mut fits = Table::new(["sigma", "length", "false alarms asked", "search", "S/N at 50 %", "S/N at 90 %"]);
    for (name, trials) in [("blind", &blind), ("from the truth", &from_truth)] {
        let fit = Response::fit(trials);
        let at = |share: f64| fit.map_or("–".to_owned(), |f| with_error(f.at_share(share)));
        fits.row([
            common.sigma.to_string(),
            options.length.to_string(),
            options.false_alarms.to_string(),
            name.to_owned(),
            at(0.5),
            at(0.9),
        ]);
    }
    println!("{fits}");
    let false_alarms: usize = outcomes.iter().map(|o| o.false_alarms).sum();
    println!("Detections that belong to no streak: {false_alarms} in {} frames.", outcomes.len());
    options.plot.as_ref().map_or(Ok(()), |path| save_plot(path, options, &trials, Response::fit(&blind)))
}

fn save_plot(path: &std::path::Path, options: &Options, trials: &[Trial], fit: Option<Response>) -> AnyResult<()> {
    let points = |what: fn(&Trial) -> bool| {
        let of = |&snr: &f64| {
            let here: Vec<&Trial> = trials.iter().filter(|t| t.snr == snr).collect();
            let (low, high) = share_interval(here.iter().filter(|t| what(t)).count(), here.len());
            // Not finite where there is no streak: not drawn.
            (snr, 0.5 * (low + high), 0.5 * (high - low))
        };
        options.snr.iter().map(of).collect::<Vec<_>>()
    };
    let mut series = vec![
        Series::points("blind search", points(|t| t.blind)),
        Series::points("fit from the truth", points(|t| t.from_truth)),
    ];
    if let Some(fit) = fit {
        let curve = (0..=140).map(|k| 3.0 + 0.05 * f64::from(k)).map(|s| (s, fit.share(s))).collect();
        series.push(Series::line("fit", curve));
    }
    let title = format!("Completeness, {} px, {} false alarms asked", options.length, options.false_alarms);
    plot::save_svg(path, &title, "true S/N", "share found", &series)
}
