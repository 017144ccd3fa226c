//! False alarms: what is found where there is nothing.

use clap::Args;

use crate::AnyResult;
use crate::options::Common;
use crate::statistics::poisson_interval;
use crate::table::Table;
use crate::trials::{FalseAlarm, find_nothing};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// False alarms per frame that are asked for; each is a run of its own over the same frames.
    #[arg(long, value_delimiter = ',', default_values_t = [0.01, 0.1, 1.0])]
    asked: Vec<f64>,
}

#[derive(Args)]
pub(crate) struct CalibrateOptions {
    #[command(flatten)]
    common: Common,
    /// False alarms per frame that are asked for: so many that the thresholds lie below the lowest level.
    #[arg(long, default_value_t = 20.0)]
    asked: f64,
    /// Levels of S/N above which detections are counted.
    #[arg(long, value_delimiter = ',', default_values_t = [5.0, 5.25, 5.5, 5.75, 6.0])]
    levels: Vec<f64>,
}

/// Octaves of length that thresholds are set for: from 8 px; the last holds all from half of the side on.
fn n_octaves(size: usize) -> usize {
    (size as f64 / 8.0).log2().floor().max(1.0) as usize
}

fn octave(length_px: f64, octaves: usize) -> usize {
    (length_px / 8.0).log2().floor().clamp(0.0, octaves as f64 - 1.0) as usize
}

fn octave_name(k: usize, octaves: usize) -> String {
    let first = 8 << k;
    if k + 1 < octaves { format!("{first}–{}", 2 * first) } else { format!("{first}–") }
}

/// Detections in frames of noise alone, and how many more were rejected by their looks.
fn count(common: &Common, asked: f64) -> AnyResult<(Vec<FalseAlarm>, usize)> {
    let conditions = common.conditions()?;
    let detector = common.detector(asked)?;
    let frames = common.over_frames(|frame| find_nothing(&detector, &conditions, common.seed, frame))?;
    let n_rejected = frames.iter().map(|f| f.1).sum();
    Ok((frames.into_iter().flat_map(|f| f.0).collect(), n_rejected))
}

fn interval(n: usize, frames: usize, confidence: f64) -> String {
    let (low, high) = poisson_interval(n as u64, confidence);
    format!("{:.4} – {:.4}", low / frames as f64, high / frames as f64)
}

pub(crate) fn run(options: &Options) -> AnyResult<()> {
    let common = &options.common;
    let n_frames = common.frames;
    let mut table =
        Table::new(["asked", "frames", "found", "per frame", "68 %", "95 %", "per frame / asked", "rejected"]);
    let mut by_length = Table::new(["asked", "length, px", "found", "per frame / share asked", "68 %"]);
    for &asked in &options.asked {
        let (found, n_rejected) = count(common, asked)?;
        let rate = found.len() as f64 / n_frames as f64;
        table.row([
            asked.to_string(),
            n_frames.to_string(),
            found.len().to_string(),
            format!("{rate:.4}"),
            interval(found.len(), n_frames, 0.68),
            interval(found.len(), n_frames, 0.95),
            format!("{:.2}", rate / asked),
            n_rejected.to_string(),
        ]);
        let octaves = n_octaves(common.size);
        let expected = asked / octaves as f64 * n_frames as f64;
        for k in 0..octaves {
            let n = found.iter().filter(|f| octave(f.length_px, octaves) == k).count();
            let (low, high) = poisson_interval(n as u64, 0.68);
            by_length.row([
                asked.to_string(),
                octave_name(k, octaves),
                n.to_string(),
                format!("{:.2}", n as f64 / expected),
                format!("{:.2} – {:.2}", low / expected, high / expected),
            ]);
        }
    }
    common.describe();
    println!("Frames of noise alone; intervals are exact ones of a Poisson variable.\n\n{table}\n{by_length}");
    Ok(())
}

/// The false-alarm law at a constant of one, in a frame of 512² pixels at sigma 1.5.
fn law(t: f64) -> f64 {
    (t / 5.0).powi(5) * (0.5 * (25.0 - t * t)).exp()
}

pub(crate) fn calibrate(options: &CalibrateOptions) -> AnyResult<()> {
    let common = &options.common;
    let (found, n_rejected) = count(common, options.asked)?;
    let square = |v: f64| v * v;
    let sigma_eff_square = square(common.sigma) + 1.0 / 12.0;
    let cells = square(common.size as f64 / 512.0) * (square(1.5) + 1.0 / 12.0) / sigma_eff_square;
    let frames = common.frames as f64;

    common.describe();
    let lowest = found.iter().map(|f| f.snr).fold(f64::INFINITY, f64::min);
    println!("{} detections, the faintest at S/N {lowest:.2}; {n_rejected} more were rejected.", found.len());
    println!("Levels below the threshold of an octave are incomplete there.\n");
    let mut counts = Table::new(["length, px", "above S/N", "found", "per frame", "constant c", "± 1 sigma"]);
    let octaves = n_octaves(common.size);
    for k in 0..=octaves {
        let here = |f: &&FalseAlarm| k == octaves || octave(f.length_px, octaves) == k;
        for &level in &options.levels {
            let n = found.iter().filter(here).filter(|f| f.snr > level).count();
            let of_law = frames * cells * law(level);
            let (low, high) = poisson_interval(n as u64, 0.68);
            counts.row([
                if k < octaves { octave_name(k, octaves) } else { "all".to_owned() },
                level.to_string(),
                n.to_string(),
                format!("{:.4}", n as f64 / frames),
                format!("{:.3}", n as f64 / of_law),
                format!("{:.3} – {:.3}", low / of_law, high / of_law),
            ]);
        }
    }
    println!("rate(t) = c · (pixels / 512²) · (1.527 / sigma_eff)² · (t / 5)⁵ · exp((25 − t²) / 2)\n\n{counts}");
    Ok(())
}
